"""A file is written whole or not at all, whatever happens on the way; the cache is where it was asked for."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from clip_har.files import cache_folder, write_atomically


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_missing_folders_are_made_and_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "results.json"
    write_atomically(target, "old")
    write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "new"
    assert names_in(target.parent) == ["results.json"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", b""),
        ("a\nb\r\n", b"a\nb\r\n"),
        ("日本 é", "日本 é".encode()),
        ("name \udcff.jpg", b"name \\udcff.jpg"),
        (b"\x00\xff\n", b"\x00\xff\n"),
    ],
)
def test_what_is_written(content: str | bytes, expected: bytes, tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "results.json"
    write_atomically(target, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["results.json"]


def test_a_write_that_is_interrupted_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "results.json"
    write_atomically(target, "old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["results.json"]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target = tmp_path / "log.jsonl"
    contents = [letter * 200_000 for letter in "abcd"]
    write_atomically(target, contents[0])
    writers = [threading.Thread(target=write_atomically, args=(target, text)) for text in contents * 3]
    for writer in writers:
        writer.start()
    seen = [target.read_text(encoding="utf-8")]
    while any(writer.is_alive() for writer in writers):
        seen.append(target.read_text(encoding="utf-8"))
    assert set(seen) <= set(contents)
    assert names_in(tmp_path) == ["log.jsonl"]


def test_the_cache_is_the_chosen_one_or_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_HAR_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert cache_folder(tmp_path / "chosen") == tmp_path / "chosen"
    assert cache_folder(None) == tmp_path / "own"
    monkeypatch.setenv("CLIP_HAR_CACHE", "")  # as in `CLIP_HAR_CACHE= clip-har train`
    assert cache_folder(None) == tmp_path / "xdg" / "clip-har"
    monkeypatch.delenv("CLIP_HAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(None) == tmp_path / "home" / ".cache" / "clip-har"
    assert not (tmp_path / "own").exists()  # asking makes nothing
