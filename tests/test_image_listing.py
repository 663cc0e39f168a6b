"""The images that `predict` is given: their order, folders, patterns and lists, and how many names are held."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_har.config import STANDARD_INPUT
from clip_har.errors import ConfigError, DataError
from clip_har.images.listing import ImageList


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "b/2.jpg",
        "b/10.jpg",
        "b-c.jpg",
        "a/deep/x.jpg",
        "a/y.png",
        "z.txt",
        ".hidden.jpg",
        "é.jpg",
        ".h/1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(root: Path, *given: Path, **options: object) -> list[str]:
    return [path.relative_to(root).as_posix() for path in ImageList(given, **options)]  # type: ignore[arg-type,union-attr]


def test_a_folder_is_listed_in_the_order_of_its_paths(root: Path) -> None:
    found = names(root, root)
    assert found == [".h/1.jpg", "a/deep/x.jpg", "a/y.png", "b/10.jpg", "b/2.jpg", "b-c.jpg", "z.txt", "é.jpg"]
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    assert list(ImageList([root])) == sorted(files)
    assert ImageList([root, root / "b"]).count() == 10 and ImageList([root]).count(seconds=-1.0) is None


def test_no_more_names_are_held_than_one_folder_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    scandir = os.scandir

    def counted(folder: str) -> object:
        scanned.append(os.path.relpath(folder, root))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counted)
    found = iter(ImageList([root]))
    assert scanned == []
    assert str(next(found)).endswith("1.jpg") and scanned == [".", ".h"]
    assert str(next(found)).endswith("x.jpg") and scanned == [".", ".h", "a", "a/deep"]
    list(found)
    assert scanned == [".", ".h", "a", "a/deep", "b", "empty"]


def test_what_cannot_be_read_is_listed_and_what_is_left_out_is_not(root: Path) -> None:
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "elsewhere").symlink_to(root / "a")
    (root / "photo.jpg").symlink_to(root / "b" / "2.jpg")
    found = names(root, root, root / "missing.jpg", leave_out=[root / "a" / ".." / "b", root / "z.txt"])
    assert found == [".h/1.jpg", "a/deep/x.jpg", "a/y.png", "b-c.jpg", "loop.jpg", "photo.jpg", "é.jpg", "missing.jpg"]


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_that_cannot_be_opened_is_listed_itself(root: Path) -> None:
    (root / "a").chmod(0)
    try:
        assert names(root, root)[1] == "a"
    finally:
        (root / "a").chmod(0o755)


def test_patterns(root: Path) -> None:
    assert names(root, root / "*" / "*.jpg") == ["b/10.jpg", "b/2.jpg"]
    assert names(root, root / "**" / "*.jpg") == ["a/deep/x.jpg", "b/10.jpg", "b/2.jpg", "b-c.jpg", "é.jpg"]
    assert names(root, root / "**") == ["a/deep/x.jpg", "a/y.png", "b/10.jpg", "b/2.jpg", "b-c.jpg", "z.txt", "é.jpg"]
    assert names(root, root / "[ab]") == ["a/deep/x.jpg", "a/y.png", "b/10.jpg", "b/2.jpg"]
    (root / "img[1].jpg").touch()
    (root / "img1.jpg").touch()
    assert names(root, root / "img[1].jpg") == ["img[1].jpg"]
    with pytest.raises(ConfigError, match=r"No file matches .*\*\.gif\. Correct the pattern"):
        ImageList([root / "*.gif"])


class Pipe(io.RawIOBase):
    """A pipe that gives what was written so far, and says how much was taken of it."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)

    def read1(self, _: int) -> bytes:
        return self.parts.pop(0) if self.parts else b""


def test_lists_of_lines_and_of_names_that_nul_ends(root: Path) -> None:
    b = bytes(root / "b")
    lines = io.BytesIO(b"\n".join([b + b"/2.jpg", b"", os.fsencode(root / "é.jpg") + b"\r", b, b + b"/gone\xff.jpg"]))
    found = list(ImageList([root / "z.txt", STANDARD_INPUT, root / "b-c.jpg"], standard_input=lines))
    given = ["z.txt", "b/2.jpg", "é.jpg", "b/10.jpg", "b/2.jpg", os.fsdecode(b"b/gone\xff.jpg"), "b-c.jpg"]
    assert [str(path) for path in found] == [f"{root}/{name}" for name in given]
    nul = Pipe(b"one\nline.jpg\0two", b".jpg\0\0three", b"")
    assert list(ImageList([STANDARD_INPUT], standard_input=nul, null=True)) == list(  # type: ignore[arg-type]
        map(Path, ("one\nline.jpg", "two.jpg", "three"))
    )
    assert ImageList([STANDARD_INPUT], standard_input=lines).count() is None


def test_a_name_is_given_on_before_the_next_one_comes() -> None:
    pipe = Pipe(b"first.jpg\nsec", b"ond.jpg\n", b"third.jpg\n")
    found: Iterator[Path] = iter(ImageList([STANDARD_INPUT], standard_input=pipe))  # type: ignore[arg-type]
    assert next(found) == Path("first.jpg") and len(pipe.parts) == 2


@pytest.mark.parametrize(
    ("content", "null", "remedy"),
    [
        (b"a.jpg\0b.jpg\0", False, "Pass --null"),
        (b"x" * 70_000, False, "one path per line"),
        (b"x" * 70_000, True, "one"),
    ],
)
def test_what_is_no_list_is_refused(content: bytes, null: bool, remedy: str) -> None:
    with pytest.raises(DataError, match=f"Standard input is not a list of paths. .*{remedy}"):
        list(ImageList([STANDARD_INPUT], standard_input=io.BytesIO(content), null=null))
    with pytest.raises(ConfigError, match="--null is for a list on standard input"):
        ImageList([Path("a.jpg")], null=True)
