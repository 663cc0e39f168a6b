"""What every form of dataset is brought to: files with a class and perhaps a split, and what to say about them.

How each form is read is in the module of its name; which form a path has is guessed in guessing.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_har.dataset.layout import SPLIT_FOLDERS, FoundFile
from clip_har.dataset.records import SplitName, first_names
from clip_har.errors import DataError
from clip_har.images.addresses import ImageAddress

CAPTION_SHARE = 0.5
"""Classes per image above which a column holds captions or names rather than classes, ..."""
CAPTION_IMAGES = 20
"""... where there are at least so many images."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset of any form, before its images are opened."""

    root: Path
    """The folder, or the one file that lists or holds the images."""
    form: str
    """What it was taken for, in words."""
    files: tuple[FoundFile, ...]
    """Sorted by name."""
    warnings: tuple[str, ...] = ()
    class_folders: Mapping[str, str] = field(default_factory=dict)
    """Class -> its folder relative to the root, of the folders that training images come from."""
    split_folders: frozenset[SplitName] = frozenset()
    """Splits that have folders, perhaps without files in them."""

    def splits(self) -> frozenset[SplitName]:
        """The splits that the dataset has; empty for none."""
        return self.split_folders | {file.split for file in self.files if file.split is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image as a table or an archive lists it."""

    address: ImageAddress
    name: str
    label: str | int | None
    """The class, or its number; None where there is none."""
    split: SplitName | None


def source_of_rows(
    root: Path, form: str, rows: Sequence[Row], *, class_names: Sequence[str] = (), warnings: Sequence[str] = ()
) -> Source:
    """Make a source of listed images: classes by name, those without a class omitted and said.

    Args:
        rows: the images; an image may be listed twice, but not under two classes.
        class_names: what the class numbers mean; empty where that is not said.

    Raises:
        DataError: no image has a class, one has two, a number has no name, or the classes are captions.
    """
    labelled = [row for row in rows if row.label not in (None, "", -1)]  # -1: the hub's "no label"
    if not labelled:
        raise DataError(
            f"No image of {root} has a class" + (f" (of {len(rows):,} listed)" if rows else ": it lists no images"),
            remedy="Train on labelled images; use clip-har predict for unlabelled ones.",
        )
    said = [*warnings, *_unlabelled_warnings([row for row in rows if row.label in (None, "", -1)])]
    numbers = all(_is_number(row.label) for row in labelled)
    if numbers and not class_names:
        said.append(
            "Classes are numbers without names, so zero-shot accuracy is meaningless: add classes.txt next to them"
        )
    names = class_names if numbers else ()
    files = [
        FoundFile(path=row.address, name=row.name, label=_name_of(row, names), split=row.split, listed=True)
        for row in labelled
    ]
    _refuse_captions(root, files)
    files, repeated = _without_repeats(root, files)
    if repeated:
        said.append(f"{len(repeated)} images are listed more than once: {first_names(repeated)}")
    return Source(root=root, form=form, files=tuple(files), warnings=tuple(said))


def split_of_word(word: str) -> SplitName | None:
    """The split that a folder's or a column's word means, whatever its case and separators."""
    return SPLIT_FOLDERS.get(re.sub(r"[\s_-]+", "", word.lower()))


def split_of_file(path: Path, root: Path) -> SplitName | None:
    """The split that a data file's name or folders mean: "data/train-00000-of-00004.parquet" is of train."""
    parts = path.relative_to(root).parts
    words = [*re.split(r"[^0-9A-Za-z]+", path.name), *reversed(parts[:-1])]
    return next((split for word in words if (split := split_of_word(word)) is not None), None)


def with_splits(files: Sequence[Path], root: Path) -> tuple[list[tuple[Path, SplitName | None]], list[str]]:
    """Data files with the split that each is of, and what to warn about: without splits, or those of some split."""
    found = [(file, split_of_file(file, root)) for file in files]
    if not any(split for _, split in found):
        return found, []
    others = [file.relative_to(root).as_posix() for file, split in found if split is None]
    warned = [f"{len(others)} files belong to no split and were skipped: {first_names(others)}"] if others else []
    return [(file, split) for file, split in found if split is not None], warned


def _unlabelled_warnings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what to say of images without a class."""
    for split, count in sorted(Counter(row.split or "" for row in rows).items()):
        where = f"{count:,} {split} images".replace("  ", " ")
        yield f"{where} have no class: they are skipped in training and evaluation (use clip-har predict)"


def _is_number(label: str | int | None) -> bool:
    return isinstance(label, int) or (isinstance(label, str) and label.strip().isdecimal())


def _name_of(row: Row, names: Sequence[str]) -> str:
    if not names:
        return str(row.label).strip()
    number = int(str(row.label))
    if not 0 <= number < len(names):
        raise DataError(
            f"{row.name} is of class {number}, but there are {len(names)} class names, numbered from 0",
            remedy="Fix the list of class names.",
        )
    return names[number]


def _refuse_captions(root: Path, files: Sequence[FoundFile]) -> None:
    labels = {file.label for file in files}
    if len(files) >= CAPTION_IMAGES and len(labels) > CAPTION_SHARE * len(files):
        shown = sorted(labels, key=len)[-1]
        raise DataError(
            f"{root} has {len(labels):,} classes for {len(files):,} images, such as "
            f"{shown[:40] + ('...' if len(shown) > 40 else '')!r}: that is a caption or a name, not a class",
            remedy="Rename the class column to label, and rename the other one.",
        )


def _without_repeats(root: Path, files: Sequence[FoundFile]) -> tuple[list[FoundFile], list[str]]:
    """Each image once, sorted by name; and the names of those listed more than once."""
    first: dict[str, FoundFile] = {}
    repeated: dict[str, None] = {}
    torn: dict[str, tuple[str, str]] = {}
    for file in sorted(files, key=lambda file: file.name):
        other = first.setdefault(file.name, file)
        if other is file:
            continue
        repeated[file.name] = None
        if (other.label, other.split) != (file.label, file.split):
            ours, theirs = (f"{item.label} {item.split or ''}".strip() for item in (other, file))
            torn.setdefault(file.name, (ours, theirs))
    if torn:
        name, (ours, theirs) = next(iter(torn.items()))
        raise DataError(
            f"{root} lists {len(torn)} images under two classes or splits, such as {name} ({ours}, {theirs})",
            remedy="Keep one line for each image.",
        )
    return list(first.values()), list(repeated)
