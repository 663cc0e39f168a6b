"""The configuration that open_clip builds a model from, and its tokenizer's files, by the model's name.

Opening the model, with all checks of its files, is in opening.py and comes first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har.errors import ModelError
from clip_har.light_imports import import_open_clip
from clip_har.pretrained import files as model_files
from clip_har.pretrained.configs import read_json
from clip_har.pretrained.converted import MANIFEST, conversion_folder
from clip_har.pretrained.names import absolute, is_open_clip, parse, split_image_size
from clip_har.pretrained.tuned import is_tuned, read_base


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What there is of a model besides its weights."""

    model_config: dict[str, Any]
    """open_clip's "model_cfg"."""
    folder: Path | None = None
    """Where the tokenizer's files are; None for a model of open_clip's own list."""
    tokenizer_files: tuple[Path, ...] = ()
    """Relative to the folder."""


def architecture_of(name: str, files_sha256: str) -> Architecture:
    """The configuration of a model that has been loaded on this machine.

    Args:
        files_sha256: its fingerprint, by which the conversion of another library's model is found.

    Raises:
        ModelError: there is none: a weight file alone, or the conversion was not cached.
    """
    model, side = split_image_size(name)
    if side is not None:
        return _at_size(architecture_of(model, files_sha256), side)
    architecture, _ = parse(absolute(name))
    kind, _, rest = architecture.partition(":")
    if kind == "local-dir" and is_tuned(Path(rest)):
        base = read_base(Path(rest))
        return architecture_of(base.name, base.files_sha256)
    if files_sha256 and (converted := conversion_folder(files_sha256)) is not None:
        return _of_folder(converted, from_hub=False)
    if kind in ("local-dir", "hf-hub"):
        folder = Path(rest) if kind == "local-dir" else _snapshot(rest)
        if is_open_clip(folder):
            return _of_folder(folder, from_hub=kind == "hf-hub")
    elif architecture:
        return Architecture(model_config=import_open_clip().get_model_config(architecture))
    raise ModelError(
        f"{name} has no configuration for open_clip",
        remedy="Pass the model as NAME:FILE, such as ViT-B-32:FILE, and train again; or use --format onnx.",
    )


def _at_size(architecture: Architecture, side: int) -> Architecture:
    image = {**architecture.model_config["vision_cfg"], "image_size": side}
    return dataclasses.replace(architecture, model_config={**architecture.model_config, "vision_cfg": image})


def _of_folder(folder: Path, *, from_hub: bool) -> Architecture:
    content = read_json(folder / model_files.CONFIG, str(folder / model_files.CONFIG))
    files = model_files.text_files(folder, from_hub=from_hub)
    kept = tuple(path for path in files if path.name not in (model_files.CONFIG, "config.json", MANIFEST))
    return Architecture(model_config=content["model_cfg"], folder=folder, tokenizer_files=kept)


def _snapshot(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in sorted(model_files.TEXT_SUFFIXES)]
    return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
