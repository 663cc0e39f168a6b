"""card.json: what a finished run is, sealed, with the SHA-256 of its files. Reads format 1, which had neither.

What the entries mean is for checkpoint.py and the workflows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clip_har.errors import RunError
from clip_har.files import write_atomically
from clip_har.integrity import file_sha256, is_sealed, seal_holds, sealed

FORMAT_VERSION = 2
CARD_NAME = "card.json"
_FIRST_SEALED_VERSION = 2
RESTORE = "Restore it from a copy, or train the run again."
"""What to do about a file of a run that is missing or damaged."""


def write_card(folder: Path, card: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write card.json with the SHA-256 of the run's files, as they are read back now, and its seal.

    Args:
        files: names in the folder; those that do not exist are skipped.

    Raises:
        OSError: a file cannot be read, or the card cannot be written.
    """
    recorded = {name: file_sha256(folder / name) for name in sorted(files) if (folder / name).is_file()}
    _write(folder, {**card, "files": recorded})


def read_card(folder: Path) -> dict[str, Any]:
    """The run's card, checked: its seal, its version, and the type of what every run has.

    Raises:
        RunError: it is missing, damaged, not a card, or from a later version.
    """
    path = folder / CARD_NAME
    try:
        card = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", remedy=RESTORE) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it is not valid JSON", remedy=RESTORE) from error
    if not isinstance(card, dict):
        raise RunError(f"{path} is not the card of a run", remedy=RESTORE)
    version: Any = card.get("format_version")
    if _is_count(version) and version > FORMAT_VERSION:
        raise RunError(
            f"{folder} was written by clip-har {card.get('package_version', 'of a later version')}",
            remedy="Install that version or a later one.",
        )
    wrong = [key for key, (required, holds) in _ENTRIES.items() if not _fits(card, key, required, holds)]
    if wrong:
        raise RunError(f"{path} is not the card of a run: {', '.join(wrong)} missing or invalid", remedy=RESTORE)
    needs_seal = version >= _FIRST_SEALED_VERSION
    if (needs_seal or is_sealed(card)) and not seal_holds(card):
        raise RunError(f"{path} was changed after the run was trained (its checksum does not match)", remedy=RESTORE)
    return card


def add_to_card(folder: Path, key: str, content: Mapping[str, Any]) -> None:
    """Add to the card of a finished run, or replace what it says there.

    Raises:
        RunError: the card is damaged.
        OSError: it cannot be written.
    """
    _write(folder, {**read_card(folder), key: content})


def has_checksums(card: Mapping[str, Any]) -> bool:
    """Whether the run was written with checksums: not before format 2."""
    return "files" in card


def check_files(folder: Path, card: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Compare files with the checksums on the card; a run without checksums passes.

    Args:
        names: files to check; those the card does not record pass. By default all that it records.

    Raises:
        RunError: naming the first file that is missing or is not what the run wrote.
    """
    recorded: Mapping[str, str] = card.get("files", {})
    for name in recorded if names is None else names:
        if name not in recorded:
            continue
        path = folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            reason = "is missing" if not path.exists() else f"cannot be read: {error.strerror}"
            raise RunError(f"{path} {reason}", remedy=RESTORE) from error
        if found != recorded[name]:
            raise RunError(
                f"{path} is damaged or was changed after the run was trained (its checksum does not match)",
                remedy=RESTORE,
            )


def _write(folder: Path, card: Mapping[str, Any]) -> None:
    text = json.dumps(sealed(card), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CARD_NAME, text)


def _fits(card: Mapping[str, Any], key: str, required: bool, holds: Callable[[Any], bool]) -> bool:
    return holds(card[key]) if key in card else not required


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_backbone(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("weights_hash"), str)
        and isinstance(value.get("logit_scale"), (int, float))
    )


def _is_files(value: Any) -> bool:
    """Plain names with their hashes: a name with a separator would let a card ask about files elsewhere."""
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9_.-]+", name) and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        for name, sha256 in value.items()
    )


_ENTRIES: dict[str, tuple[bool, Callable[[Any], bool]]] = {
    "format_version": (True, _is_count),
    "method": (True, lambda value: isinstance(value, str)),
    "backbone": (True, _is_backbone),
    "classes": (True, lambda value: _is_texts(value) and len(value) == len(set(value)) > 0),
    "templates": (True, lambda value: _is_texts(value) and len(value) > 0),
    "preprocessing": (True, _is_object),
    "settings": (True, _is_object),
    "seed": (True, _is_count),
    "trainable_params": (True, _is_count),
    "trainable_fraction": (False, lambda value: isinstance(value, (int, float))),
    "train_seconds": (False, lambda value: isinstance(value, (int, float))),
    "held_out": (False, _is_texts),
    "phrasing": (False, lambda value: value is None or (_is_object(value) and _is_texts(list(value.values())))),
    "validation": (False, _is_object),
    "splits": (False, _is_object),
    "manifest_sha256": (False, lambda value: isinstance(value, str)),
    "files": (False, _is_files),
}
"""Key -> whether every card has it, and whether a value can be meant."""
