"""The image files that a command is given: files, folders, glob patterns and lists, found as they are asked for.

Whether a file can be read, and what it shows, is decided elsewhere.
"""

from __future__ import annotations

import glob
import io
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from clip_har.config import STANDARD_INPUT
from clip_har.errors import ConfigError, DataError
from clip_har.images.remote import RemoteImage, is_url, location
from clip_har.images.remote_listing import below, require_remote

BLOCK = 1 << 16
LONGEST_NAME = 1 << 16
"""Bytes of a list without a separator from which it is no list of paths."""
COUNTING_SECONDS = 2.0


class ImageList:
    """Image files in a defined order: as given, and in a folder by name, each subfolder in its place.

    Of a folder all files in it and below are listed that are not hidden; links to folders are not followed. No more
    names are held at a time than are in one folder, its parents included, and those that match a glob pattern.

    Args:
        given: files, folders, patterns such as photos/**/*.jpg, URLs of these, and `STANDARD_INPUT` for the list
            that is read there.
        standard_input: paths and URLs of files and folders, one a line.
        null: whether NUL ends each of them, and not a line break.
        leave_out: files and folders that are passed over where a folder holds them.

    Raises:
        ConfigError: nothing matches a pattern; or the list is asked for and there is none.
    """

    def __init__(
        self,
        given: Iterable[Path | RemoteImage],
        *,
        standard_input: BinaryIO | None = None,
        null: bool = False,
        leave_out: Sequence[Path] = (),
    ) -> None:
        self._given = [(path, _matches(path)) for path in given]
        self._input, self._null = standard_input, null
        self.reads_input = any(path == STANDARD_INPUT for path, _ in self._given)
        self._is_remote = any(isinstance(path, RemoteImage) for path, _ in self._given)
        self._left_out = {os.path.realpath(path): path.name for path in leave_out}
        if null and not self.reads_input:
            raise ConfigError("--null is for a list on standard input", remedy='Add "-" to the images, or remove it.')

    def __iter__(self) -> Iterator[Path | RemoteImage]:
        return map(location, self.names())

    def count(self, seconds: float = COUNTING_SECONDS) -> int | None:
        """How many there are; None of a list on standard input or of URLs, or if counting takes longer than this."""
        if self.reads_input or self._is_remote:
            return None
        total, end = 0, time.monotonic() + seconds
        for total, _ in enumerate(self.names(), start=1):  # noqa: B007 - the last number is the result
            if time.monotonic() > end:
                return None
        return total

    def names(self) -> Iterator[str]:
        """The same as text, which takes half the time."""
        for path, matches in self._given:
            if path == STANDARD_INPUT:
                for name in read_names(self._input or io.BytesIO(), null=self._null):
                    yield from self._below(name)
            elif matches is None:
                yield from self._below(str(path))
            else:
                for name in matches:
                    yield from self._below(name)

    def _below(self, name: str) -> Iterator[str]:
        """The file itself, or the files of a folder; a folder that cannot be listed itself, which is unreadable."""
        if is_url(name):
            yield from below(name)
            return
        if not Path(name).is_dir():
            yield name
            return
        open_folders = [(name, *self._listed(name))]
        while open_folders:
            folder, names, folders = open_folders[-1]
            if not names:
                open_folders.pop()
                continue
            name = names.pop()
            path = os.path.join(folder, name)  # noqa: PTH118 - of a million files, Paths are made one at a time
            if name not in folders:
                yield path
                continue
            try:
                open_folders.append((path, *self._listed(path)))
            except OSError:
                yield path

    def _listed(self, folder: str) -> tuple[list[str], set[str]]:
        """What a folder contains, the last first, and which of that are folders."""
        names, folders = [], set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in self._left_out.values() and os.path.realpath(entry.path) in self._left_out:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif entry.name.startswith(".") or not _is_file(entry):
                    continue
                names.append(entry.name)
        names.sort(reverse=True)
        return names, folders


def read_names(stream: BinaryIO, *, null: bool) -> Iterator[str]:
    """The paths of a list as they come: lines, or what NUL ends.

    Raises:
        DataError: it is no list of paths.
    """
    end, rest = (b"\0" if null else b"\n"), b""
    while block := _read_some(stream):
        *names, rest = (rest + block).split(end)
        if len(rest) > LONGEST_NAME or (not null and b"\0" in block):
            remedy = (
                "Pass one path per line." if null or b"\0" not in block else "Pass --null if NUL separates the paths."
            )
            raise DataError("Standard input is not a list of paths", remedy=remedy)
        yield from (os.fsdecode(name) for name in (_path(name, null) for name in names) if name)
    if rest := _path(rest, null):
        yield os.fsdecode(rest)


def _path(line: bytes, null: bool) -> bytes:
    return line if null else line.removesuffix(b"\r")


def _read_some(stream: BinaryIO) -> bytes:
    """What is there, and no more: the names of a live list are not waited for."""
    read = getattr(stream, "read1", stream.read)
    block: bytes = read(BLOCK)
    return block


def _matches(path: Path | RemoteImage) -> list[str] | None:
    """What a pattern matches, sorted; None for a path that is none, such as a file whose name looks like one."""
    if isinstance(path, RemoteImage):
        return require_remote(path.url)
    pattern = str(path)
    if path == STANDARD_INPUT or not glob.has_magic(pattern) or os.path.lexists(path):
        return None
    found = sorted(map(Path, glob.iglob(pattern, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if "**" in path.parts:  # it lists what is in the folders, too
        found = [name for name in found if not name.is_dir()]
    if not found:
        raise ConfigError(f"No file matches {pattern}", remedy="Correct the pattern, or pass a folder.")
    return list(map(str, found))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # such as a link to itself: listed, so that it is reported as unreadable
        return True
