"""From an image file, or its bytes, to an upright 8-bit RGB image, or to the reason why there is none.

What a backbone makes of the image is in preprocessing.py, reading many at once in batches.py.
"""

from __future__ import annotations

import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from clip_har.errors import UnreadableImageError, first_line
from clip_har.images import heif, limits
from clip_har.images.addresses import ImageAddress
from clip_har.images.formats import ImageSource, describe, open_source, read_head, sniff_head
from clip_har.images.limits import MAX_PIXELS, check_size

TRUNCATED_WARNING = "ends early; the missing part is grey"

_STRIP_PIXELS = 1_000_000
_END_OF_JPEG = b"\xff\xd9"
_TRUNCATED = re.compile("truncated|unexpected end of file", flags=re.IGNORECASE)  # Pillow, libheif
_UPRIGHT = {  # EXIF tag 0x0112, CIPA DC-008 section 4.6.4 -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# What kind of file it is


# From bytes to an upright RGB image


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image, and what is wrong with it although it could be read."""

    image: Image.Image
    """RGB, upright, 8 bits per channel."""

    warning: str | None
    """Why part of the image is missing, or None when all of it is there."""


def decode(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    enough_pixels: int | None = None,
    enough_side: int | None = None,
) -> Image.Image:
    """Decode the first frame of an image file, upright, on white where it is transparent.

    Greyscale, palette, CMYK and 16-bit images become 8-bit RGB. Memory is bounded (see limits.py): a JPEG that
    would need more comes at a fraction of its size, other formats are refused. No global setting of Pillow's is
    changed, so any number of threads may decode at once.

    Args:
        source: a file, a place inside one, its bytes, or a binary stream, which is read from its start and left open.
        max_pixels: width times height above which nothing is decoded; checked before pixels are allocated.
        enough_pixels: width times height that will do. A JPEG may then come at 1/2, 1/4 or 1/8 of its sides, if that
            still is as much: several times faster, with pixels that differ a little from a resized image's.
        enough_side: the same for the pixels of the shorter side, and only by what divides both sides, so that nothing
            is shifted; where both are given, both must hold.

    Returns:
        A plain RGB image without metadata.

    Raises:
        UnreadableImageError: it is not an image, ends early, is damaged, too large, or cannot be opened.
    """
    with open_source(source) as stream:
        return _decode_stream(stream, max_pixels, _Enough(enough_pixels, enough_side))


def header_size(path: ImageAddress) -> tuple[int, int]:
    """Return an image's width and height as stored, which EXIF may swap; nothing is decoded.

    Raises:
        UnreadableImageError: it has no readable header.
    """
    with open_source(path) as stream, _quiet_pillow():
        kind = sniff_head(read_head(stream))
        if kind is None or not _can_decode(kind):
            raise UnreadableImageError("not an image")
        try:
            limits.check_file(_length(stream), kind)
            return _open(stream, kind).size
        except Exception as error:  # whatever Pillow's plugins raise on damaged headers
            raise UnreadableImageError(f"corrupt {kind} header") from error


def decode_lenient(source: ImageSource, *, max_pixels: int = MAX_PIXELS, enough_side: int | None = None) -> Decoded:
    """Decode like `decode`, but take what there is of a JPEG that ends early.

    For showing one photograph to a model, with the warning next to the answer; not for training or scores.

    Raises:
        UnreadableImageError: as for `decode`, except for a JPEG that ends after its header.
    """
    enough = _Enough(None, enough_side)
    with open_source(source) as stream:
        try:
            return Decoded(image=_decode_stream(stream, max_pixels, enough), warning=None)
        except UnreadableImageError as error:
            if error.reason != _ends_early("JPEG"):
                raise
            stream.seek(0)
            # The end marker makes the decoder fill up with grey; without, a progressive JPEG shows nothing.
            completed = io.BytesIO(stream.read() + _END_OF_JPEG)
        return Decoded(image=_decode_stream(completed, max_pixels, enough), warning=TRUNCATED_WARNING)


def from_pillow(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """What `decode` would make of an image that is already open: its first frame, RGB, upright, on white.

    Raises:
        UnreadableImageError: it is too large, or its file turns out to be damaged.
    """
    with _quiet_pillow():
        try:
            check_size(image.size, max_pixels)
            orientation = _orientation(image)
            rgb = _to_rgb(image.copy())
            upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
        except UnreadableImageError:
            raise
        except Exception as error:  # Pillow reads the pixels only now
            raise UnreadableImageError(f"cannot be read: {first_line(error, longest=80)}") from error
    upright.info = {}
    return upright


class _Enough(NamedTuple):
    """What size will do; None is no limit, and without any nothing is enough."""

    pixels: int | None
    side: int | None

    def allows(self, size: tuple[int, int], divisor: int) -> bool:
        """Whether an image of this size, its sides divided by this, would do."""
        width, height = size[0] // divisor, size[1] // divisor
        if self.side is not None and (min(width, height) < self.side or size[0] % divisor or size[1] % divisor):
            return False
        if self.pixels is not None and width * height < self.pixels:
            return False
        return self != _Enough(None, None) and min(width, height) > 0


def _decode_stream(stream: BinaryIO, max_pixels: int, enough: _Enough) -> Image.Image:
    head = read_head(stream)
    kind = sniff_head(head)
    if not head:
        raise UnreadableImageError("empty file")
    if kind is None:
        raise UnreadableImageError(f"not an image but {describe(head)}")
    if not _can_decode(kind):
        raise UnreadableImageError(f"{kind}, which the installed Pillow cannot decode")
    with _quiet_pillow():
        try:
            file_bytes = limits.check_file(_length(stream), kind)
            image = _open(stream, kind)
            check_size(image.size, max_pixels)
            if limits.is_progressive(image):
                limits.check_scans(image, _content(stream))
            divisor = limits.check_memory(image, turned=_orientation(image) in _UPRIGHT, file_bytes=file_bytes)
            _shrink_on_load(image, enough, divisor)
            image.load()
            orientation = _orientation(image)
            image = _to_rgb(image)
            if orientation in _UPRIGHT:
                image = image.transpose(_UPRIGHT[orientation])
        except UnreadableImageError:
            raise
        except Exception as error:  # on damaged files Pillow's plugins raise nearly every type there is
            raise UnreadableImageError(_reason(error, kind, head, stream)) from error
    image.info = {}  # an EXIF orientation left behind would turn the image again at the next reader
    return image


def _open(stream: BinaryIO, kind: str) -> Image.Image:
    reader = heif.reader() if kind == "HEIF" else None
    if reader is None:
        return Image.open(stream, formats=(kind,))
    stream.seek(0)
    return reader(stream)


def _length(stream: BinaryIO) -> int:
    place = stream.tell()
    length = stream.seek(0, io.SEEK_END)
    stream.seek(place)
    return length


def _content(stream: BinaryIO) -> bytes:
    """Return the whole file, and leave the stream where it was."""
    place = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(place)
    return content


@functools.cache
def _can_decode(kind: str) -> bool:
    if kind == "HEIF":
        return heif.reader() is not None
    Image.init()
    # A logger without a handler prints errors to the terminal.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    return kind in Image.OPEN and kind in Image.SAVE  # SAVE: only with the format's library


def _shrink_on_load(image: Image.Image, enough: _Enough, least: int) -> None:
    """Make a JPEG's decoder omit the high frequencies of each 8 x 8 block; other formats cannot.

    Args:
        least: the divisor of both sides that memory asks for.
    """
    for divisor in (8, 4, 2):
        if divisor == least or enough.allows(image.size, divisor):
            image.draft(None, (max(1, image.width // divisor), max(1, image.height // divisor)))
            return


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; read after the pixels, because a TIFF turns itself upright on loading."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata of any kind costs the rotation, not the photograph
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = _to_eight_bits(image)
    if not image.has_transparency_data:
        # A plain image of the same pixels: convert would copy them, which is a lot of memory for large photographs.
        return image._new(image.im) if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    on_white = Image.new("RGB", rgba.size, "white")
    on_white.paste(rgba, mask=rgba.getchannel("A"))
    return on_white


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale a deep greyscale image to 8 bits, strip by strip; Pillow's own conversion would clip it to white."""
    rows = max(1, _STRIP_PIXELS // image.width)
    boxes = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    full_scales = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    brightest = max(float(_grey_strip(image, box).max()) for box in boxes)
    full_scale = next((scale for scale in full_scales if brightest <= scale), brightest)
    scaled = Image.new("L", image.size)
    for box in boxes:
        strip_HW = np.rint(np.clip(_grey_strip(image, box), 0, full_scale) * (255.0 / full_scale)).astype(np.uint8)
        scaled.paste(Image.fromarray(strip_HW), box[:2])
    return scaled


def _grey_strip(image: Image.Image, box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image.crop(box)).astype(np.float32))


# Why a file cannot be read


def _reason(error: Exception, kind: str, head: bytes, stream: BinaryIO) -> str:
    message = first_line(error)
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels, perhaps a decompression bomb"
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror or message}"
    if isinstance(error, EOFError) or _TRUNCATED.search(message) or _parsed_to_end(error, kind, head, stream):
        return _ends_early(kind)
    if isinstance(error, UnidentifiedImageError):
        return f"corrupt {kind} header"
    return f"corrupt or unusual {kind} ({message.removesuffix(' when reading image file')[:80]})"


def _ends_early(kind: str) -> str:
    return f"ends early (truncated {kind})"


def _parsed_to_end(error: Exception, kind: str, head: bytes, stream: BinaryIO) -> bool:
    """Tell whether the file ended while its header was being read, which Pillow does not report."""
    if kind == "WEBP":
        return stream.seek(0, io.SEEK_END) < int.from_bytes(head[4:8], "little") + 8
    return kind != "AVIF" and isinstance(error, UnidentifiedImageError) and not stream.read(1)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings off the terminal, and touch nobody else's.

    `warnings.catch_warnings` replaces the whole list of filters and so is not for threads; adding one entry
    per decoding, all of them equal, and taking one away is.
    """
    entry = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    cast("list[Any]", warnings.filters).insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(entry)


# Opening
