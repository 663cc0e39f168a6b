"""Where a dataset is that is called by its name: a note in the cache that says where it was fetched to.

Fetching is in download/.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clip_har.errors import DataError
from clip_har.files import cache_folder
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json

NAMES = ("har",)
"""Datasets that can be called by name."""


def locate(data: Path) -> Path:
    """The folder of a dataset that is called by name; any other path, and one that exists, is itself.

    Raises:
        DataError: the dataset was not fetched, or is no longer where it was.
    """
    name = str(data)
    if name not in NAMES or data.exists():
        return data
    return _fetched(name)


def is_fetched(folder: Path) -> bool:
    """Whether a folder is, or lies in, one that a dataset was fetched to."""
    for name in NAMES:
        with suppress(DataError):  # it was not fetched, or is no longer there
            if folder.resolve().is_relative_to(_fetched(name).resolve()):
                return True
    return False


def remember(name: str, folder: Path) -> Path:
    """Note where a dataset was fetched to; returns the note's file."""
    path = note_path(name)
    write_sealed_json(path, {"folder": str(folder.resolve())})
    return path


def note_path(name: str) -> Path:
    """The file that says where a dataset is."""
    return cache_folder(None) / "datasets" / f"{name}.json"


def _fetched(name: str) -> Path:
    fetch = f"clip-har data fetch {name} --source kaggle --out DIR"
    try:
        folder = Path(read_sealed_json(note_path(name))["folder"])
    except FileNotFoundError as error:
        raise DataError(f"The dataset {name} has not been fetched", remedy=f"Run {fetch}") from error
    except (DamagedError, OSError, KeyError, TypeError) as error:
        raise DataError(f"{note_path(name)} is damaged", remedy=f"Run {fetch} again") from error
    if not folder.is_dir():
        raise DataError(f"The dataset {name} is no longer in {folder}", remedy=f"Restore it, or run {fetch}")
    return folder
