"""Which type of image a file is by its first bytes, and how it is opened; its name is not believed.

Decoding is in decoding.py.
"""

from __future__ import annotations

import codecs
import io
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from clip_har.errors import UnreadableImageError
from clip_har.failures import is_exhausted
from clip_har.images import heif
from clip_har.images.addresses import ImageAddress, PackedImage, ParquetImage
from clip_har.images.remote import Fetching, RemoteImage

ImageSource: TypeAlias = ImageAddress | RemoteImage | Fetching | bytes | BinaryIO
"""What an image can be read from."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes, lower case, by which a file claims to be an image; some claim it in vain (see `sniff`)."""
_HEAD_BYTES = 512
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_BMP_HEADER_BYTES = frozenset({12, 40, 52, 56, 64, 108, 124})
_LOOKS_LIKE = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xd0\xcf\x11\xe0": "a Windows system file or an old Office document",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image, which is not supported",
    b"8BPS": "a Photoshop document",
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the image)",
}


def sniff(path: ImageAddress) -> str | None:
    """Tell an image's format by its content, whatever its name says.

    Args:
        path: any file, of which only the first few hundred bytes are read, or an image inside one.

    Returns:
        Pillow's name of the format ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "HEIF"), or None
        when the content is of no format that `decode` reads; so is HEIF without pillow-heif.

    Raises:
        UnreadableImageError: the file is missing, not a regular file, or may not be read.
    """
    with open_source(path) as stream:
        return sniff_head(read_head(stream))


def sniff_head(head: bytes) -> str | None:
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    brands = _container_brands(head)
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & heif.BRANDS and heif.reader() is not None:
        return "HEIF"
    if re.match(rb"P[1-6]\s+[\d#]", head):
        return "PPM"
    return None


def _container_brands(head: bytes) -> set[bytes]:
    """Return the brands that an ISO base media file (AVIF, HEIC, MP4) declares in its first box."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12]} | {head[start : start + 4] for start in range(16, end, 4)}


def describe(head: bytes) -> str:
    """Say in a few words what a file that is no image looks like."""
    for signature, description in _LOOKS_LIKE.items():
        if head.startswith(signature):
            return description
    brands = _container_brands(head)
    if brands:
        heic = brands & heif.BRANDS
        return 'a HEIC image, which requires pip install "clip-har[heic]"' if heic else "a video"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return "unknown data"
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page"
    if "<svg" in start:
        return "an SVG drawing"
    if start.startswith("<?xml"):
        return "an XML document"
    return "text" if all(character.isprintable() or character.isspace() for character in text) else "unknown data"


@contextmanager
def open_source(source: ImageSource) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, PackedImage | ParquetImage | RemoteImage | Fetching):
        yield io.BytesIO(source.read())
    elif isinstance(source, Path):
        with _open_file(source) as stream:
            yield stream
    elif source.seekable():
        yield source
    else:
        yield io.BytesIO(source.read())


def _open_file(path: Path) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImageError("a directory, not a file")
        if not stat.S_ISREG(mode):  # a named pipe would block for ever
            raise UnreadableImageError("not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise UnreadableImageError("no such file") from error
    except PermissionError as error:
        raise UnreadableImageError("permission denied") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if is_exhausted(error):  # not the image's fault: it must not be skipped for it
            raise
        raise UnreadableImageError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def read_head(stream: BinaryIO) -> bytes:
    try:
        stream.seek(0)
        return stream.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
