"""Splits and folds that keep groups of images together: near-duplicates, one photographer's, one video's frames.

Which images form a group is found elsewhere or given in a table; the cut without groups is in splits.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from clip_har.dataset.records import ImageRecord, SplitName, first_names
from clip_har.dataset.stratified_groups import Group, deal
from clip_har.errors import DataError

HELD_OUT, REST = 0, 1
"""The two parts of a cut."""


def join_groups(records: Sequence[ImageRecord], groupings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Merge several groupings: images that any of them puts together, directly or through others, are together.

    Args:
        groupings: each maps a content hash to a group; a hash that is not named is a group of its own.

    Returns:
        Content hash -> the smallest content hash of its group, for the hashes of the records.
    """
    parent = {record.sha256: record.sha256 for record in records}

    def root(sha256: str) -> str:
        while parent[sha256] != sha256:
            parent[sha256] = sha256 = parent[parent[sha256]]
        return sha256

    for grouping in groupings:
        first: dict[str, str] = {}
        for sha256 in sorted(parent.keys() & grouping.keys()):
            one, other = sorted((root(sha256), root(first.setdefault(grouping[sha256], sha256))))
            parent[other] = one
    return {sha256: root(sha256) for sha256 in parent}


def joins_anything(groups: Mapping[str, str]) -> bool:
    """Whether some group holds two images that differ."""
    return len(set(groups.values())) < len(groups)


def leave_out_relatives(
    records: Sequence[ImageRecord], groups: Mapping[str, str], own_splits: Collection[SplitName]
) -> tuple[list[ImageRecord], list[str]]:
    """Where the folders put one group into several splits, keep the images held out: those in test, then val.

    Args:
        own_splits: the splits that the folders have.

    Returns:
        The records kept, and what to warn about.

    Raises:
        DataError: no training image of a class is left.
    """
    held_out: dict[str, SplitName] = {}
    order: tuple[SplitName, ...] = ("test", "val")
    for split in order:
        if split in own_splits:
            for record in records:
                if record.split == split:
                    held_out.setdefault(groups[record.sha256], split)

    def fits(record: ImageRecord) -> bool:
        return held_out.get(groups[record.sha256], record.split) == record.split

    kept = [record for record in records if fits(record)]
    left_out = [record for record in records if not fits(record)]
    if not left_out:
        return kept, []
    own_held_out = set(own_splits) - {"train"}
    left = {record.label for record in kept if record.split not in own_held_out}
    emptied = [record for record in left_out if record.split not in own_held_out and record.label not in left]
    if emptied:
        raise DataError(
            f"Every training image of {emptied[0].label!r} is in a held-out group, such as {emptied[0].name}",
            remedy="Ignore the dataset's own splits (--pool), or group differently (--group-by).",
        )
    names = first_names(record.name for record in left_out)
    return kept, [
        f"{len(left_out)} images of train or val are in a group with held-out images and are excluded: {names}"
    ]


def cut_groups(
    records: Sequence[ImageRecord], cuts: Mapping[SplitName, float], groups: Mapping[str, str], seed: Sequence[int]
) -> list[ImageRecord]:
    """Cut splits out of the training images, whole groups at a time, each class in the proportion asked for.

    A class keeps an image to train on, and has one in each split as far as it has groups for that.

    Args:
        cuts: split -> its share of the images that are not in the splits named before it. Records of other splits
            than these and train stay where they are.
        groups: content hash -> group.
        seed: seed of the cuts.
    """
    pool = [record for record in records if record.split == "train" or record.split in cuts]
    chosen: dict[str, SplitName] = {}
    for number, (split, fraction) in enumerate(cuts.items()):
        units = _units((record for record in pool if groups[record.sha256] not in chosen), groups)
        parts = deal(units, (fraction, 1 - fraction), seed=[*seed, number], guarded=(HELD_OUT,))
        parts = _leaving_enough(units, _with_every_class(units, parts), len(cuts) - number)
        for group, part in zip(units, parts, strict=True):
            if part == HELD_OUT:
                chosen[group.key] = split
    in_pool = {id(record) for record in pool}
    return [
        replace(record, split=chosen.get(groups[record.sha256], "train")) if id(record) in in_pool else record
        for record in records
    ]


