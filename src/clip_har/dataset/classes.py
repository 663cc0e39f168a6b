"""Which classes a dataset has, what is odd about them, and the images that fit them.

What a class is called towards the text encoder is decided in prompts.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

from clip_har.dataset.layout import FoundFile
from clip_har.dataset.records import ImageRecord, SplitName, UnreadableImage, first_names
from clip_har.dataset.sources.base import Source
from clip_har.errors import DataError


def settle_classes(
    images: Sequence[FoundFile], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[FoundFile], list[str]]:
    """The class list, the images that are of these classes, under their names, and what to warn about.

    Args:
        images: all images found.
        wanted: the classes to score, where a trained run names them; else those of the training images.

    Raises:
        DataError: fewer than two classes, two training classes of one name, or none of the wanted ones.
    """
    training = {image.label for image in images if image.split in (None, "train")}
    names = tuple(wanted) if wanted else tuple(sorted(training or {image.label for image in images}))
    _refuse_unusable(names)
    matched, warnings = _match_spelling(images, names)
    kept = [image for image in matched if image.label in set(names)]
    strangers = Counter(image.label for image in matched if image.label not in set(names))
    if strangers:
        listed = ", ".join(f"{label} ({count})" for label, count in sorted(strangers.items()))
        warnings.append(f"Images of classes that were not trained on are excluded: {listed}")
    if not kept:
        raise DataError(
            f"The dataset has none of the run's classes ({first_names(names)})",
            remedy="Evaluate on a dataset whose class names match those of the run.",
        )
    return names, kept, warnings


def refuse_empty_classes(source: Source, images: Sequence[FoundFile], unreadable: Sequence[UnreadableImage]) -> None:
    """A training class folder in which nothing is an image is a mistake to be fixed, not a class.

    Raises:
        DataError: there is one.
    """
    filled = {image.label for image in images if image.split in (None, "train")}
    empty = [label for label in source.class_folders if label not in filled]
    if not empty:
        return
    folder = source.class_folders[empty[0]]
    tried = [item for item in unreadable if item.name.startswith(f"{folder}/")]
    reason = f" ({tried[0].name}: {tried[0].reason})" if tried else ""
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    raise DataError(
        f"No image in the class folder {source.root}/{folder}{more}{reason}",
        remedy="Add images to it or remove it.",
    )


def class_warnings(records: Sequence[ImageRecord], names: Sequence[str]) -> list[str]:
    """Images that stand under several classes, and classes missing from a held-out split."""
    warnings = []
    labels: dict[str, set[str]] = defaultdict(set)
    first: dict[str, str] = {}
    for record in records:
        labels[record.sha256].add(record.label)
        first.setdefault(record.sha256, record.name)
    conflicts = [first[sha256] for sha256, found in labels.items() if len(found) > 1]
    if conflicts:
        warnings.append(f"{len(conflicts)} images are listed under more than one class: {first_names(conflicts)}")
    held_out: tuple[SplitName, ...] = ("test", "val")
    for split in held_out:
        present = {record.label for record in records if record.split == split}
        missing = [name for name in names if name not in present]
        if present and missing:
            warnings.append(missing_classes_warning(split, missing, total=len(names)))
    return warnings


def missing_classes_warning(split: str, missing: Sequence[str], *, total: int) -> str:
    """The warning about classes of the training set that a held-out split has no images of."""
    has, is_ = ("has", "is") if len(missing) == 1 else ("have", "are")
    return (
        f"{', '.join(missing)} {has} no images in the {split} split and {is_} excluded from macro averages, which are "
        f"over the other {total - len(missing)} classes."
    )


def _refuse_unusable(names: Sequence[str]) -> None:
    if len(names) < 2:
        only = f"only the class {names[0]!r}" if names else "no class with readable images"
        raise DataError(f"The dataset has {only}", remedy="Add images of at least two classes.")
    by_spelling: dict[str, str] = {}
    for name in names:
        other = by_spelling.setdefault(spelling(name), name)
        if other != name:
            raise DataError(
                f"The class folders {other!r} and {name!r} differ only in spelling",
                remedy="Move their images into one of them, or rename one.",
            )


def _match_spelling(images: Sequence[FoundFile], names: Collection[str]) -> tuple[list[FoundFile], list[str]]:
    """Read "Using Laptop" as "using_laptop" where only spelling differs, and say so."""
    by_spelling = {spelling(name): name for name in names}
    strangers = {image.label for image in images} - set(names)
    renamed = {label: by_spelling[spelling(label)] for label in strangers if spelling(label) in by_spelling}
    matched = [replace(image, label=renamed.get(image.label, image.label)) for image in images]
    if not renamed:
        return matched, []
    said = ", ".join(f"{old!r} as {new!r}" for old, new in sorted(renamed.items()))
    return matched, [f"Class folders read {said}"]


def spelling(name: str) -> str:
    """What is left of a name without case, separators and Unicode's several ways to write one letter."""
    return re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold()) or name
