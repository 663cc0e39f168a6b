"""The configuration that open_clip builds a model from, and its tokenizer's files, by the model's name.

Opening the model, with all checks of its files, is in opening.py and comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har.errors import ModelError
from clip_har.light_imports import import_open_clip
from clip_har.pretrained import files as model_files
from clip_har.pretrained.configs import read_json
from clip_har.pretrained.names import absolute, parse
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


def architecture_of(name: str) -> Architecture:
    """The configuration of a model that has been loaded on this machine.

    Raises:
        ModelError: a weight file alone, which has none.
    """
    architecture, _ = parse(absolute(name))
    kind, _, rest = architecture.partition(":")
    if kind == "local-dir" and is_tuned(Path(rest)):
        return architecture_of(read_base(Path(rest)).name)
    if kind in ("local-dir", "hf-hub"):
        folder = Path(rest) if kind == "local-dir" else _snapshot(rest)
        content = read_json(folder / model_files.CONFIG, str(folder / model_files.CONFIG))
        files = model_files.text_files(folder, from_hub=kind == "hf-hub")
        kept = tuple(path for path in files if path.name not in (model_files.CONFIG, "config.json"))
        return Architecture(model_config=content["model_cfg"], folder=folder, tokenizer_files=kept)
    if not architecture:
        raise ModelError(
            f"{name} is a weight file without a configuration for open_clip",
            remedy="Pass the model as NAME:FILE, such as ViT-B-32:FILE, and train again.",
        )
    return Architecture(model_config=import_open_clip().get_model_config(architecture))


def _snapshot(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in sorted(model_files.TEXT_SUFFIXES)]
    return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