def cut_folds(
    records: Sequence[ImageRecord], folds: int, val_fraction: float, groups: Mapping[str, str], seed: int
) -> list[list[ImageRecord]]:
    """K cuts of the same images: each is tested in one of them, and val is cut out of what the others train on.

    Args:
        folds: K, from 2.
        val_fraction: share of the images not in test.
        groups: content hash -> group.
        seed: seed of the folds and of their validation splits.

    Raises:
        DataError: a class would have nothing to train on in some fold.
    """
    units = _units(records, groups)
    _refuse_lone_classes(units, folds)
    parts = deal(units, (1 / folds,) * folds, seed=[seed], guarded=range(folds))
    fold_of = {group.key: part for group, part in zip(units, parts, strict=True)}
    made = []
    for fold in range(folds):
        cut: list[ImageRecord] = [
            replace(record, split="test" if fold_of[groups[record.sha256]] == fold else "train") for record in records
        ]
        missing = sorted({r.label for r in cut} - {r.label for r in cut if r.split == "train"})
        if missing:
            raise DataError(
                f"In fold {fold + 1} of {folds} all images of {missing[0]!r} are in the test split",
                remedy="Choose another --folds or --seed, or group differently (--group-by).",
            )
        made.append(cut_groups(cut, {"val": val_fraction}, groups, [seed, fold + 1]))
    return made


def _units(records: Iterable[ImageRecord], groups: Mapping[str, str]) -> list[Group]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[groups[record.sha256]][record.label] += 1
    return [Group(key=key, counts=counts[key]) for key in sorted(counts)]


def _with_every_class(units: Sequence[Group], parts: Sequence[int]) -> list[int]:
    """Move the smallest group that may leave into the held-out part, for each class that it lacks."""
    mended = list(parts)
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(units):
        for label in group.counts:
            members[label].append(index)

    def may_leave(index: int) -> bool:
        return all(
            any(other != index and mended[other] == REST for other in members[label]) for label in units[index].counts
        )

    for label in sorted(members):
        if not any(mended[index] == HELD_OUT for index in members[label]):
            free = [index for index in members[label] if may_leave(index)]
            smallest = min(free, key=lambda index: (units[index].size, units[index].key), default=None)
            if smallest is not None:
                mended[smallest] = HELD_OUT
    return mended


def _leaving_enough(units: Sequence[Group], parts: Sequence[int], wanted: int) -> list[int]:
    """Move small groups back out of the held-out part, until every class has one for each cut to come and for training.

    The part keeps one of each class that it has.
    """
    mended = list(parts)
    held_out, rest = Counter[str](), Counter[str]()
    for group, part in zip(units, parts, strict=True):
        (held_out if part == HELD_OUT else rest).update(group.counts.keys())
    for index in sorted(range(len(units)), key=lambda index: (units[index].size, units[index].key)):
        labels = units[index].counts.keys()
        lacking = any(rest[label] < wanted for label in labels)
        if mended[index] == HELD_OUT and lacking and all(held_out[label] > 1 for label in labels):
            mended[index] = REST
            held_out.subtract(labels)
            rest.update(labels)
    return mended


def _refuse_lone_classes(units: Sequence[Group], folds: int) -> None:
    """Every image is tested in some fold, so a class of one group would then have nothing to train on."""
    per_class = Counter(label for group in units for label in group.counts)
    lone = sorted(label for label, count in per_class.items() if count == 1)
    if lone:
        raise DataError(
            f"{first_names(lone)}: all images are in one group, which cannot be divided into {folds} folds",
            remedy="Create a single split (without --folds), remove the class, or group differently (--group-by).",
        )
