"""The split manifest and the list of unreadable images as files: written whole or not at all, and read back.

Which split an image gets is decided in splits.py.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_har.dataset.records import MANIFEST_COLUMNS, SPLITS, ActionDataset, SplitName, csv_text
from clip_har.errors import DataError
from clip_har.files import write_atomically


def write_manifest(dataset: ActionDataset, path: Path) -> None:
    """Write the split manifest, whole or not at all."""
    write_atomically(path, dataset.manifest_csv())


def write_unreadable(dataset: ActionDataset, path: Path) -> None:
    """Write the list of images left out (path, split, reason), whole or not at all."""
    rows = ((item.name, item.split, item.reason) for item in dataset.unreadable)
    write_atomically(path, csv_text(("path", "split", "reason"), rows))


def read_manifests(paths: Sequence[Path]) -> dict[str, SplitName]:
    """Content hash -> split, from earlier manifests; the first that knows an image decides.

    A path where there is no file counts as a manifest without images.

    Raises:
        DataError: a file is not a manifest, or only part of one.
    """
    known: dict[str, SplitName] = {}
    for path in paths:
        if path.is_file():
            for sha256, split in _rows(path):
                known.setdefault(sha256, split)
    return known


def _rows(path: Path) -> Iterator[tuple[str, SplitName]]:
    splits = {str(split): split for split in SPLITS}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            if tuple(next(rows, ())) != MANIFEST_COLUMNS:
                raise ValueError("its first line is not a manifest's")
            for _, sha256, _, split in rows:
                if split not in splits or not re.fullmatch("[0-9a-f]{64}", sha256):
                    raise ValueError(f"line {rows.line_num} is not a manifest's")
                yield sha256, splits[split]
    except (ValueError, csv.Error) as error:  # ValueError: also other encodings, and rows of other lengths
        remedy = "Restore it, or delete it to make the split anew."
        raise DataError(f"{path} is not a split manifest: {error}", remedy=remedy) from error
