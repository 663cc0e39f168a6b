"""`load_dataset`: layout, heads, classes and splits, in the order in which data flows through them.

What each of these steps does is in the module of its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clip_har.dataset.classes import class_warnings, refuse_empty_classes, settle_classes
from clip_har.dataset.label_checks import refuse_impossible_labels, shortage_warnings
from clip_har.dataset.layout import FoundFile
from clip_har.dataset.manifests import read_manifests
from clip_har.dataset.reading import read_heads
from clip_har.dataset.records import (
    SPLITS,
    ActionDataset,
    ImageRecord,
    SplitName,
    UnreadableImage,
    first_names,
)
from clip_har.dataset.sources import Source, find_source
from clip_har.dataset.splits import assign_splits, cuts_for, leave_out_leaks
from clip_har.dataset.verifying import GivenManifest, follow_manifest


def load_dataset(
    root: Path,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    manifests: Sequence[Path] = (),
    classes: Sequence[str] | None = None,
    manifest: GivenManifest | None = None,
    pooled: bool = False,
    set_aside: Collection[SplitName] = (),
) -> ActionDataset:
    """Read a dataset of any form that sources/ knows, with or without splits of its own.

    Args:
        root: the dataset's folder, its table or its one file; or the name of a dataset that was fetched.
        val_fraction: share of train cut out as val where there is no val, per class.
        test_fraction: share of all images cut out as test where there is no split, per class.
        split_seed: seed of these cuts.
        manifests: earlier manifests, best first. An image that one knows, by its content and whatever its
            name is now, keeps the split it has there unless its folder says otherwise.
        classes: the classes to score, where a trained run names them; else those of the training images.
        manifest: decides which images there are, their classes and splits, whatever the folders say.
        pooled: set the folders' own splits aside and cut test and val out of all images.
        set_aside: splits of the data to omit, images and all, as if they were not there.

    Raises:
        DataError: no images, fewer than two classes, an empty class folder, labels that cannot be true, or an
            ambiguous layout; a manifest that does not fit.
    """
    source, images, unreadable = read_images(root)
    refuse_empty_classes(source, images, unreadable)
    images, unreadable, aside = _without_splits(images, unreadable, set_aside)
    followed = follow_manifest(images, unreadable, manifest) if manifest else None
    said: list[str] = []
    if followed is not None:
        images, unreadable, said = followed
    refuse_impossible_labels(source.root, images, classes)
    if followed is None and pooled:
        images = [replace(image, split=None) for image in images]
    names, images, spelling = settle_classes(images, classes)
    kept, leaks = leave_out_leaks(images)
    # A val/ of which nothing is left is no val/.
    splits = source.splits() - {"val", *set_aside} | {image.split for image in kept if image.split == "val"}
    if followed is not None:
        splits = frozenset(SPLITS)
    elif pooled:
        splits = frozenset()
    cuts = cuts_for(splits, val_fraction=val_fraction, test_fraction=test_fraction)
    known = read_manifests(manifests)
    records = assign_splits(kept, cuts, known, split_seed)
    moved = _moved_warnings(records, known) if classes else []
    return ActionDataset(
        root=source.root,
        classes=names,
        records=tuple(records),
        unreadable=tuple(unreadable),
        warnings=(
            *source.warnings,
            *aside,
            *said,
            *spelling,
            *leaks,
            *moved,
            *class_warnings(records, names),
            *shortage_warnings(records, splits),
        ),
        form=source.form,
        own_splits=frozenset(splits),
    )


def read_images(root: Path) -> tuple[Source, list[FoundFile], list[UnreadableImage]]:
    """A dataset's source, its images with the hash of their content, and the files that should be images and are not.

    Raises:
        DataError: there is no dataset of a known form, or what is there can be read in more than one way.
    """
    source = find_source(root)
    return source, *read_heads(source.files)


def _without_splits(
    images: Sequence[FoundFile], unreadable: Sequence[UnreadableImage], set_aside: Collection[SplitName]
) -> tuple[list[FoundFile], list[UnreadableImage], list[str]]:
    """The dataset less some of its splits, and what to say of that."""
    left_out = Counter(image.split for image in images if image.split in set_aside)
    warnings = [f"The dataset's own {split} split is ignored ({count:,} images)" for split, count in left_out.items()]
    return (
        [image for image in images if image.split not in set_aside],
        [image for image in unreadable if image.split not in set_aside],
        warnings,
    )


def _moved_warnings(records: Sequence[ImageRecord], known: Mapping[str, SplitName]) -> list[str]:
    """Images to be scored on which a run may have been trained or chosen."""
    seen: dict[SplitName, set[SplitName]] = {"test": {"train", "val"}, "val": {"train"}, "train": set()}
    moved = [record.name for record in records if known.get(record.sha256) in seen[record.split]]
    if not moved:
        return []
    said = "held out now were previously used for training or model selection, so their metrics are too optimistic"
    return [f"{len(moved)} images {said}: {first_names(moved)}"]
