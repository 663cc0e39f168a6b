"""export.json: what an export is, so that it can be used without clip-har and traced to its run.

Paths of this machine are not in it: an export may be published.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clip_har import __version__
from clip_har.checkpoint import Run
from clip_har.exporting.onnx_file import INPUT, OUTPUTS
from clip_har.fusion import SEPARATOR, part_names


def describe(run: Run, kind: str) -> dict[str, Any]:
    """What is known of an export before it is written: classes, preprocessing, calibration and origin."""
    card = run.card
    height, width = run.preprocessing.image_size
    found: dict[str, Any] = {
        "clip_har_version": __version__,
        "format": kind,
        "classes": list(run.classes),
        "preprocessing": run.preprocessing.to_json(),
        "calibration": card.confidence,
        "unknown": None if card.unknown is None else card.unknown.get("max_softmax"),
        "run": {
            "method": card.method,
            "preset": card.preset,
            "weights_sha256": run.weights_sha256(),
            "manifest_sha256": card.manifest_sha256,
            "seed": card.seed,
            "clip_har_version": card.package_version,
        },
        "backbone": {"name": public_name(card.backbone.name), "weights_sha256": card.backbone.weights_hash},
    }
    if kind.startswith(("onnx", "web")) or kind == "hub":
        found["input"] = {"name": INPUT, "type": "float32", "shape": ["batch", 3, height, width]}
        found["outputs"] = {name: ["batch", len(run.classes)] for name in OUTPUTS}
    return found


def public_name(model: str) -> str:
    """A model's name without the folders that it lies in."""

    def short(name: str) -> str:
        kind, _, rest = name.partition(":")
        if kind == "local-dir" or Path(rest).is_absolute():
            return f"{kind}:{Path(rest).name}"
        return Path(name).name if Path(name).is_absolute() else name

    return SEPARATOR.join(map(short, part_names(model)))


def size_of(folder: Path, names: Iterable[str]) -> int:
    """Bytes of files in a folder."""
    return sum((folder / name).stat().st_size for name in names)
