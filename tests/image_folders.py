"""Folders of files that are images by their first bytes only, each with content of its own.

Nothing decodes them: they are for what reads heads and hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from clip_har.dataset import ActionDataset, SplitName, load_dataset
from clip_har.errors import DataError


def content(number: int) -> bytes:
    """A JPEG's signature and this number."""
    return b"\xff\xd8\xff" + number.to_bytes(8, "big")


def fill(folder: Path, numbers: Iterable[int], pattern: str = "{:05d}.jpg") -> None:
    """Write one image per number into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / pattern.format(number)).write_bytes(content(number))


def fill_classes(root: Path, sizes: Mapping[str, int], *, start: int = 0) -> Path:
    """Write class folders with so many images each, all different; returns the root."""
    for label, size in sizes.items():
        fill(root / label, range(start, start + size))
        start += size
    return root


def names(dataset: ActionDataset, split: SplitName | None = None) -> set[str]:
    """The names of a split's images, or of all."""
    return {record.name for record in dataset.records if split in (None, record.split)}


def class_counts(dataset: ActionDataset, split: SplitName) -> dict[str, int]:
    """Class -> images in a split."""
    return dict(Counter(record.label for record in dataset.split(split)))


def refusal(root: Path, **options: object) -> DataError:
    """The error that loading a dataset ends in: one line and a remedy."""
    with pytest.raises(DataError) as caught:
        load_dataset(root, **options)  # type: ignore[arg-type]
    assert caught.value.remedy and "\n" not in str(caught.value)
    return caught.value
