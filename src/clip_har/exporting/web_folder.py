"""A folder of static files that predicts photos in the browser: the page, its scripts, the model and what runs it.

The page is in web_page/; model.json tells it what it must know of the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har import __version__
from clip_har.abstention import with_defaults
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.exporting.description import public_name
from clip_har.exporting.image_model import ImageClassifier
from clip_har.exporting.onnx_file import MODEL_FILE, weight_bytes
from clip_har.exporting.web_runtime import web_runtime
from clip_har.files import cache_folder
from clip_har.images import limits
from clip_har.photo_page import scripts, style_sheet
from clip_har.predict import AbstentionPolicy, Judge, recorded_calibration
from clip_har.progress import Progress
from clip_har.wording import file_size, method_label

SETTINGS = "model.json"
PAGES = ("index.html", "start.js", "page.js", "worker.js", "decode.js", "preprocess.js", "resize.js", "judge.js")
LICENCE = "onnxruntime-licence.txt"
LARGEST = 1_000_000_000
"""Bytes of weights above which no page is written: a browser needs the model two or three times in at most 4 GB."""
TOP = 8
"""Classes that the page lists."""
_HERE = Path(__file__).parent / "web_page"


@dataclass(frozen=True, kw_only=True)
class PageParts:
    """What a page needs besides the model; found before anything slow."""

    runtime: Mapping[str, bytes]
    """Name -> content of the files that run the model."""
    calibration: Mapping[str, Any]
    """By which rules predictions are withheld; see `rules`."""


def page_parts(
    run: Run, asked: AbstentionPolicy, runtime: Path | None, cache: Path | None, progress: Progress
) -> PageParts:
    """Find what a page needs.

    Args:
        asked: what predictions are withheld; what is not given has the defaults of the service.
        runtime: a folder or an archive of onnxruntime-web.
        cache: folder of clip-har's caches, or None for the default.

    Raises:
        RunError: the run has no calibration data for what is asked, or cannot guarantee it.
        ConfigError: onnxruntime-web cannot be had.
    """
    rules_of_run = rules(run, with_defaults(asked, run))
    return PageParts(runtime=web_runtime(runtime, cache_folder(cache), progress), calibration=rules_of_run)


def rules(run: Run, policy: AbstentionPolicy) -> dict[str, Any]:
    """By which rules predictions are withheld, as judge.js reads them."""
    judge, calibration = Judge(run, policy), recorded_calibration(run)
    return {
        "temperature": None if calibration is None else calibration.temperature,
        "coverage": policy.coverage,
        "sets_up_to": judge.sets_up_to,
        "answers_from": judge.answers_from,
        "known_from": judge.known_from,
    }


def require_small(model: ImageClassifier) -> None:
    """Refuse what a browser cannot load.

    Raises:
        ConfigError: the model is too large.
    """
    if (size := weight_bytes(model)) > LARGEST:
        raise ConfigError(
            f"The model has {file_size(size)} of weights, more than the {file_size(LARGEST)} that a browser can load",
            remedy="Use a run on a smaller model, or --format onnx.",
        )


def write(run: Run, parts: PageParts, folder: Path) -> None:
    """Write everything but the model, which is in the folder already."""
    texts = {name: (_HERE / name).read_text(encoding="utf-8") for name in (*PAGES, LICENCE)}
    texts |= scripts()
    texts["page.css"] = style_sheet((_HERE / "page.css").read_text(encoding="utf-8"))
    model = (folder / MODEL_FILE).read_bytes()
    texts[SETTINGS] = json.dumps(settings(run, parts, model), indent=1, ensure_ascii=False) + "\n"
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    for name, content in parts.runtime.items():
        (folder / name).write_bytes(content)


def settings(run: Run, parts: PageParts, model: bytes) -> dict[str, Any]:
    """The content of model.json."""
    name = public_name(run.card.backbone.name)
    backbone = "" if name.startswith("local-dir:") else f" on {name}"
    return {
        "about": f"Model: {method_label(run.card.method)}{backbone}, exported by clip-har {__version__}.",
        "classes": list(run.classes),
        "top": TOP,
        "preprocessing": run.preprocessing.to_json(),
        "calibration": dict(parts.calibration),
        "limits": {
            "pixels": limits.MAX_PIXELS,
            "side": limits.MAX_SIDE,
            "bytes": limits.MAX_BYTES,
            "file_bytes": limits.MAX_FILE_BYTES,
        },
        "model": _file(MODEL_FILE, model),
        "runtime": _file("ort.wasm", parts.runtime["ort.wasm"]),
    }


def _file(name: str, content: bytes) -> dict[str, Any]:
    """A file as the page loads it; a browser that has another version of it in its cache loads it again."""
    return {"file": name, "bytes": len(content), "version": hashlib.sha256(content).hexdigest()[:16]}
