"""Unpacking a zip or tar archive from a stranger: nothing leaves the folder, and nothing grows without limit.

Whether the content is the dataset that was asked for is checked afterwards, in commands/fetch.py.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clip_har.errors import DataError
from clip_har.progress import SILENT, Progress

_CHUNK = 1 << 20
_BOMB_BYTES = 1 << 20
_SPARE_BYTES = 64 << 20
_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""The first bytes of a compressed file, and what reads it."""
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """What an archive may hold at most."""

    files: int = 200_000
    total_bytes: int = 20 << 30
    file_bytes: int = 2 << 30
    ratio: int = 200
    """Bytes unpacked per byte packed, above a megabyte: photographs hardly shrink. Counted for each file of a zip,
    and for the whole of a tar, which is compressed as a whole."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    size: int
    packed: int
    """Bytes in the archive; 0 in a tar, which does not say."""
    handle: Any


def unpack(archive: Path, folder: Path, *, limits: UnpackLimits | None = None, progress: Progress = SILENT) -> int:
    """Unpack an archive into a new folder. The list of its files is checked before anything is written.

    Args:
        archive: a zip or a tar, compressed or not.
        folder: is made, and must be empty.

    Returns:
        The number of files.

    Raises:
        DataError: it is no archive, is damaged or encrypted, holds links or paths that leave the folder, or more than
            the limits or the disk allow.
        OSError: writing failed, as on a full disk.
    """
    limits = limits or UnpackLimits()
    try:
        with _opened(archive, limits) as (found, open_member):
            members = list(_checked(archive, found, limits))
            _require_space(archive, members, folder)
            with progress.bar("unpacking", total=len(members), unit="files") as bar:
                for member in members:
                    path = folder.joinpath(*member.name.split("/"))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with open_member(member.handle) as source, path.open("xb") as target:
                        _copy(source, target, member, archive)
                    bar.advance()
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; gzip and bz2 give no number
            raise
        raise _damaged(archive, str(error)) from error
    return len(members)


@contextmanager
def _opened(archive: Path, limits: UnpackLimits) -> Iterator[tuple[Iterator[_Member], Any]]:
    if not archive.is_file():
        raise DataError(f"Archive {archive} not found", remedy="Check --archive.")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(archive, opened), opened.open
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield _tar_members(archive, tar, limits), tar.extractfile
    else:
        with archive.open("rb") as stream:
            head = stream.read(64)
        for magic, open_compressed in _COMPRESSED.items():
            if head.startswith(magic):
                with open_compressed(archive) as stream:
                    for _ in _rest(archive, stream, limits):
                        pass  # where it is damaged this fails, and says how
        page = head.lstrip().startswith(b"<")
        what = "a web page, perhaps one that asks to log in" if page else "no zip or tar archive"
        raise DataError(f"{archive} is {what}", remedy="Download the dataset's archive and pass it with --archive.")


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for item in opened.infolist():
        if item.is_dir():
            continue
        if item.flag_bits & 1:
            raise DataError(f"{archive} is encrypted", remedy="Download the dataset's own archive.")
        kind = (item.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000):
            raise _forbidden(archive, item.filename, "is a link or a device")
        # orig_filename: zipfile cuts the other at a null byte and turns backslashes round.
        yield _Member(name=item.orig_filename, size=item.file_size, packed=item.compress_size, handle=item)


def _tar_members(archive: Path, opened: tarfile.TarFile, limits: UnpackLimits) -> Iterator[_Member]:
    """Yield the files of a tar, and then read what follows: a compressed one has its checksum at the very end."""
    for item in opened:
        if item.isdir():
            continue
        if not item.isreg() or item.issparse():
            raise _forbidden(archive, item.name, "is a link or a device")
        yield _Member(name=item.name.removeprefix("./"), size=item.size, packed=0, handle=item)
    _read_out(archive, opened, limits)


def _read_out(archive: Path, opened: tarfile.TarFile, limits: UnpackLimits) -> None:
    """Read a tar to its end, which is zeros: tarfile takes a damaged header for the end, and never sees a checksum."""
    stream: Any = opened.fileobj
    for chunk in _rest(archive, stream, limits):
        if chunk.strip(b"\0"):
            raise _damaged(archive, "what follows its last readable file is no file")


def _rest(archive: Path, stream: IO[bytes], limits: UnpackLimits) -> Iterator[bytes]:
    """Yield what is left of a stream, up to the limits of an archive's bytes."""
    packed = archive.stat().st_size
    read = 0
    while chunk := stream.read(_CHUNK):
        read += len(chunk)
        if read > limits.total_bytes:
            raise _too_much(archive, f"{read:,} bytes or more that are no files", f"{limits.total_bytes:,}")
        if read > _BOMB_BYTES + limits.ratio * packed:
            raise _too_much(archive, f"what are no files in it grows {read // packed:,} times", f"{limits.ratio} times")
        yield chunk


