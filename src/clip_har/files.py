"""Writing files whole or not at all, and where cached files live. Knows nothing of their content."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from clip_har.wording import file_size

STRAY_SECONDS = 3600.0
"""Age from which a temporary file counts as left behind, if its writer cannot be asked."""

_UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")
_TEMPORARY_OF_OLD = re.compile(r"\..+[.-]([0-9a-f]{32}|[0-9a-f]{8})\.tmp")
_ATTEMPTS = 3


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Write a file so that a reader, or a run killed half-way, sees the old content or the new, not half.

    Folders that are missing are made, also if they are deleted meanwhile. Text is UTF-8 on every system, its lines end
    as they are; what UTF-8 cannot hold, such as undecodable bytes of a file's name, appears as \udcXX.

    Raises:
        OSError: it cannot be written; the error names the file itself, and its size where there is no room for it.
    """
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    write_pieces(path, lambda: [data], len(data))


def write_pieces(path: Path, pieces: Callable[[], Iterable[bytes | memoryview]], size: int) -> None:
    """The same for a file that is never in memory as a whole.

    Args:
        pieces: gives the content from its beginning, each time it is called.
        size: of all pieces together, in bytes.

    Raises:
        OSError: as for `write_atomically`.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with written_whole(path) as stream:
                for piece in pieces():
                    stream.write(piece)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and attempt < _ATTEMPTS:
                continue  # another process deleted the folder between two steps
            raise _about(path, size, error) from error
        return


def read_text(path: Path, *, largest: int) -> str:
    """The text of a regular file in UTF-8. A device or a pipe is refused: it may have no end.

    Args:
        largest: bytes that it may have.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
        UnicodeDecodeError: it is not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    with path.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"Larger than {file_size(largest)}", str(path))
    return content.decode("utf-8-sig")


def temporary_name(name: str) -> str:
    """The name under which a file is written until it is whole: it tells which process writes it."""
    return f".{name}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"


def remove_stray_temporaries(*folders: Path) -> None:
    """Remove temporary files that killed processes have left in these folders (not below them).

    A file stays while its writer lives, and for `STRAY_SECONDS` if that was another machine or container.
    Other files, and folders that are missing or cannot be changed, are left alone.
    """
    for folder in folders:
        with suppress(OSError):
            strays = [path for path in folder.glob(".*.tmp") if _is_stray(path)]
            for path in strays:
                path.unlink(missing_ok=True)


def folder_name(text: str) -> str:
    """A text, such as the name of a class, as the name of one folder on any system; empty if nothing of it can be."""
    return "".join("_" if character in '/\\:*?"<>|\0' else character for character in text).strip(" .")


def valid_utf8(text: str) -> str:
    """The text with a replacement character for what UTF-8 cannot hold, such as undecodable bytes of a file's name."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def is_utf8(path: Path) -> bool:
    """Whether a path can be given to libraries that take UTF-8 only. On Linux a name may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def unless_unwritable(warn: Callable[[str], None], said: str) -> Iterator[None]:
    """Continue, with a warning, where the block fails because a place can be read but not written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        warn(said)


def cache_folder(chosen: Path | None) -> Path:
    """The cache: `chosen`, else $CLIP_HAR_CACHE, else clip-har under the user's cache folder."""
    if chosen is not None:
        return chosen
    if from_environment := os.environ.get("CLIP_HAR_CACHE"):  # set but empty means unset
        return Path(from_environment)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clip-har"


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name when the block ends, and is removed if it fails. Its folder is made.

    Raises:
        OSError: it cannot be written; the error may name the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):  # the error that led here matters more
            temporary.unlink(missing_ok=True)


def _about(path: Path, size: int, error: OSError) -> OSError:
    """The same error, about the file that was to be written and not about its temporary name."""
    reason = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        reason += f" (the file needs {file_size(size)})"
    return OSError(error.errno or 0, reason, str(path))


def _is_stray(path: Path) -> bool:
    if named := _TEMPORARY.fullmatch(path.name):
        if named["machine"] == _machine():
            return not _lives(int(named["process"]))
    elif not _TEMPORARY_OF_OLD.fullmatch(path.name):
        return False
    return time.time() - path.stat().st_mtime > STRAY_SECONDS


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


@lru_cache(maxsize=1)
def _machine() -> str:
    """Eight hex digits for this machine since its start, and for the container: where a process id has a meaning."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
