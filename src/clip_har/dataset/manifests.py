"""The split manifest and the list of unreadable images as files: written whole or not at all, and read back.

Which split an image gets is decided in splits.py; which of its images are in a folder, in verifying.py.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clip_har.csv_cells import csv_text, true_cell
from clip_har.dataset.records import MANIFEST_COLUMNS, SPLITS, ActionDataset, SplitName
from clip_har.errors import DataError
from clip_har.files import write_atomically
from clip_har.integrity import SEAL_MARK

_SHOWN_LENGTH = 60


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One image of a manifest: where it was, what it holds, and its class and split."""

    name: str
    sha256: str
    label: str
    split: SplitName


def write_manifest(dataset: ActionDataset, path: Path) -> None:
    """Write the split manifest, whole or not at all."""
    write_atomically(path, dataset.manifest_csv())


def write_unreadable(dataset: ActionDataset, path: Path) -> None:
    """Write the list of images omitted (path, split, reason), whole or not at all."""
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
        if not path.is_file():
            continue
        with suppress(FileNotFoundError):  # deleted just now
            for row in _rows(path, remedy="Restore it, or delete it to create the split again."):
                known.setdefault(row.sha256, row.split)
    return known


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """The images of a manifest that the user names.

    Raises:
        DataError: there is no such file, it is not a manifest, names no image, or puts one into two splits.
    """
    remedy = "Create one with clip-har data split, or download the file again."
    if not path.is_file():
        what = "is a folder, not a split manifest" if path.is_dir() else "does not exist"
        raise DataError(f"The manifest {path} {what}", remedy=remedy)
    rows = tuple(_rows(path, remedy=remedy))
    if not rows:
        raise DataError(f"{path} is a split manifest without images", remedy=remedy)
    first: dict[str, ManifestRow] = {}
    for row in rows:
        other = first.setdefault(row.sha256, row)
        if other.split != row.split:
            raise DataError(
                f"{path} has one image in two splits: {other.name} in {other.split}, {row.name} in {row.split}, "
                "of equal content",
                remedy="Remove one of the two lines.",
            )
    return rows


def _rows(path: Path, *, remedy: str) -> Iterator[ManifestRow]:
    splits = {str(split): split for split in SPLITS}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            header = tuple(next(rows, ()))
            if header != MANIFEST_COLUMNS:
                found = _shortened(",".join(header)) if header else "empty"
                raise ValueError(f"its first line is {found}, not {','.join(MANIFEST_COLUMNS)}")
            for row in rows:
                if not row or (len(row) == 1 and row[0].startswith(SEAL_MARK)):  # a blank line, or a seal
                    continue
                line = f"line {rows.line_num}"
                if len(row) != len(MANIFEST_COLUMNS):
                    raise ValueError(f"{line} has {len(row)} columns, not {len(MANIFEST_COLUMNS)}")
                name, sha256, label, split = row
                if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
                    raise ValueError(f"{line} has the hash {_shortened(sha256)}, which is not a SHA-256")
                if split not in splits:
                    raise ValueError(f"{line} has the split {_shortened(split)}, not {', '.join(SPLITS)}")
                if not label.strip():
                    raise ValueError(f"{line} has no class")
                yield ManifestRow(
                    name=true_cell(name), sha256=sha256.lower(), label=true_cell(label), split=splits[split]
                )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a split manifest: it is not UTF-8 text", remedy=remedy) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a split manifest: {error}", remedy=remedy) from error


def _shortened(text: str) -> str:
    """The text in quotes, on one line and not long."""
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}...")
