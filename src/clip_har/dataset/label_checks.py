"""Labels that cannot be true, which are refused, and classes of which a held-out split has few images, with a warning.

Classes missing from a held-out split are reported in classes.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median

from clip_har.dataset.classes import spelling
from clip_har.dataset.layout import FoundFile
from clip_har.dataset.records import ImageRecord, SplitName, first_names
from clip_har.errors import DataError

HELD_OUT: tuple[SplitName, ...] = ("test", "val")

SHORT = 0.5
"""A class with less than this share of the images that its training images let expect is short."""


def refuse_impossible_labels(root: Path, images: Sequence[FoundFile], wanted: Collection[str] | None) -> None:
    """Refuse held-out splits that only look labelled, such as one filled with the first class.

    Args:
        root: the dataset, to be named.
        images: with the splits and classes that folders or tables give them.
        wanted: the classes that a trained run answers with, if there is one.

    Raises:
        DataError: all images of a held-out split have one class while training has several, or none of its classes
            is one of training.
    """
    found: dict[SplitName | None, Counter[str]] = defaultdict(Counter)
    for image in images:
        found[image.split][spelling(image.label)] += 1
    shown = {spelling(image.label): image.label for image in images}
    training = found["train"] + found[None]
    listed = all(image.listed for image in images)  # whoever makes a class folder means it
    if listed and wanted and len(training) == 1 and len(wanted) > 1 and not found["test"]:
        raise DataError(
            f"All {training.total():,} images of {root} have the class {shown[next(iter(training))]!r}, while the run "
            f"has {len(wanted)}: these look like placeholders, not labels",
            remedy="Evaluate on images of several classes; clip-har predict needs no labels.",
        )
    answers = set(training) or {spelling(name) for name in wanted or ()}
    for split in HELD_OUT:
        labels = found[split]
        if labels and len(answers) > 1:
            trained = "train" if training else "the run"
            if training or listed:
                _refuse_placeholders(f"the {split} split of {root}", split, labels, shown, len(answers), trained)
            _refuse_strangers(f"the {split} split of {root}", split, labels, shown, answers, trained)


def shortage_warnings(records: Sequence[ImageRecord], splits: Collection[SplitName]) -> list[str]:
    """What to say of classes of which the data's own held-out splits have far fewer images than of the others."""
    counts: dict[SplitName, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record.split][record.label] += 1
    trained = counts["train"] + (Counter() if "val" in splits else counts["val"])
    warnings = []
    for split in HELD_OUT:
        held_out = counts[split]
        if split not in splits or not held_out or not trained:
            continue
        ratio = median(held_out[label] / trained[label] for label in held_out if trained[label])
        short = [label for label in sorted(held_out) if held_out[label] < SHORT * ratio * trained[label]]
        if short:
            said = ", ".join(f"{label} ({held_out[label]:,})" for label in short)
            typical = round(median(held_out.values()))
            warnings.append(
                f"The {split} split has few images of {said}; half of its classes have {typical:,} or more images"
            )
    return warnings


def _refuse_placeholders(
    where: str, split: SplitName, labels: Counter[str], shown: dict[str, str], classes: int, trained: str
) -> None:
    if len(labels) > 1 or labels.total() == 1:  # a single image has but one label
        return
    label = shown[next(iter(labels))]
    raise DataError(
        f"All {labels.total():,} images of {where} have the class {label!r}, while {trained} has {classes} classes: "
        "these look like placeholders, not labels, and cannot be used for evaluation",
        remedy=_remedy(split, trained),
    )


def _refuse_strangers(
    where: str, split: SplitName, labels: Counter[str], shown: dict[str, str], answers: set[str], trained: str
) -> None:
    if answers & set(labels):
        return
    theirs = first_names(sorted(shown[label] for label in labels))
    ours = first_names(sorted(shown.get(label, label) for label in answers))
    raise DataError(
        f"No class of {where} ({theirs}) is one of {trained}'s ({ours})",
        remedy=_remedy(split, trained),
    )


def _remedy(split: SplitName, trained: str) -> str:
    if trained != "train":
        return "Evaluate on images labelled with the run's classes; clip-har predict needs no labels."
    return (
        f"Fix its labels, or pass --set-aside {split} to ignore it and create a new {split} split from the training "
        "images."
    )
