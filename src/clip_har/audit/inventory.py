"""Every file of a dataset as it lies there, before anything is omitted: what an audit looks at.

What a training would make of the same files is in dataset/loading.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_har.dataset import ImageRecord
from clip_har.dataset.label_checks import refuse_impossible_labels
from clip_har.dataset.layout import FoundFile
from clip_har.dataset.reading import read_heads
from clip_har.dataset.sources import find_source
from clip_har.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The files of a dataset, with the classes and splits that folders or tables give them."""

    root: Path
    images: tuple[FoundFile, ...]
    """Files whose content begins as an image's, with content hashes."""
    unreadable: tuple[tuple[FoundFile, str], ...]
    """Files that only their names say are images, without hashes, and why they are none."""
    warnings: tuple[str, ...]


def read_inventory(data: Path) -> Inventory:
    """List and hash every image of a dataset.

    Raises:
        DataError: there is no dataset, or no image in it.
    """
    source = find_source(data)
    files = {file.name: file for file in source.files}
    images, unreadable = read_heads(list(files.values()))
    if not images:
        raise DataError(f"{source.root} contains no readable image", remedy="Check the path of the dataset.")
    return Inventory(
        root=source.root,
        images=tuple(images),
        unreadable=tuple((files[item.name], item.reason) for item in unreadable),
        warnings=(*source.warnings, *_impossible_labels(source.root, images)),
    )


def _impossible_labels(root: Path, images: Sequence[FoundFile]) -> Iterator[str]:
    """Yield what would keep a training from reading the dataset."""
    try:
        refuse_impossible_labels(root, images, None)
    except DataError as error:
        yield str(error)


def as_records(files: Sequence[FoundFile]) -> list[ImageRecord]:
    """The files as records for what reads images; those without a split count as training images."""
    return [
        ImageRecord(path=file.path, name=file.name, sha256=file.sha256, label=file.label, split=file.split or "train")
        for file in files
    ]
