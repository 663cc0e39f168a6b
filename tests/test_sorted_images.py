"""`predict --sort-into`: every image once in the folder of its class, whatever it is called and however often."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_har.errors import ConfigError
from clip_har.experiment.prediction_rows import KnownRow
from clip_har.experiment.sorted_images import SortedImages, folder_names

CLASSES = ("a/b", "a:b", "..", "unsure", "Cat", "cat")


def row(image: Path, label: str | None, **marks: bool) -> KnownRow:
    return KnownRow(image=str(image), label=label, **{"unsure": False, "unknown": False, "unreadable": False, **marks})


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    found = []
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "photo.jpg").write_text(folder)
        found.append(tmp_path / folder / "photo.jpg")
    return found


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_names_that_mean_the_same_folder_are_told_apart() -> None:
    names = folder_names((*CLASSES, "unsure", "none of these", "x" * 300, "x" * 301))
    assert names[:8] == ["a_b", "a_b-2", "_", "unsure", "Cat", "cat-2", "unsure-2", "none of these"]
    assert len({name.casefold() for name in names}) == len(names) and max(map(len, names)) <= 202


@pytest.mark.parametrize("copies", [False, True])
def test_images_of_one_name_keep_apart_and_stay_when_it_is_repeated(
    copies: bool, images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "sorted"
    rows = [row(path, "a/b") for path in images]
    for each in rows:
        SortedImages(folder, CLASSES, copies=copies).place(each)
    found = contents(folder)
    assert sorted(found.values()) == ["one", "three", "two"] and found["a_b/photo.jpg"] == "one"
    assert all(name == "a_b/photo.jpg" or len(name) == len("a_b/photo-12345678.jpg") for name in found)
    for each in reversed(rows):
        SortedImages(folder, CLASSES, copies=copies).place(each)
    assert contents(folder) == found
    same = [path.samefile(images[0]) for path in folder.rglob("photo.jpg")]
    assert same == [not copies] and not list(folder.rglob(".*"))


def test_nothing_is_overwritten(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "sorted" / "Cat").mkdir(parents=True)
    (tmp_path / "sorted" / "Cat" / "photo.jpg").write_text("mine")
    for copies in (False, True):
        SortedImages(tmp_path / "sorted", CLASSES, copies=copies).place(row(images[0], "Cat"))
    assert sorted(contents(tmp_path / "sorted").values()) == ["mine", "one"]
    (tmp_path / "sorted" / "a_b").write_text("a file")
    with pytest.raises(ConfigError, match=r"needs the directory .*a_b, which is a file"):
        SortedImages(tmp_path / "sorted", CLASSES).place(row(images[0], "a/b"))
    with pytest.raises(ConfigError, match="which is a file"):
        SortedImages(images[0], CLASSES)


def test_what_has_no_class_goes_to_folders_of_its_own(images: list[Path], tmp_path: Path) -> None:
    sorting = SortedImages(tmp_path / "sorted", CLASSES)
    sorting.place(row(images[0], None, unsure=True))
    sorting.place(row(images[1], None, unknown=True))
    sorting.place(row(images[2], None, unreadable=True))
    assert contents(tmp_path / "sorted") == {"unsure-2/photo.jpg": "one", "none of these/photo.jpg": "two"}


def test_links_are_followed_and_another_disk_gets_symbolic_ones(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.jpg").symlink_to(Path("one") / "photo.jpg")
    SortedImages(tmp_path / "sorted", CLASSES).place(row(tmp_path / "link.jpg", "Cat"))
    assert (tmp_path / "sorted" / "Cat" / "link.jpg").samefile(images[0])
    assert not (tmp_path / "sorted" / "Cat" / "link.jpg").is_symlink()

    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        SortedImages(Path("there"), CLASSES).place(row(Path("two/photo.jpg"), "Cat"))
        SortedImages(Path("copied"), CLASSES, copies=True).place(row(Path("two/photo.jpg"), "Cat"))
    assert (tmp_path / "there" / "Cat" / "photo.jpg").is_symlink()
    assert contents(tmp_path / "there") == contents(tmp_path / "copied") == {"Cat/photo.jpg": "two"}


def test_an_image_that_has_gone_is_counted(images: list[Path], tmp_path: Path) -> None:
    sorting = SortedImages(tmp_path / "sorted", CLASSES)
    images[0].unlink()
    sorting.place(row(images[0], "Cat"))
    assert sorting.missing == 1 and contents(tmp_path / "sorted") == {}
