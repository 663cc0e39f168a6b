"""What a dataset is once it is read: images with classes and splits, and what was omitted.

How folders become these is in the package's other modules.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from clip_har.csv_cells import csv_text
from clip_har.images.addresses import ImageAddress

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
MANIFEST_COLUMNS = ("path", "sha256", "class", "split")


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    r"""One labelled image.

    `path` is absolute, or a place inside a larger file; `name` is relative to the dataset's folder, with forward
    slashes, and can always be written as UTF-8: other bytes in a file's name appear as \udcXX. `sha256` is that of the
    image file's content.
    """

    path: ImageAddress
    name: str
    sha256: str
    label: str
    split: SplitName


@dataclass(frozen=True, kw_only=True)
class UnreadableImage:
    """A file that should have been an image of the dataset but cannot be read."""

    name: str
    split: SplitName
    reason: str


@dataclass(frozen=True, kw_only=True)
class ActionDataset:
    """Images with classes and frozen splits. `classes` are those of the training images, sorted."""

    root: Path
    """The folder, or the one file that lists or holds the images."""
    classes: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    unreadable: tuple[UnreadableImage, ...] = ()
    warnings: tuple[str, ...] = ()
    form: str = "class folders"
    """What kind of dataset it was taken for, in words."""
    own_splits: frozenset[SplitName] = frozenset()
    """The splits that the folders or a manifest say; what is in the others was cut out of the training images."""

    def split(self, name: SplitName) -> tuple[ImageRecord, ...]:
        """The records of one split, in the manifest's order."""
        return tuple(record for record in self.records if record.split == name)

    def targets(self, name: SplitName) -> np.ndarray:
        """Class indices [N] (int64) of one split, aligned with `split(name)`."""
        index = {label: i for i, label in enumerate(self.classes)}
        return np.array([index[record.label] for record in self.split(name)], dtype=np.int64)

    def counts(self) -> dict[str, int]:
        """Images per split."""
        counted = Counter(record.split for record in self.records)
        return {name: counted.get(name, 0) for name in SPLITS}

    def without(self, reasons: Mapping[str, str]) -> ActionDataset:
        """The dataset less the images that turned out unreadable (`reasons`: sha256 -> reason)."""
        if not reasons:
            return self
        bad = [
            UnreadableImage(name=r.name, split=r.split, reason=reasons[r.sha256])
            for r in self.records
            if r.sha256 in reasons
        ]
        kept = tuple(record for record in self.records if record.sha256 not in reasons)
        return replace(self, records=kept, unreadable=(*self.unreadable, *bad))

    def manifest_csv(self) -> str:
        """The manifest's text: path, sha256, class and split of every image."""
        return csv_text(MANIFEST_COLUMNS, ((r.name, r.sha256, r.label, r.split) for r in self.records))

    def manifest_hash(self) -> str:
        """SHA-256 of the manifest's text: equal hashes mean equal images, classes and splits."""
        return hashlib.sha256(self.manifest_csv().encode()).hexdigest()


def first_names(names: Iterable[str], limit: int = 3) -> str:
    """ "a, b, c and 4 more", for messages that stay one line."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
