"""Models of other libraries, converted once: written to the cache as open_clip folders, sealed, and read from there.

How a model is converted is for the converters; which names lead here, for `opening`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har.files import cache_folder, temporary_name
from clip_har.integrity import DamagedError, file_sha256, read_sealed_json, write_sealed_json
from clip_har.pretrained.conversion import ACTIVATIONS, Conversion, check_shapes
from clip_har.pretrained.files import CONFIG

VERSION = 1
"""Of the converters. A change of their results raises it, so that earlier conversions are made again."""
MANIFEST = "conversion.json"
"""Sealed: SHA-256 of each file, the activations and the notes."""
WEIGHTS = "open_clip_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A conversion on the disk."""

    folder: Path
    """Holds open_clip_config.json, the weights, and a tokenizer if the model has its own."""
    image_activation: str
    text_activation: str
    notes: tuple[str, ...]
    temporary: Any = None
    """Deletes the folder when it is collected, if the cache cannot be written to; else None."""


def converted(origin: str, source_sha256: str, convert: Callable[[], Conversion]) -> Converted:
    """The conversion of a model, from the cache if it is there and undamaged.

    Args:
        origin: how messages call the model.
        source_sha256: fingerprint of the source files.
        convert: reads the source; called only if needed.

    Raises:
        ModelError: the source cannot be converted.
    """
    place = cache_folder(None) / "converted" / source_sha256
    with contextlib.suppress(DamagedError, OSError):
        return _read(place, source_sha256)
    from safetensors import SafetensorError

    conversion = convert()
    check_shapes(origin, conversion.config["model_cfg"], conversion.tensors)
    with contextlib.suppress(DamagedError, OSError, SafetensorError):  # an unwritable or full cache
        _write_cached(place, source_sha256, conversion)
        return _read(place, source_sha256)
    temporary = tempfile.TemporaryDirectory(prefix="clip-har-converted-")
    _write(Path(temporary.name), source_sha256, conversion)
    return _read(Path(temporary.name), source_sha256, temporary)


def conversion_folder(source_sha256: str) -> Path | None:
    """The folder of a model that was converted before; None without one, or if it is damaged.

    Args:
        source_sha256: fingerprint of the source files.
    """
    with contextlib.suppress(DamagedError, OSError):
        return _read(cache_folder(None) / "converted" / source_sha256, source_sha256).folder
    return None


def _read(folder: Path, source_sha256: str, temporary: Any = None) -> Converted:
    """A conversion whose every file has the SHA-256 that was recorded when it was written.

    Raises:
        DamagedError: changed, incomplete, or of another version.
        OSError: not there, or not readable.
    """
    manifest = read_sealed_json(folder / MANIFEST)
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    if (manifest.get("version"), manifest.get("source_sha256")) != (VERSION, source_sha256) or names != set(
        manifest["files"]
    ):
        raise DamagedError(folder)
    for name, expected in manifest["files"].items():
        if (folder / name).is_symlink() or file_sha256(folder / name) != expected:
            raise DamagedError(folder / name)
    if not {manifest["image_activation"], manifest["text_activation"]} <= set(ACTIVATIONS):
        raise DamagedError(folder)
    return Converted(
        folder=folder,
        image_activation=manifest["image_activation"],
        text_activation=manifest["text_activation"],
        notes=tuple(manifest["notes"]),
        temporary=temporary,
    )


def _write_cached(place: Path, source_sha256: str, conversion: Conversion) -> None:
    """Write the whole folder under another name, then rename it; a damaged predecessor is replaced."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(temporary_name(place.name))
    try:
        temporary.mkdir()
        _write(temporary, source_sha256, conversion)
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was first: its result is read
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, source_sha256: str, conversion: Conversion) -> None:
    from safetensors.torch import save_file

    (folder / CONFIG).write_text(json.dumps(conversion.config, indent=2), encoding="utf-8")
    for name, content in conversion.tokenizer.items():
        (folder / name).write_bytes(content)
    save_file({name: tensor.contiguous().clone() for name, tensor in conversion.tensors.items()}, folder / WEIGHTS)
    manifest = {
        "version": VERSION,
        "source_sha256": source_sha256,
        "files": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        "image_activation": conversion.image_activation,
        "text_activation": conversion.text_activation,
        "notes": list(conversion.notes),
    }
    write_sealed_json(folder / MANIFEST, manifest)
