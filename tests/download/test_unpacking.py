"""Archives from strangers: paths, links, bombs and damage end in one line, and nothing is written outside."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from clip_har.download import UnpackLimits, unpack
from clip_har.errors import DataError

LIMITS = UnpackLimits(files=10, total_bytes=3 << 20, file_bytes=2 << 20, ratio=50)


def zip_of(path: Path, members: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name  # as it is, where the constructor would mend it
            info.compress_type = compression
            archive.writestr(info, content)
    return path


def tar_of(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"data"))
    return path


def refused(archive: Path, folder: Path) -> str:
    before = {path for path in folder.parent.rglob("*") if folder not in (path, *path.parents)}
    with pytest.raises(DataError) as caught:
        unpack(archive, folder, limits=LIMITS)
    assert "\n" not in str(caught.value)
    assert {path for path in folder.parent.rglob("*") if folder not in (path, *path.parents)} == before
    return caught.value.what


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_files_come_out_as_they_went_in(suffix: str, tmp_path: Path) -> None:
    members = {"a/b/1.jpg": b"one", "a/2.jpg": b"", "3.txt": b"three" * 1000}
    archive = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        zip_of(archive, members, compression=zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert unpack(archive, tmp_path / "out", limits=LIMITS) == 3
    out = tmp_path / "out"
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == members


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:/evil.jpg", "a//b.jpg", "a/./b", "a\0b"],
)
def test_paths_that_leave_the_folder_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "evil.zip", {"good.jpg": b"good", name: b"evil"})
    assert "which would leave the folder: nothing was unpacked" in refused(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if "\0" not in name and not name.startswith(("C:", "a/.", "a//")):
        assert "which would leave the folder" in refused(tar_of(tmp_path / "evil.tar", name), tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    assert "which is a link or a device" in refused(tar_of(tmp_path / "x.tar", "a.jpg", kind), tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "contains 'a.jpg', which is a link or a device" in refused(tmp_path / "x.zip", tmp_path / "out")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.jpg", "1")
        archive.writestr("a.jpg", "2")
    assert "contains 'a.jpg', which is there twice" in refused(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"bomb.bin": bytes((2 << 20) - 1)}, "bomb.bin grows"),
        ({"large.bin": bytes((2 << 20) + 1)}, "large.bin has 2,097,153 bytes, above 2,097,152"),
        ({f"{n}.jpg": b"x" for n in range(11)}, "11 files or more, above 10"),
        ({f"{n}.bin": bytes(range(256)) * 4096 for n in range(4)}, "4,194,304 bytes or more in all, above 3,145,728"),
    ],
)
def test_archives_that_grow_without_limit_are_refused(members: dict[str, bytes], said: str, tmp_path: Path) -> None:
    stored = "in all" in said or "files" in said
    compression = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    assert said in refused(zip_of(tmp_path / "x.zip", members, compression=compression), tmp_path / "out")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_that_grows_is_refused(kind: str, tmp_path: Path) -> None:
    """As a whole: no member is large, and none has a packed size of its own."""
    path = tmp_path / f"x.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:  # type: ignore[call-overload]
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.bin")
            info.size = 300_000
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    assert "it grows" in refused(path, tmp_path / "out") and "above 50 times" in refused(path, tmp_path / "out")


def test_what_follows_the_files_of_a_compressed_tar_does_not_grow_either(tmp_path: Path) -> None:
    inner = tar_of(tmp_path / "inner.tar", "a.jpg")
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(inner.read_bytes() + bytes((3 << 20) - 100_000))
    assert "what are no files in it grows" in refused(path, tmp_path / "out")


def test_a_member_larger_than_it_says_is_stopped(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", {"a.bin": b"0123456789" * 100}, compression=zipfile.ZIP_DEFLATED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    what = refused(archive, tmp_path / "out")
    assert "is larger than its declared size" in what or "is damaged" in what
    assert not (tmp_path / "out" / "a.bin").exists() or (tmp_path / "out" / "a.bin").stat().st_size <= 10


def test_damage_is_found(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", {"a.bin": b"0123456789" * 100})
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    assert refused(archive, tmp_path / "out").startswith(f"The archive {archive} is damaged: Bad CRC-32")


def photos_tar(path: Path, kind: str) -> bytes:
    """A tar of eight members of noise, which no compression shrinks; its bytes."""
    draw = random.Random(0)
    mode: Any = f"w:{kind}"
    with tarfile.open(path, mode) as tar:
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 20_000
            tar.addfile(info, io.BytesIO(draw.randbytes(info.size)))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("place", ["head", "middle", "trailer", "cut"])
def test_damage_of_a_compressed_tar_is_found(kind: str, place: str, tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    content = bytearray(photos_tar(archive, kind))
    assert unpack(archive, tmp_path / "whole", limits=LIMITS) == 8
    # The checksum stands in the last eight bytes of a gz, the last five of a bz2, and well before the end of an xz.
    first = {"head": 20, "middle": len(content) // 2, "trailer": len(content) - {"gz": 8, "bz2": 5, "xz": 24}[kind]}
    if place == "cut":
        del content[-3:]
    else:
        content[first[place] : first[place] + 4] = bytes(byte ^ 0xFF for byte in content[first[place] :][:4])
    archive.write_bytes(content)
    assert refused(archive, tmp_path / "out").startswith(f"The archive {archive} is damaged: ")
    assert not (tmp_path / "out").exists()


def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    content = bytearray(photos_tar(archive, ""))
    content[content.index(b"5.jpg")] ^= 1
    archive.write_bytes(content)
    assert refused(archive, tmp_path / "out").endswith("what follows its last readable file is no file")


def test_a_tar_without_end_is_left_at_the_first_file_too_many(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(11):
            tar.addfile(tarfile.TarInfo(f"{number}.jpg"))
    content = archive.read_bytes()[: 11 * 512]
    archive.write_bytes(content + b"no header at all" * 1000)  # would be found damaged, were it read
    assert "11 files or more, above 10" in refused(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "is a web page, perhaps one that asks to log in"),
        (b"\xff\xd8\xff\xe0", "is no zip or tar archive"),
        (b"", "is no zip or tar archive"),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert said in refused(tmp_path / "x", tmp_path / "out")
    with pytest.raises(DataError, match=r"Archive .* not found"):
        unpack(tmp_path / "gone", tmp_path / "out")