def _checked(archive: Path, members: Iterable[_Member], limits: UnpackLimits) -> Iterator[_Member]:
    """Yield the members, and stop at the first that must not be unpacked: a list without end is never held."""
    seen: set[str] = set()
    whole = archive.stat().st_size
    total = 0
    for member in members:
        parts = member.name.split("/")
        if (
            not member.name
            or re.search(r"[\\:\0]", member.name)
            or member.name.startswith("/")
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise _forbidden(archive, member.name, "would leave the folder")
        if member.name in seen:
            raise _forbidden(archive, member.name, "is there twice")
        seen.add(member.name)
        if member.size > limits.file_bytes:
            raise _too_much(archive, f"{member.name} has {member.size:,} bytes", f"{limits.file_bytes:,}")
        if member.size > _BOMB_BYTES and member.packed and member.size > limits.ratio * member.packed:
            grown = f"{member.name} grows {member.size // member.packed:,} times"
            raise _too_much(archive, grown, f"{limits.ratio} times")
        if len(seen) > limits.files:
            raise _too_much(archive, f"{len(seen):,} files or more", f"{limits.files:,}")
        total += member.size
        if total > limits.total_bytes:
            raise _too_much(archive, f"{total:,} bytes or more in all", f"{limits.total_bytes:,}")
        if total > _BOMB_BYTES and not member.packed and total > limits.ratio * whole:
            raise _too_much(archive, f"it grows {total // whole:,} times", f"{limits.ratio} times")
        yield member


def _require_space(archive: Path, members: Sequence[_Member], folder: Path) -> None:
    """Refuse before the disk is full rather than after."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(member.size for member in members)
    free = shutil.disk_usage(folder).free
    if needed + min(_SPARE_BYTES, needed) > free:
        raise DataError(
            f"Unpacking {archive} needs {needed / 1e9:.2f} GB, and {folder} has {free / 1e9:.2f} GB left",
            remedy="Free space or choose another --out, and run the command again.",
        )


def _copy(source: IO[bytes], target: IO[bytes], member: _Member, archive: Path) -> None:
    """Copy a member, and no more than it said it has."""
    written = 0
    while chunk := source.read(min(_CHUNK, member.size - written + 1)):
        written += len(chunk)
        if written > member.size:
            raise _too_much(archive, f"{member.name} is larger than its declared size", f"{member.size:,} bytes")
        target.write(chunk)
    if written < member.size:
        raise DataError(f"The archive {archive} ends in the middle of {member.name}", remedy="Download it again.")


def _damaged(archive: Path, how: str) -> DataError:
    return DataError(f"The archive {archive} is damaged: {how}", remedy="Download it again.")


def _forbidden(archive: Path, name: str, what: str) -> DataError:
    shown = name if len(name) <= 80 else f"{name[:80]}..."
    return DataError(
        f"{archive} contains {shown!r}, which {what}: nothing was unpacked",
        remedy="Download the archive from the dataset's own page.",
    )


def _too_much(archive: Path, what: str, limit: str) -> DataError:
    return DataError(
        f"{archive} is too large: {what}, above {limit}", remedy="Download the archive from the dataset's own page."
    )
