"""Where an image is: a file of its own, or a place inside a larger file (a tar archive, an Arrow or Parquet table).

What its bytes mean is in decoding.py; which images a dataset has, and where, is found in dataset/sources/.
"""

from __future__ import annotations

import functools
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from clip_har.errors import UnreadableImageError, first_line
from clip_har.images.parquet import image_values

MAX_PACKED_BYTES = 128 * 1024 * 1024
"""Bytes of one image inside a larger file above which it is not read: it is read whole."""

_ROW_GROUPS_KEPT = 2
_reading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedImage:
    """An image that is some consecutive bytes of a file."""

    file: Path
    start: int
    """Bytes of the file before the image."""
    length: int
    """Bytes of the image."""

    def read(self) -> bytes:
        """The image's bytes.

        Raises:
            UnreadableImageError: the file cannot be read, or ends before the image does.
        """
        if self.length > MAX_PACKED_BYTES:
            raise UnreadableImageError(f"more than {MAX_PACKED_BYTES:,} bytes inside a larger file")
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.start)
                content = stream.read(self.length)
        except OSError as error:
            raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
        if len(content) < self.length:
            raise UnreadableImageError(f"{self.file.name} ends early")
        return content

    def __str__(self) -> str:
        return f"{self.file}#bytes={self.start}+{self.length}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetImage:
    """An image in a column of a Parquet file, whose pages are packed and cannot be read in place."""

    file: Path
    column: str
    """A binary column, or one of structs with the field "bytes"."""
    row_group: int
    row: int
    """Row in the row group."""

    def read(self) -> bytes:
        """The image's bytes. The whole row group is read, and the last two are kept.

        Raises:
            UnreadableImageError: the file cannot be read, or the row contains no image.
        """
        try:
            with _reading:  # one reader at a time: neighbours are in the same row group
                value = _row_group(self.file, self.column, self.row_group)[self.row]
        except (OSError, ValueError, IndexError, KeyError) as error:  # pyarrow's errors are ValueErrors
            raise UnreadableImageError(
                f"cannot be read from {self.file.name}: {first_line(error, longest=80)}"
            ) from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise UnreadableImageError("the row contains no image")
        if len(content) > MAX_PACKED_BYTES:
            raise UnreadableImageError(f"more than {MAX_PACKED_BYTES:,} bytes inside a larger file")
        return bytes(content)

    def __str__(self) -> str:
        return f"{self.file}#row={self.row_group}+{self.row}@{self.column}"


ImageAddress: TypeAlias = Path | PackedImage | ParquetImage
"""Where an image is. All kinds can be pickled, compared and written as text."""

_BYTES = re.compile(r"(?P<file>.+)#bytes=(?P<start>\d+)\+(?P<length>\d+)", re.DOTALL)
_ROW = re.compile(r"(?P<file>.+)#row=(?P<group>\d+)\+(?P<row>\d+)@(?P<column>.+)", re.DOTALL)


def address_text(address: ImageAddress, folder: Path) -> str:
    """An address as a table in `folder` names it: relative where the file is below the folder, else absolute."""
    file = address if isinstance(address, Path) else address.file
    written = (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
    return written + ("" if isinstance(address, Path) else str(address).removeprefix(str(file)))


def parse_address(text: str, folder: Path) -> ImageAddress:
    """What `address_text` wrote, for a table in `folder`."""
    if "#" in text and not (folder / text).exists():
        if match := _BYTES.fullmatch(text):
            return PackedImage(file=folder / match["file"], start=int(match["start"]), length=int(match["length"]))
        if match := _ROW.fullmatch(text):
            group, row = int(match["group"]), int(match["row"])
            return ParquetImage(file=folder / match["file"], column=match["column"], row_group=group, row=row)
    return folder / text


def file_of(address: ImageAddress) -> Path:
    """The file that is there if the image is."""
    return address if isinstance(address, Path) else address.file


@functools.lru_cache(maxsize=_ROW_GROUPS_KEPT)
def _row_group(file: Path, column: str, row_group: int) -> list[Any]:
    return image_values(file, column, row_group)
