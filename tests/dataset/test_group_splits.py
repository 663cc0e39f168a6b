"""Splits and folds of groups: kept whole, near the wished shares, decided by content and seed alone."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_har.dataset import SPLITS, ImageRecord, SplitName
from clip_har.dataset.groups import cut_folds, cut_groups, join_groups, joins_anything, leave_out_relatives
from clip_har.dataset.stratified_groups import Group, deal
from clip_har.errors import DataError

CUTS: dict[SplitName, float] = {"test": 0.2, "val": 0.15}
DRAWN = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["a", "b", "c", "ab", "abc"])), min_size=3, max_size=25)
SEEDS = st.integers(0, 2**32 - 1)


def record(number: int, label: str, split: SplitName = "train") -> ImageRecord:
    name = f"{label}/{number}.jpg"
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return ImageRecord(path=Path("/data", name), name=name, sha256=sha256, label=label, split=split)


def grouped(drawn: Sequence[tuple[int, str]]) -> tuple[list[ImageRecord], dict[str, str]]:
    """So many images in each group, of the classes named by letters in turn; and the groups as `join_groups` says."""
    records: list[ImageRecord] = []
    given_groups: dict[str, str] = {}
    for group, (size, labels) in enumerate(drawn):
        for place in range(size):
            records.append(record(len(records), labels[place % len(labels)]))
            given_groups[records[-1].sha256] = f"group {group}"
    return records, join_groups(records, [given_groups])


def counted(records: Sequence[ImageRecord], split: SplitName) -> Counter[str]:
    return Counter(item.label for item in records if item.split == split)


def split_of_groups(records: Sequence[ImageRecord], groups: Mapping[str, str]) -> dict[str, SplitName]:
    """Group -> split; fails where a group is in several."""
    splits: dict[str, SplitName] = {}
    for item in records:
        assert splits.setdefault(groups[item.sha256], item.split) == item.split, item.name
    return splits


def groups_of(records: Sequence[ImageRecord], groups: Mapping[str, str]) -> dict[str, set[str]]:
    """Class -> its groups."""
    found: dict[str, set[str]] = {}
    for item in records:
        found.setdefault(item.label, set()).add(groups[item.sha256])
    return found


# Joining


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.integers(0, 11), st.sampled_from("xyz")), max_size=3))
def test_groups_are_what_any_grouping_connects(groupings: list[dict[int, str]]) -> None:
    records = [record(number, "a") for number in range(12)]
    hashes = [item.sha256 for item in records]
    joined = join_groups(records, [{hashes[n]: group for n, group in grouping.items()} for grouping in groupings])
    reached = {number: {number} for number in range(12)}
    for _ in range(12):  # naively: whoever shares a group with someone reached is reached
        for number, grouping in product(range(12), groupings):
            for other in list(reached[number]):
                reached[number] |= {n for n in grouping if other in grouping and grouping[n] == grouping[other]}
    assert joined == {hashes[n]: min(hashes[other] for other in reached[n]) for n in range(12)}
    assert joins_anything(joined) == any(len(others) > 1 for others in reached.values())


def test_hashes_of_other_images_join_nothing() -> None:
    one, other = record(0, "a"), record(1, "a")
    groups = join_groups([one], [{one.sha256: "g", other.sha256: "g"}])
    assert groups == {one.sha256: one.sha256}


# Cuts


@settings(deadline=None)
@given(DRAWN, SEEDS)
def test_groups_stay_whole_and_every_class_keeps_something_to_train_on(drawn: list[tuple[int, str]], seed: int) -> None:
    records, groups = grouped(drawn)
    cut = cut_groups(records, CUTS, groups, [seed])
    assert [replace(item, split="train") for item in cut] == records
    split_of_groups(cut, groups)
    assert set(counted(cut, "train")) == {item.label for item in records}
    for label, own in groups_of(records, groups).items():
        alone = [group for group in own if all(i.label == label for i in records if groups[i.sha256] == group)]
        if len(alone) >= 3:  # enough groups of its own for one in each split
            assert all(counted(cut, split)[label] for split in SPLITS), label


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=20, max_size=60), st.floats(0.1, 0.5), SEEDS)
def test_the_share_is_right_to_one_group(sizes: list[int], share: float, seed: int) -> None:
    records, groups = grouped([(size, "a") for size in sizes])
    held_out = counted(cut_groups(records, {"test": share}, groups, [seed]), "test")["a"]
    assert abs(held_out - share * sum(sizes)) <= max(sizes) / 2


def test_groups_of_one_image_are_cut_like_images() -> None:
    records, groups = grouped([(1, label) for label in "a" * 40 + "b" * 100 + "c" * 13])
    cut = cut_groups(records, {"test": 0.2, "val": 0.15}, groups, [0])
    assert counted(cut, "test") == {"a": 8, "b": 20, "c": 3}
    in_val = counted(cut, "val")
    assert (in_val["a"], in_val["b"]) == (5, 12) and in_val["c"] in (1, 2)


@settings(deadline=None, max_examples=40)
@given(DRAWN, SEEDS, st.randoms(use_true_random=False))
def test_a_cut_depends_on_content_and_seed_alone(drawn: list[tuple[int, str]], seed: int, order: random.Random) -> None:
    records, groups = grouped(drawn)
    moved = [replace(item, name=f"{item.label}/{order.random()}.png", path=Path("/elsewhere")) for item in records]
    order.shuffle(moved)
    renamed = join_groups(moved, [{sha256: f"other name of {group}" for sha256, group in groups.items()}])
    first, second = (cut_groups(images, CUTS, how, [seed]) for images, how in ((records, groups), (moved, renamed)))
    assert {i.sha256: i.split for i in first} == {i.sha256: i.split for i in second}


def test_other_seeds_hold_out_other_groups() -> None:
    records, groups = grouped([(3, "a")] * 20 + [(2, "b")] * 20)
    held_out = {tuple(item.split == "test" for item in cut_groups(records, CUTS, groups, [seed])) for seed in range(6)}
    assert len(held_out) == 6


def test_splits_of_the_folders_stay_where_they_are() -> None:
    records = [record(number, "a") for number in range(20)]
    records += [record(number, "a", "test") for number in range(20, 30)]
    groups = join_groups(records, [{item.sha256: item.sha256[:1] for item in records[:20]}])
    cut = cut_groups(records, {"val": 0.2}, groups, [0])
    assert [item.split for item in cut[20:]] == ["test"] * 10
    assert 2 <= counted(cut, "val")["a"] <= 6 and counted(cut, "test")["a"] == 10


# Dealing


@settings(deadline=None, max_examples=60)
@given(DRAWN.filter(lambda drawn: len(drawn) <= 9), SEEDS)
def test_no_move_and_no_exchange_would_mend_a_deal(drawn: list[tuple[int, str]], seed: int) -> None:
    groups = [
        Group(key=f"{n:02d}", counts=Counter(labels[place % len(labels)] for place in range(size)))
        for n, (size, labels) in enumerate(drawn)
    ]
    shares = (0.3, 0.7)
    totals = sum((Counter(group.counts) for group in groups), Counter[str]())

    def chi_square(parts: Sequence[int]) -> float:
        have = [Counter[str](), Counter[str]()]
        for group, part in zip(groups, parts, strict=True):
            have[part].update(group.counts)
        return sum(
            (have[part][label] - shares[part] * total) ** 2 / (shares[part] * total)
            for part in (0, 1)
            for label, total in totals.items()
        )

    parts = deal(groups, shares, seed=[seed], guarded=())
    reached = chi_square(parts)
    for index in range(len(groups)):
        moved = [1 - part if place == index else part for place, part in enumerate(parts)]
        assert chi_square(moved) >= reached - 1e-6
    for one, other in product(range(len(groups)), repeat=2):
        if parts[one] != parts[other] and groups[one].counts.keys() & groups[other].counts.keys():
            exchanged = [1 - part if place in (one, other) else part for place, part in enumerate(parts)]
            assert chi_square(exchanged) >= reached - 1e-6


# Folds


@settings(deadline=None, max_examples=50)
@given(DRAWN, st.integers(2, 4), SEEDS)
def test_folds_test_every_image_once(drawn: list[tuple[int, str]], folds: int, seed: int) -> None:
    records, groups = grouped(drawn)
    lone = [label for label, own in groups_of(records, groups).items() if len(own) == 1]
    if lone:
        with pytest.raises(DataError, match="all images are in one group"):
            cut_folds(records, folds, 0.15, groups, seed)
        return
    cuts = cut_folds(records, folds, 0.15, groups, seed)
    assert len(cuts) == folds
    tested: Counter[str] = Counter()
    for cut in cuts:
        assert [item.sha256 for item in cut] == [item.sha256 for item in records]
        split_of_groups(cut, groups)
        tested.update(item.sha256 for item in cut if item.split == "test")
        assert set(counted(cut, "train")) == {item.label for item in records}
    assert tested == Counter(item.sha256 for item in records)


def test_folds_are_even() -> None:
    records, groups = grouped([(2, "a")] * 25 + [(1, "b")] * 40 + [(4, "c")] * 10)
    for cut in cut_folds(records, 5, 0.25, groups, 7):
        assert counted(cut, "test") == {"a": 10, "b": 8, "c": 8}
        assert counted(cut, "val") == {"a": 10, "b": 8, "c": 8}


def test_a_class_of_one_group_is_refused_for_folds() -> None:
    records, groups = grouped([(2, "a"), (2, "a"), (3, "b")])
    with pytest.raises(DataError) as caught:
        cut_folds(records, 2, 0.15, groups, 0)
    assert str(caught.value) == (
        "b: all images are in one group, which cannot be divided into 2 folds. "
        "Create a single split (without --folds), remove the class, or group differently (--group-by)."
    )


# Folders whose own splits break groups


def test_relatives_of_held_out_images_are_left_out_of_train() -> None:
    records = [
        record(0, "a"),
        record(1, "a"),
        record(2, "a", "val"),
        record(3, "a", "test"),
        record(4, "a", "val"),
        record(5, "a"),
    ]
    hashes = [item.sha256 for item in records]
    groups = join_groups(records, [{hashes[0]: "x", hashes[2]: "x", hashes[3]: "x", hashes[4]: "y", hashes[5]: "y"}])
    kept, warnings = leave_out_relatives(records, groups, {"train", "val", "test"})
    assert [item.name for item in kept] == ["a/1.jpg", "a/3.jpg", "a/4.jpg"]
    assert warnings == [
        "3 images of train or val are in a group with held-out images and are excluded: a/0.jpg, a/2.jpg, a/5.jpg"
    ]
    assert leave_out_relatives(records[1:2], groups, {"train"}) == (records[1:2], [])


def test_a_val_that_was_only_cut_does_not_hold_images_back() -> None:
    records = [record(0, "a"), record(1, "a", "val")]
    groups = join_groups(records, [{item.sha256: "x" for item in records}])
    assert leave_out_relatives(records, groups, {"train"}) == (records, [])


def test_a_class_whose_training_images_are_all_relatives_is_refused() -> None:
    records = [record(0, "a"), record(1, "a", "test"), record(2, "b"), record(3, "b", "test")]
    groups = join_groups(records, [{records[0].sha256: "x", records[1].sha256: "x"}])
    with pytest.raises(DataError) as caught:
        leave_out_relatives(records, groups, {"train", "test"})
    assert str(caught.value) == (
        "Every training image of 'a' is in a held-out group, such as a/0.jpg. "
        "Ignore the dataset's own splits (--pool), or group differently (--group-by)."
    )
