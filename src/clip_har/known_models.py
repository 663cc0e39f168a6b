"""Which models a run's card may have loaded: clip-har's and open_clip's own, and those the user has named before.

A run folder may come from somebody else. What its card names is not fetched, and a folder, file or repository is
read only if this user has passed it with --model on this machine and it has not changed since.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from clip_har.backbone import Backbone, load_backbone
from clip_har.config import Precision
from clip_har.errors import RunError
from clip_har.fusion import SEPARATOR, FusedBackbone, part_names
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.pretrained import is_built_in, split_image_size


def load_named(name: str, *, device: str, precision: Precision, local_only: bool = False) -> Backbone:
    """Load a model that the user has named, and remember that.

    Raises:
        ModelError: as for `load_backbone`.
    """
    names = part_names(name)
    if len(names) > 1:
        return FusedBackbone(
            [load_named(part, device=device, precision=precision, local_only=local_only) for part in names]
        )
    backbone = load_backbone(name, device=device, precision=precision, local_only=local_only)
    if backbone.info.files_sha256:
        with suppress(OSError):  # then --model is needed again
            known, _ = split_image_size(backbone.info.name)
            write_sealed_json(_note_path(known), {"name": known, "files_sha256": backbone.info.files_sha256})
    return backbone


def load_for_run(name: str, files_sha256: str, folder: Path, *, device: str, precision: Precision) -> Backbone:
    """Load the model that a run's card names. Nothing is fetched, and files are hashed before they are read.

    Args:
        name: the model that the card names.
        files_sha256: the fingerprint of its files that the card states; "" if none.
        folder: the run's, for messages.

    Raises:
        RunError: the card names a model that the user has not named on this machine.
        ModelError: as for `load_backbone`; also if the weights would have to be downloaded.
    """
    names = part_names(name)
    if len(names) > 1:
        hashes = files_sha256.split(SEPARATOR) if files_sha256 else [""] * len(names)
        if len(hashes) != len(names):
            raise RunError(f"{folder} has a damaged card", remedy="Train the run again.")
        each = zip(names, hashes, strict=True)
        return FusedBackbone([load_for_run(n, h, folder, device=device, precision=precision) for n, h in each])
    known = _known_files(name)
    if known is None and is_built_in(name):
        return load_backbone(name, device=device, precision=precision, local_only=True, expected_files="")
    if known is None or (files_sha256 and files_sha256 != known):
        raise RunError(
            f"{folder} was trained on the model {name}, which has not been used on this machine",
            remedy=f"If you trust that model, pass it yourself: --model {name}",
        )
    kind, _, place = split_image_size(name)[0].partition(":")
    if kind == "local-dir" and not Path(place).is_dir():
        raise RunError(
            f"{folder} was trained on the model in {place}, which is not there any more",
            remedy="Pass its new path: --model local-dir:FOLDER",
        )
    return load_backbone(name, device=device, precision=precision, local_only=True, expected_files=known)


def _known_files(name: str) -> str | None:
    """The fingerprint of a model's files when the user last named it, for images of any size."""
    name, _ = split_image_size(name)
    try:
        entry = read_sealed_json(_note_path(name))
    except (FileNotFoundError, DamagedError):
        return None
    return str(entry["files_sha256"]) if entry.get("name") == name else None


def _note_path(name: str) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    digest = hashlib.sha256(name.encode(errors="surrogateescape"))  # bytes of the path that are not UTF-8
    return state / "clip-har" / "known_models" / f"{digest.hexdigest()[:32]}.json"
