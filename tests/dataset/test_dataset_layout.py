"""Folders as people have them: which files are images of the dataset, and what is said about the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_har.dataset import SPLITS, UnreadableImage, load_dataset
from clip_har.images.addresses import file_of
from image_folders import class_counts, content, fill, fill_classes, names, refusal

SIZES = {"running": 20, "sitting": 10, "walking": 10}


def test_class_folders_without_splits(tmp_path: Path) -> None:
    dataset = load_dataset(fill_classes(tmp_path / "photos", SIZES))
    assert dataset.root == (tmp_path / "photos").resolve()
    assert dataset.classes == ("running", "sitting", "walking")
    assert len(dataset.records) == 40 and dataset.warnings == () and dataset.unreadable == ()
    assert class_counts(dataset, "test") == {"running": 3, "sitting": 2, "walking": 2}  # 15 % of all
    assert class_counts(dataset, "val") == {"running": 3, "sitting": 1, "walking": 1}  # 15 % of what is left
    assert dataset.counts() == {"train": 28, "val": 5, "test": 7}
    for record in dataset.records:
        assert record.path == dataset.root / record.name and file_of(record.path).is_file()
        assert record.label == record.name.split("/")[0]
    assert [record.name for record in dataset.records] == sorted(names(dataset))


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("trainset", "valset", "testset"),
        ("TRAIN_SET", "valid", "Test-Set"),
        ("Training Set", "validation_set", "TEST"),
    ],
)
def test_split_folders(train: str, val: str, test: str, tmp_path: Path) -> None:
    for start, (folder, size) in enumerate(((train, 8), (val, 3), (test, 4))):
        fill_classes(tmp_path / folder, {"running": size, "sitting": size}, start=100 * start)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 16, "val": 6, "test": 8}
    for split, folder in zip(SPLITS, (train, val, test), strict=True):
        assert {record.name.split("/")[0] for record in dataset.split(split)} == {folder}
    assert dataset.classes == ("running", "sitting") and dataset.warnings == ()


def test_only_train(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", SIZES)
    assert load_dataset(tmp_path).counts() == {"train": 28, "val": 5, "test": 7}


def test_train_and_val_without_test(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", SIZES)
    fill_classes(tmp_path / "val", SIZES, start=100)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 40, "val": 40, "test": 0}
    assert dataset.warnings == ()


def test_train_and_test_without_val(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", {"running": 100, "sitting": 40})
    fill_classes(tmp_path / "test", {"running": 7, "sitting": 5}, start=1000)
    dataset = load_dataset(tmp_path)
    assert class_counts(dataset, "val") == {"running": 15, "sitting": 6}
    assert class_counts(dataset, "train") == {"running": 85, "sitting": 34}
    assert class_counts(dataset, "test") == {"running": 7, "sitting": 5}
    assert names(dataset, "test") == {name for name in names(dataset) if name.startswith("test/")}
    assert sum(dataset.counts().values()) == 152


def test_only_test(tmp_path: Path) -> None:
    fill_classes(tmp_path / "test", SIZES)
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 0, "val": 0, "test": 40}
    assert dataset.classes == tuple(SIZES) and dataset.warnings == ()


@pytest.mark.parametrize("inner", ["har", "Human Action Recognition/data v2"])
@pytest.mark.parametrize("split", [True, False])
def test_an_archive_unpacked_into_a_folder_of_its_own(inner: str, split: bool, tmp_path: Path) -> None:
    root = tmp_path / inner
    fill_classes(root / "train" if split else root, SIZES)
    (tmp_path / "__MACOSX" / "._har").mkdir(parents=True)
    (tmp_path / "har.zip").write_bytes(b"PK\x03\x04")
    (root / "README.md").write_text("about")
    if split:
        fill(root, [900], pattern="sample.jpg")
    dataset = load_dataset(tmp_path)
    assert dataset.root == root.resolve()
    assert len(dataset.records) == 40 and dataset.classes == tuple(SIZES)


def test_an_archive_of_its_own_for_each_split(tmp_path: Path) -> None:
    fill_classes(tmp_path / "train" / "train", SIZES)
    fill_classes(tmp_path / "test" / "Test", SIZES, start=100)
    dataset = load_dataset(tmp_path)
    assert dataset.classes == tuple(SIZES)
    assert class_counts(dataset, "test") == SIZES


@pytest.mark.parametrize("others", [("training",), ("test",), ("training", "Test"), ("train", "training")])
def test_classes_that_are_called_like_splits(others: tuple[str, ...], tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 4, "sitting": 4} | dict.fromkeys(others, 4))
    dataset = load_dataset(tmp_path)
    assert dataset.classes == tuple(sorted(("running", "sitting", *others)))
    assert all(count == 2 for count in class_counts(dataset, "train").values())


def test_splits_and_classes_side_by_side_are_refused(tmp_path: Path) -> None:
    fill_classes(tmp_path / "training", SIZES)
    fill_classes(tmp_path, {"running": 4}, start=100)
    error = refusal(tmp_path)
    assert "training/" in error.what and "running/" in error.what


def test_folders_of_images_beside_the_splits_are_said(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "test")):
        fill_classes(tmp_path / split, SIZES, start=100 * start)
    fill(tmp_path / "unlabelled", range(500, 503))
    (tmp_path / "docs").mkdir()
    dataset = load_dataset(tmp_path)
    assert dataset.warnings == ("Images outside the splits were skipped: unlabelled/",)
    assert dataset.counts()["test"] == 40


@pytest.mark.parametrize(("first", "second"), [("train", "Training"), ("test", "testset"), ("val", "valid")])
def test_two_folders_for_one_split_are_refused(first: str, second: str, tmp_path: Path) -> None:
    fill_classes(tmp_path / first, SIZES)
    fill_classes(tmp_path / second, SIZES, start=100)
    error = refusal(tmp_path)
    assert f"{first}/" in error.what and f"{second}/" in error.what and error.remedy == "Keep one of them."


@pytest.mark.parametrize("flat", ["train", "test"])
def test_images_directly_under_a_split_are_refused(flat: str, tmp_path: Path) -> None:
    for start, split in enumerate(("train", "test")):
        fill_classes(tmp_path / split, {"running": 3} if split != flat else {}, start=10 * start)
    fill(tmp_path / flat, range(100, 103))
    (tmp_path / "Training_set.csv").write_text("filename,label\n")
    error = refusal(tmp_path)
    assert error.what == f"{(tmp_path / flat).resolve()} contains images but no class folders"
    assert "one subfolder per class" in error.remedy


def test_loose_images_beside_class_folders_are_said(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "test")):
        fill_classes(tmp_path / split, SIZES, start=100 * start)
    fill(tmp_path / "train", [700])
    fill(tmp_path, range(800, 804), pattern="{:05d}.JPG")
    (warning,) = load_dataset(tmp_path).warnings
    assert warning.startswith("5 images are in no class folder and were skipped: 00800.JPG, ")
    assert warning.endswith(" and 2 more")


def test_what_systems_and_tools_leave_behind_is_ignored(tmp_path: Path) -> None:
    fill_classes(tmp_path, SIZES)
    fill(tmp_path / "running" / ".thumbnails", [900])
    fill(tmp_path / "running" / "__MACOSX", [901])
    fill(tmp_path / "running" / "@eaDir", [902])
    for folder in (".git", ".ipynb_checkpoints", "__MACOSX", "__pycache__"):
        fill(tmp_path / folder, [903])
    for name in ("._00001.jpg", ".hidden.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt", "a.csv"):
        (tmp_path / "running" / name).write_bytes(b"Mac OS X\0 and others")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == tuple(SIZES)
    assert len(dataset.records) == 40 and dataset.unreadable == () and dataset.warnings == ()


def test_images_deeper_in_a_class_folder(tmp_path: Path) -> None:
    fill_classes(tmp_path, SIZES)
    fill(tmp_path / "running" / "2020" / "may", range(900, 905))
    dataset = load_dataset(tmp_path)
    deep = [record for record in dataset.records if record.name.startswith("running/2020/may/")]
    assert len(deep) == 5 and {record.label for record in deep} == {"running"}
    assert dataset.classes == tuple(SIZES)


def test_links_that_lead_back_up_neither_hang_nor_bring_other_classes(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "photos", SIZES)
    (root / "running" / "self").symlink_to(root / "running")
    (root / "running" / "up").symlink_to("../..")
    (root / "running" / "deep").mkdir()
    (root / "running" / "deep" / "root").symlink_to(root)
    (root / "running" / "knot").symlink_to("knot")
    (root / "all").symlink_to(root)
    (root / "above").symlink_to("..")
    dataset = load_dataset(root)
    assert dataset.classes == tuple(SIZES) and len(dataset.records) == 40
    assert dataset.warnings == () and dataset.unreadable == ()


def test_a_link_to_itself_in_a_folder_of_its_own_ends(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "again").symlink_to(tmp_path / "outer")
    assert "inner" in refusal(tmp_path).what


def test_linked_images_and_folders_are_read_once(tmp_path: Path) -> None:
    fill(tmp_path / "disk", range(900, 905))
    root = fill_classes(tmp_path / "photos", SIZES)
    for link in ("a", "b"):
        (root / "running" / link).symlink_to(tmp_path / "disk")
    (root / "sitting" / "linked.jpg").symlink_to(tmp_path / "disk" / "00900.jpg")
    (tmp_path / "link").symlink_to(root)
    dataset = load_dataset(tmp_path / "link")
    assert dataset.root == root.resolve()
    linked = names(dataset) - names(load_dataset(fill_classes(tmp_path / "plain", SIZES)))
    assert linked == {f"running/a/{number:05d}.jpg" for number in range(900, 905)} | {"sitting/linked.jpg"}


@pytest.mark.parametrize(
    "name",
    [
        "two words.jpg",
        "日本 été.jpg",
        "UPPER.JPG",
        "photo.JpEg",
        "photo",
        "photo.bak",
        "a,b\"c'.png",
        "x.txt",
        "-",
    ],
)
def test_whatever_its_name_an_image_is_found_by_its_content(name: str, tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 3, "sitting": 3})
    (tmp_path / "running" / name).write_bytes(content(900))
    dataset = load_dataset(tmp_path)
    assert f"running/{name}" in names(dataset) and len(dataset.records) == 7


def test_names_that_are_not_utf_8_can_still_be_written(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 3, "sitting": 3})
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)  # noqa: PTH102 (a pathlib.Path cannot be made of bytes)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for number in range(3):
        Path(os.fsdecode(folder + b"/\xff%d.jpg" % number)).write_bytes(content(900 + number))
    Path(os.fsdecode(folder + b"/\xff.png")).write_bytes(b"")
    dataset = load_dataset(tmp_path)
    assert "caf\\udce9" in dataset.classes
    assert "caf\\udce9/\\udcff0.jpg" in dataset.manifest_csv()
    assert all(file_of(record.path).is_file() for record in dataset.records)
    for text in (dataset.manifest_csv(), dataset.manifest_hash(), dataset.unreadable[0].name):
        text.encode()


# Files that are no images


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404", "not an image but an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "not an image but a Git LFS pointer"),
        (b"\x00" * 20, "not an image but unknown data"),
    ],
)
def test_files_that_only_their_name_says_are_images_are_reported(head: bytes, reason: str, tmp_path: Path) -> None:
    fill_classes(tmp_path / "train", SIZES)
    fill_classes(tmp_path / "test", SIZES, start=100)
    (tmp_path / "train" / "running" / "bad.jpg").write_bytes(head)
    (tmp_path / "test" / "sitting" / "BAD.PNG").write_bytes(head)
    dataset = load_dataset(tmp_path)
    found = [(item.name, item.split) for item in dataset.unreadable]
    assert found == [("test/sitting/BAD.PNG", "test"), ("train/running/bad.jpg", "train")]
    assert all(item.reason.startswith(reason) for item in dataset.unreadable)
    assert len(dataset.records) == 80


def test_what_is_no_regular_file_is_reported_and_does_not_block(tmp_path: Path) -> None:
    fill_classes(tmp_path, SIZES)
    (tmp_path / "running" / "dangling.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "running" / "knot.jpg").symlink_to("knot.jpg")
    os.mkfifo(tmp_path / "running" / "pipe.jpg")
    os.mkfifo(tmp_path / "running" / "pipe")
    dataset = load_dataset(tmp_path)
    assert [item.name.split("/")[1] for item in dataset.unreadable] == [
        "dangling.jpg",
        "knot.jpg",
        "pipe.jpg",
    ]
    assert dataset.unreadable[0].reason == "no such file"
    assert dataset.unreadable[2].reason == "not a regular file"
    assert len(dataset.records) == 40


def test_folders_that_cannot_be_listed_are_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_classes(tmp_path, SIZES)
    closed = tmp_path / "running" / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path: str | Path) -> object:  # tests may run as root, who may list everything
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    error = refusal(tmp_path)
    assert "closed: Permission denied" in error.what and "permissions" in error.remedy


def test_images_that_prove_unreadable_leave_the_records_and_are_listed(tmp_path: Path) -> None:
    fill_classes(tmp_path, SIZES)
    (tmp_path / "running" / "a.png").write_bytes(b"")
    dataset = load_dataset(tmp_path)
    bad = dataset.split("val")[0]
    left = dataset.without({bad.sha256: "ends early", "0" * 64: "not of this dataset"})
    assert [record for record in dataset.records if record != bad] == list(left.records)
    assert left.unreadable == (
        UnreadableImage(name="running/a.png", split="train", reason="empty file"),
        UnreadableImage(name=bad.name, split="val", reason="ends early"),
    )
    assert (left.classes, left.root, left.warnings) == (dataset.classes, dataset.root, dataset.warnings)
    assert dataset.without({}) is dataset


def test_all_copies_of_an_unreadable_image_leave(tmp_path: Path) -> None:
    fill_classes(tmp_path, SIZES)
    fill(tmp_path / "running", [0], pattern="copy.jpg")
    dataset = load_dataset(tmp_path)
    bad = next(record for record in dataset.records if record.name == "running/copy.jpg")
    left = dataset.without({bad.sha256: "damaged"})
    assert [item.name for item in left.unreadable] == ["running/00000.jpg", "running/copy.jpg"]
    assert len(left.records) == 39


# What is refused


def test_folders_that_are_no_dataset_are_refused(tmp_path: Path) -> None:
    assert "Dataset not found" in refusal(tmp_path / "missing").what
    (tmp_path / "har.zip").write_bytes(b"PK\x03\x04")
    assert "is a file, not a folder" in refusal(tmp_path / "har.zip").what
    (tmp_path / "empty").mkdir()
    assert "contains no class folders" in refusal(tmp_path / "empty").what
    fill(tmp_path / "loose", range(3))
    assert "contains no class folders" in refusal(tmp_path / "loose").what
    for part in ("train", "test"):
        (tmp_path / "bare" / part).mkdir(parents=True)
    assert "contains no class folders" in refusal(tmp_path / "bare").what
