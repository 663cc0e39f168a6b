"""WebDataset tar shards as a source: files of one name and several suffixes are one image and what is said of it.

Shards are listed, never unpacked: an image is read where it lies. https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from clip_har.dataset.layout import printable
from clip_har.dataset.records import SplitName
from clip_har.dataset.sources.base import Row, Source, source_of_rows, with_splits
from clip_har.dataset.sources.class_names import listed_names
from clip_har.dataset.sources.tables import LABEL_COLUMNS
from clip_har.errors import DataError
from clip_har.images import IMAGE_SUFFIXES
from clip_har.images.addresses import PackedImage

LABEL_MEMBERS = ("cls", "txt", "json")
"""Suffixes of members that say the class, the one to believe first."""

_LABEL_BYTES = 1 << 20
_READING_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, EOFError)
_SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)  # WebDataset's base_plus_ext
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def find_shards(root: Path) -> list[Path]:
    """Tar shards in a folder and the folders directly in it.

    Raises:
        DataError: there are compressed ones, in which no image can be read where it lies.
    """
    files = sorted(path for path in (*root.glob("*"), *root.glob("*/*")) if not path.name.startswith("."))
    packed = [path for path in files if path.name.lower().endswith(_PACKED)]
    if packed:
        raise DataError(
            f"{packed[0]} is a compressed archive, in which images cannot be read in place",
            remedy="Decompress it to a .tar (the images in it are compressed already), or unpack it.",
        )
    return [path for path in files if path.suffix.lower() == ".tar" and path.is_file()]


def read_shards(root: Path, shards: Sequence[Path]) -> Source:
    """List the images of tar shards; the split is that of the shard's name or folder.

    Args:
        root: the folder, or the one shard.
        shards: tar files. They may be links to other disks.

    Raises:
        DataError: a shard is not a tar archive or ends early, or no image has a class.
    """
    folder = root if root.is_dir() else root.parent
    pairs, warnings = with_splits(shards, folder) if root.is_dir() else ([(root, None)], [])
    rows = [row for shard, split in pairs for row in _shard_rows(shard, split, folder)]
    said = f"{len(pairs)} WebDataset tar shard{'s' if len(pairs) > 1 else ''}, read in place"
    return source_of_rows(root, said, rows, class_names=listed_names(folder), warnings=warnings)


def images_of_shard(shard: Path) -> Iterator[tuple[str, PackedImage]]:
    """Each image of a tar shard, in its order: the name in the archive, and where it is. Labels are not read.

    Raises:
        DataError: it is not a tar archive, or ends early.
    """
    try:
        with shard.open("rb") as stream:
            for key, suffix, start, length in _members(stream):
                if _is_image(suffix):
                    yield f"{key}.{suffix}", PackedImage(file=shard, start=start, length=length)
    except _READING_ERRORS as error:
        raise _unreadable(shard, error) from error


def _shard_rows(shard: Path, split: SplitName | None, folder: Path) -> Iterator[Row]:
    base = printable(shard.relative_to(folder).as_posix())
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, dict[str, str | int | None]] = {}
    try:
        with shard.open("rb") as stream:
            for key, suffix, start, length in _members(stream):
                kind = suffix.lower()
                if _is_image(suffix):
                    images.setdefault(key, (suffix, start, length))
                elif kind in LABEL_MEMBERS and length <= _LABEL_BYTES:
                    labels.setdefault(key, {})[kind] = _label(kind, _content(stream, start, length))
    except _READING_ERRORS as error:
        raise _unreadable(shard, error) from error
    for key, (suffix, start, length) in images.items():
        said = labels.get(key, {})
        label = next((said[kind] for kind in LABEL_MEMBERS if said.get(kind) not in (None, "")), None)
        address = PackedImage(file=shard, start=start, length=length)
        yield Row(address=address, name=f"{base}/{printable(key)}.{printable(suffix)}", label=label, split=split)


def _is_image(suffix: str) -> bool:
    return f".{suffix.lower().rpartition('.')[2]}" in IMAGE_SUFFIXES


def _unreadable(shard: Path, error: Exception) -> DataError:
    return DataError(f"Cannot read the shard {shard}: {error}", remedy="Download it again.")


def _members(stream: BinaryIO) -> Iterator[tuple[str, str, int, int]]:
    """Yield the key, the suffix, the first byte and the length of every regular file in a tar archive."""
    end = stream.seek(0, 2)
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every one, of millions
            matched = _SAMPLE.fullmatch(member.name)
            if member.offset_data + (member.size if member.isreg() else 0) > end:
                raise tarfile.ReadError(f"it ends in the middle of {member.name}")
            if matched and member.isreg() and not member.issparse():
                yield matched[1], matched[2], member.offset_data, member.size


def _content(stream: BinaryIO, start: int, length: int) -> bytes:
    here = stream.tell()
    stream.seek(start)
    content = stream.read(length)
    stream.seek(here)
    return content


def _label(kind: str, content: bytes) -> str | int | None:
    """The class that a member says, None where it says none."""
    try:
        text = content.decode("utf-8-sig").strip()
        if kind != "json":
            return text or None
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(said, str | int):
        return said
    if not isinstance(said, dict):
        return None
    named = {str(key).lower(): value for key, value in said.items()}
    found = [named[name] for name in LABEL_COLUMNS if isinstance(named.get(name), str | int)]
    return next((value for value in found if isinstance(value, str)), next(iter(found), None))
