"""Which image is in which split: the folder's, else an earlier manifest's, else a stratified seeded cut.

Copies of one image (equal content) always share a split. Classes are settled before, in classes.py.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from clip_har.dataset.layout import FoundFile
from clip_har.dataset.records import ImageRecord, SplitName, first_names
from clip_har.errors import DataError


def leave_out_leaks(images: Sequence[FoundFile]) -> tuple[list[FoundFile], list[str]]:
    """Where folders put copies of one image into several splits, keep those in test, then val.

    Returns:
        The images kept, and what to warn about.

    Raises:
        DataError: no training image of a class is left.
    """
    held_out: dict[str, SplitName] = {}
    order: tuple[SplitName, ...] = ("test", "val")
    for split in order:  # test first: what is in test may neither be trained nor chosen on
        for image in images:
            if image.split == split:
                held_out.setdefault(image.sha256, split)
    kept = [image for image in images if held_out.get(image.sha256, image.split) == image.split]
    leaking = [image for image in images if held_out.get(image.sha256, image.split) != image.split]
    if not leaking:
        return kept, []
    left = {image.label for image in kept if image.split == "train"}
    emptied = [image for image in leaking if image.split == "train" and image.label not in left]
    if emptied:
        raise DataError(
            f"Every training image of {emptied[0].label!r}, such as {emptied[0].name}, is also held out",
            remedy="Remove the duplicates from one of the splits, or add images.",
        )
    names = first_names(image.name for image in leaking)
    said = f"{len(leaking)} train or val images are duplicates of held-out images and were excluded: {names}"
    return kept, [said]


def assign_splits(
    images: Sequence[FoundFile],
    cuts: Mapping[SplitName, float],
    known: Mapping[str, SplitName],
    seed: int,
) -> list[ImageRecord]:
    """Give every image a split.

    Args:
        images: without leaks.
        cuts: split -> its share of the images that are not in the splits named before it.
        known: content hash -> split, from earlier manifests; kept where the folders do not say otherwise.
        seed: seed of the cuts.
    """
    chosen: dict[str, SplitName] = {}  # content hash -> split, of the images that the folders leave open
    pool = [image for image in images if image.split in (None, "train")]
    for image in pool:
        earlier = known.get(image.sha256)
        if earlier is not None and (earlier == "train" or earlier in cuts):
            chosen[image.sha256] = earlier
    for number, (split, fraction) in enumerate(cuts.items()):
        _cut(pool, chosen, split, fraction, [seed, number])
        pool = [image for image in pool if chosen.get(image.sha256) != split]
    return [
        ImageRecord(
            path=image.path,
            name=image.name,
            sha256=image.sha256,
            label=image.label,
            split=image.split if image.split in ("val", "test") else chosen.get(image.sha256, "train"),
        )
        for image in images
    ]


def cuts_for(splits: Collection[SplitName], *, val_fraction: float, test_fraction: float) -> dict[SplitName, float]:
    """Which splits are cut out of the training images, in this order, given those the folders have."""
    cuts: dict[SplitName, float] = {}
    if set(splits) <= {"train"}:
        cuts["test"] = test_fraction
    if "val" not in splits:
        cuts["val"] = val_fraction
    return cuts


def _cut(
    pool: Sequence[FoundFile],
    chosen: dict[str, SplitName],
    split: SplitName,
    fraction: float,
    seed: Sequence[int],
) -> None:
    """Move images into `split` until it holds `fraction` of each class, copies together.

    The order is drawn over content hashes, so file names and the file system's order do not matter. A class
    keeps an image to train on, and has one in `split` if it has two that differ.
    """
    copies: dict[str, Counter[str]] = defaultdict(Counter)  # class -> content hash -> files
    labels: dict[str, set[str]] = defaultdict(set)  # content hash -> classes
    for image in pool:
        copies[image.label][image.sha256] += 1
        labels[image.sha256].add(image.label)

    def may_leave(sha256: str) -> bool:
        return all(
            any(other != sha256 and chosen.get(other, "train") == "train" for other in copies[label])
            for label in labels[sha256]
        )

    for label in sorted(copies):
        own = copies[label]
        wanted = max(1, round(fraction * own.total())) if len(own) > 1 else 0
        taken = sum(count for sha256, count in own.items() if chosen.get(sha256) == split)
        free = _shuffled([sha256 for sha256 in own if sha256 not in chosen], label, seed)
        for sha256 in free:
            if taken + own[sha256] <= wanted and may_leave(sha256):
                chosen[sha256] = split
                taken += own[sha256]
        if taken == 0 and wanted:  # the class's images have more copies than are wanted
            smallest = min(filter(may_leave, free), key=own.__getitem__, default=None)
            chosen.update({smallest: split} if smallest is not None else {})


def _shuffled(hashes: Sequence[str], label: str, seed: Sequence[int]) -> list[str]:
    order = sorted(hashes)
    label_seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
    np.random.default_rng([*seed, label_seed]).shuffle(order)
    return order
