"""Splits are stratified, follow from seed and content alone, are kept once made, and never share an image."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_har.dataset import (
    MANIFEST_COLUMNS,
    ActionDataset,
    ImageRecord,
    SplitName,
    load_dataset,
    write_manifest,
    write_unreadable,
)
from clip_har.dataset.layout import FoundFile
from clip_har.dataset.splits import assign_splits
from clip_har.errors import DataError
from clip_har.images.addresses import file_of
from image_folders import class_counts, content, fill, fill_classes, names, refusal

FRACTIONS = st.floats(0.01, 0.5)
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 70), min_size=1)
SEEDS = st.integers(0, 2**32 - 1)


def found(number: int, label: str, copy: int = 0) -> FoundFile:
    """An unsplit image whose content is this number."""
    sha256 = hashlib.sha256(content(number)).hexdigest()
    name = f"{label}/{number}-{copy}.jpg"
    return FoundFile(path=Path("/data", name), name=name, label=label, split=None, sha256=sha256)


def found_classes(sizes: Mapping[str, int], *, start: int = 0) -> list[FoundFile]:
    """Unsplit images, all different."""
    return [found(start + 1000 * ord(label) + i, label) for label, size in sizes.items() for i in range(size)]


def counted(records: Sequence[ImageRecord], split: SplitName) -> Counter[str]:
    return Counter(record.label for record in records if record.split == split)


def splits_by_content(records: Sequence[ImageRecord]) -> dict[str, SplitName]:
    """Content hash -> split; fails where copies are in several."""
    splits: dict[str, SplitName] = {}
    for record in records:
        assert splits.setdefault(record.sha256, record.split) == record.split, record.name
    return splits


def share(fraction: float, total: int) -> int:
    """What a class of so many different images should have in a split."""
    return max(1, round(fraction * total)) if total > 1 else 0


# Cuts


@given(SIZES, FRACTIONS, FRACTIONS, SEEDS)
def test_every_class_is_cut_in_the_same_proportion(sizes: dict[str, int], test: float, val: float, seed: int) -> None:
    records = assign_splits(found_classes(sizes), {"test": test, "val": val}, {}, seed)
    for label, size in sizes.items():
        in_test = share(test, size)
        in_val = share(val, size - in_test)
        assert counted(records, "test")[label] == in_test
        assert counted(records, "val")[label] == in_val
        assert counted(records, "train")[label] == size - in_test - in_val >= 1


@given(SIZES, FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_splits_follow_from_seed_and_content_alone(
    sizes: dict[str, int], val: float, seed: int, order: random.Random
) -> None:
    images = found_classes(sizes)
    renamed = [
        FoundFile(path=Path(f"/x/{i}"), name=f"{label}/{i:06d}.png", label=label, split=None, sha256=sha256)
        for i, (label, sha256) in enumerate(sorted(((i.label, i.sha256) for i in images), key=lambda _: order.random()))
    ]
    first, second = (assign_splits(given, {"val": val}, {}, seed) for given in (images, renamed))
    assert splits_by_content(first) == splits_by_content(second)


def test_other_seeds_give_other_splits() -> None:
    images = found_classes({"a": 50, "b": 50})
    splits = [splits_by_content(assign_splits(images, {"val": 0.15}, {}, seed)) for seed in range(5)]
    assert len({tuple(sorted(split.items())) for split in splits}) == 5
    held_out = [sum(split[image.sha256] == "val" for split in splits) for image in images]
    assert max(held_out) < 5  # no image is fixed in place


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=60),
    FRACTIONS,
    FRACTIONS,
    SEEDS,
)
def test_copies_share_a_split_and_leave_every_class_something_to_train_on(
    drawn: list[tuple[int, str, int]], test: float, val: float, seed: int
) -> None:
    """Images with up to 4 copies in a class, and often under several classes."""
    images = [found(number, label, copy) for number, label, copies in drawn for copy in range(copies)]
    records = assign_splits(images, {"test": test, "val": val}, {}, seed)
    assert len(records) == len(images)
    splits_by_content(records)
    assert set(counted(records, "train")) == {label for _, label, _ in drawn}


def test_a_class_whose_images_all_stand_under_another_one_too_is_not_emptied() -> None:
    images = [found(number, "a") for number in range(4)] + [found(number, "b") for number in range(2)]
    images += [found(number, "c") for number in (2, 3)]
    for seed in range(20):
        records = assign_splits(images, {"val": 0.5}, {}, seed)
        assert set(counted(records, "train")) == {"a", "b", "c"}


@given(st.lists(st.integers(1, 5), min_size=2, max_size=40), FRACTIONS, SEEDS)
def test_with_copies_the_proportion_is_right_to_one_group_of_them(copies: list[int], val: float, seed: int) -> None:
    images = [found(number, "a", copy) for number, size in enumerate(copies) for copy in range(size)]
    records = assign_splits(images, {"val": val}, {}, seed)
    wanted, held_out = share(val, len(images)), counted(records, "val")["a"]
    assert held_out <= max(wanted, min(copies))
    assert held_out > wanted - max(copies) and held_out >= 1


def test_a_class_with_one_image_stays_in_train(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 30, "sitting": 1})
    fill(tmp_path / "sitting", [30], pattern="copy.jpg")  # a copy does not make it two
    dataset = load_dataset(tmp_path)
    assert class_counts(dataset, "train")["sitting"] == 2
    assert "sitting has no images in the test split" in "\n".join(dataset.warnings)


def test_one_image_of_very_many_copies_does_not_empty_a_class(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 30, "sitting": 2})
    for copy in range(19):
        fill(tmp_path / "sitting", [31], pattern=f"copy{copy}.jpg")
    for seed in range(4):
        dataset = load_dataset(tmp_path, split_seed=seed)
        assert class_counts(dataset, "test")["sitting"] == 1
        assert class_counts(dataset, "train")["sitting"] == 20


@pytest.mark.parametrize("backwards", [True, False])
def test_the_file_systems_order_and_the_names_do_not_matter(backwards: bool, tmp_path: Path) -> None:
    plain = load_dataset(fill_classes(tmp_path / "plain", {"running": 20, "sitting": 20}))
    for number in sorted(range(40), reverse=backwards):
        label = "running" if number < 20 else "sitting"
        fill(tmp_path / "other" / label, [number], pattern=f"{number * 7919 % 97:02d} photo {{}}.png")
    other = load_dataset(tmp_path / "other")
    assert splits_by_content(other.records) == splits_by_content(plain.records)


def test_the_fractions_and_the_seed_are_those_asked_for(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 40, "sitting": 20})
    dataset = load_dataset(tmp_path, test_fraction=0.5, val_fraction=0.1, split_seed=7)
    assert class_counts(dataset, "test") == {"running": 20, "sitting": 10}
    assert class_counts(dataset, "val") == {"running": 2, "sitting": 1}
    again = load_dataset(tmp_path, test_fraction=0.5, val_fraction=0.1, split_seed=7)
    other = load_dataset(tmp_path, test_fraction=0.5, val_fraction=0.1, split_seed=8)
    assert again == dataset != other


# Copies across folders


def test_a_training_image_that_is_also_in_test_is_left_out_and_said(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", {"running": 20, "sitting": 20})
    fill_classes(tmp_path / "test", {"running": 5, "sitting": 5}, start=100)
    fill(tmp_path / "test" / "running", [3, 4], pattern="leak{}.jpg")
    fill(tmp_path / "test" / "sitting", [5], pattern="leak{}.jpg")  # a copy under another class
    dataset = load_dataset(tmp_path)
    assert class_counts(dataset, "test") == {"running": 7, "sitting": 6}
    left_out = {f"train/running/{number:05d}.jpg" for number in (3, 4, 5)}
    assert not left_out & names(dataset)
    assert sum(dataset.counts().values()) == 53 - 3
    splits_by_content(dataset.records)
    (warning,) = dataset.warnings
    assert warning.startswith("3 train or val images are duplicates of held-out images and were excluded: ")
    assert "train/running/00003.jpg" in warning


def test_test_wins_over_val_and_val_over_train(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        fill_classes(tmp_path / split, {"running": 6, "sitting": 6}, start=100 * start)
    for split in ("train", "val", "test"):
        fill(tmp_path / split / "running", [900], pattern="everywhere.jpg")
    for split in ("train", "val"):
        fill(tmp_path / split / "running", [901], pattern="twice.jpg")
    dataset = load_dataset(tmp_path)
    copies = {name for name in names(dataset) if name.endswith(("everywhere.jpg", "twice.jpg"))}
    assert copies == {"test/running/everywhere.jpg", "val/running/twice.jpg"}


def test_a_val_folder_of_test_images_alone_is_no_val(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", {"running": 20, "sitting": 20})
    for split in ("val", "test"):
        fill_classes(tmp_path / split, {"running": 6, "sitting": 6}, start=100)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 34, "val": 6, "test": 12}
    assert {name.split("/")[0] for name in names(dataset, "val")} == {"train"}


def test_a_class_whose_training_images_are_all_in_test_is_refused(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", {"running": 6, "sitting": 6})
    fill_classes(tmp_path / "test", {"running": 6, "sitting": 3})
    error = refusal(tmp_path)
    assert error.what == "Every training image of 'running', such as train/running/00000.jpg, is also held out"


def test_a_copy_under_two_classes_is_said_and_kept_together(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 20, "sitting": 20})
    for number in range(4):
        fill(tmp_path / "sitting", [number], pattern=f"copy{number}.jpg")
    dataset = load_dataset(tmp_path)
    assert len(dataset.records) == 44
    splits_by_content(dataset.records)
    (warning,) = dataset.warnings
    assert warning.startswith("4 images are listed under more than one class: running/00000.jpg, ")


# Manifests


def reload(dataset: ActionDataset, manifest: Path, **options: int) -> ActionDataset:
    write_manifest(dataset, manifest)
    return load_dataset(dataset.root, manifests=[manifest], **options)  # type: ignore[arg-type]


def test_a_manifest_names_every_image_with_hash_class_and_split(tmp_path: Path) -> None:
    fill_classes(tmp_path / "data", {"running, fast": 8, "sitting": 8})
    (tmp_path / "data" / "sitting" / 'a "b"\nc.jpg').write_bytes(content(900))
    dataset = load_dataset(tmp_path / "data")
    write_manifest(dataset, tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == MANIFEST_COLUMNS == ("path", "sha256", "class", "split")
    assert len(rows) == 17
    for (name, sha256, label, split), record in zip(rows, dataset.records, strict=True):
        assert hashlib.sha256((dataset.root / name).read_bytes()).hexdigest() == sha256
        assert (name, sha256, label, split) == (record.name, record.sha256, record.label, record.split)
    assert load_dataset(dataset.root, manifests=[tmp_path / "manifest.csv"]) == dataset


def test_the_list_of_unreadable_images(tmp_path: Path) -> None:
    fill_classes(tmp_path / "data", {"running": 8, "sitting": 8})
    (tmp_path / "data" / "running" / "a,b.jpg").write_bytes(b"")
    write_unreadable(load_dataset(tmp_path / "data"), tmp_path / "unreadable.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "unreadable.csv").read_text(encoding="utf-8"))))
    assert rows == [["path", "split", "reason"], ["running/a,b.jpg", "train", "empty file"]]


@given(SIZES, SIZES, FRACTIONS, FRACTIONS, SEEDS)
def test_added_images_leave_the_others_where_they_are_and_the_fractions_right(
    sizes: dict[str, int], added: dict[str, int], test: float, val: float, seed: int
) -> None:
    images, cuts = found_classes(sizes), {"test": test, "val": val}
    known = splits_by_content(assign_splits(images, cuts, {}, seed))  # type: ignore[arg-type]
    records = assign_splits(images + found_classes(added, start=500), cuts, known, seed + 1)  # type: ignore[arg-type]
    splits = splits_by_content(records)
    assert all(splits[sha256] == split for sha256, split in known.items())
    totals = Counter(sizes) + Counter(added)
    for label, total in totals.items():
        in_test, in_val = counted(records, "test")[label], counted(records, "val")[label]
        if label in sizes and label in added:  # rounding may have given more than is wanted now
            assert abs(in_test - test * total) <= 1.5 and abs(in_val - val * (total - in_test)) <= 1.5
        assert counted(records, "train")[label] >= 1


@given(SIZES, FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_removed_images_leave_the_others_where_they_are(
    sizes: dict[str, int], val: float, seed: int, chance: random.Random
) -> None:
    images = found_classes(sizes)
    known = splits_by_content(assign_splits(images, {"val": val}, {}, seed))
    left = [image for image in images if chance.random() < 0.6]
    for record in assign_splits(left, {"val": val}, known, seed + 1):
        assert record.split == known[record.sha256]


def test_a_folder_that_grows_and_shrinks_keeps_its_splits(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"running": 40, "sitting": 40})
    first = load_dataset(root)
    fill(root / "running", range(500, 540))
    for number in range(0, 40, 3):
        (root / "running" / f"{number:05d}.jpg").unlink()
    second = reload(first, tmp_path / "manifest.csv", split_seed=3)
    before, after = splits_by_content(first.records), splits_by_content(second.records)
    both = before.keys() & after.keys()
    assert len(both) == 66 and all(before[sha256] == after[sha256] for sha256 in both)
    assert class_counts(second, "test")["running"] == 10  # 15 % of 66
    assert reload(second, tmp_path / "manifest.csv") == second


def test_a_renamed_or_relabelled_image_keeps_its_split_by_its_content(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"running": 20, "sitting": 20})
    first = load_dataset(root)
    for record in first.records:
        folder = root / ("sitting" if record.name.endswith(("0.jpg", "5.jpg")) else record.label)
        file_of(record.path).rename(folder / f"renamed {record.sha256}.jpg")
    second = reload(first, tmp_path / "manifest.csv", split_seed=3)
    assert not names(first) & names(second)
    assert splits_by_content(first.records) == splits_by_content(second.records)


def test_the_first_manifest_that_knows_an_image_decides(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"running": 20, "sitting": 20})
    paths = [tmp_path / "a.csv", tmp_path / "missing.csv", tmp_path / "b.csv"]
    first, other = load_dataset(root, split_seed=1), load_dataset(root, split_seed=2)
    half = tuple(record for record in first.records if record.label == "running")
    write_manifest(ActionDataset(root=root, classes=first.classes, records=half), paths[0])
    write_manifest(other, paths[2])
    dataset = load_dataset(root, manifests=paths)
    expected = splits_by_content(other.records) | splits_by_content(half)
    assert splits_by_content(dataset.records) == expected


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_what_a_folder_says_is_above_a_manifest(held_out: SplitName, tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data" / "train", {"running": 20, "sitting": 20}).parent
    first = load_dataset(root)
    moved = [record for record in first.split("train") if record.label == "running"][:3]
    fill(root / held_out / "sitting", range(900, 903))
    (root / held_out / "running").mkdir()
    for record in moved:
        file_of(record.path).rename(root / held_out / "running" / file_of(record.path).name)
    second = reload(first, tmp_path / "manifest.csv")
    assert class_counts(second, held_out) == {"running": 3, "sitting": 3}
    assert second.warnings == ()
    scored = load_dataset(root, manifests=[tmp_path / "manifest.csv"], classes=first.classes)
    assert scored.records == second.records
    assert scored.warnings == (
        "3 images held out now were previously used for training or model selection, so their metrics "
        "are too optimistic: " + ", ".join(f"{held_out}/running/{file_of(record.path).name}" for record in moved),
    )


def test_a_dataset_that_gets_a_test_folder_frees_its_earlier_test_images(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data" / "train", {"running": 20, "sitting": 20}).parent
    first = load_dataset(root)
    assert first.counts()["test"] == 6
    fill_classes(root / "test", {"running": 5, "sitting": 5}, start=900)
    second = reload(first, tmp_path / "manifest.csv")
    assert second.counts()["test"] == 10 and second.counts()["val"] == 6
    assert sum(second.counts().values()) == 50


GOOD_ROW = f"a/b.jpg,{'0' * 64},a,train\n"
HEADER = "path,sha256,class,split\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "path,sha256,class\n",
        "path,class,sha256,split\n",
        HEADER + GOOD_ROW + "a/c.jpg,00",
        HEADER + GOOD_ROW.replace("train", "training"),
        HEADER + GOOD_ROW.replace("000", "xyz"),
        HEADER + GOOD_ROW.replace("a,train", "a,b,train"),
        HEADER + '"a',
        HEADER + "caf\xe9",
        HEADER + "a" * 200_000,
        "\x00\x00",
    ],
    ids=lambda text: repr(text[-20:]),
)
def test_a_file_that_is_not_a_manifest_is_refused(text: str, tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"running": 4, "sitting": 4})
    (tmp_path / "manifest.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        load_dataset(root, manifests=[tmp_path / "manifest.csv"])
    assert "manifest.csv is not a split manifest" in caught.value.what and "\n" not in str(caught.value)


def test_a_manifest_saved_by_a_spreadsheet_is_still_one(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"running": 20, "sitting": 20})
    first = load_dataset(root, split_seed=5)
    saved = "\ufeff" + first.manifest_csv().replace("\n", "\r\n")
    (tmp_path / "manifest.csv").write_bytes(saved.encode())
    assert load_dataset(root, manifests=[tmp_path / "manifest.csv"]) == first


def test_the_manifests_hash_tells_content_class_and_split_apart(tmp_path: Path) -> None:
    sizes = {"running": 8, "sitting": 8}
    hashes: dict[str, set[str]] = defaultdict(set)
    for name in ("first", "same", "content", "class", "name"):
        root = fill_classes(tmp_path / name, sizes)
        if name == "content":
            fill(root / "running", [900], pattern="00003.jpg")
        if name == "class":
            (root / "sitting" / "00003.jpg").write_bytes((root / "running" / "00003.jpg").read_bytes())
            (root / "running" / "00003.jpg").unlink()
        if name == "name":
            (root / "running" / "00003.jpg").rename(root / "running" / "z.jpg")
        hashes[load_dataset(root).manifest_hash()].add(name)
    seeded = load_dataset(tmp_path / "first", split_seed=1).manifest_hash()
    assert sorted(map(sorted, hashes.values())) == [["class"], ["content"], ["first", "same"], ["name"]]
    assert seeded not in hashes
