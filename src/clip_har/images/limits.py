"""What decoding an image would cost, told from its header, and which cost is too much.

Decoding itself, and every other reason not to read a file, is in decoding.py.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.images import heif

MAX_PIXELS = 128_000_000
"""Pixels per image above which nothing is decoded: room for a 108-megapixel telephone's JPEG, at half size."""

MAX_SIDE = 65_535
"""Pixels on a side above which nothing is decoded: what the JPEG format itself allows."""

MAX_BYTES = 256_000_000
"""Memory that decoding one image may take, as `decoding_bytes` counts; a JPEG that needs more is decoded smaller."""

MAX_FILE_BYTES = 256_000_000
"""Size of a file above which it is not opened."""

MAX_SCANS = 200
"""Passes of a progressive JPEG: encoders write about ten, each costs as much time as the whole image."""

MAX_PLAIN_PIXELS = 4_000_000
"""Pixels of a PPM in decimal numbers, which are read one by one."""

_RGB_BYTES = 4  # per pixel: Pillow pads RGB
_STORED_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # per pixel; 4 in other modes
_LOADING_BYTES = {"WEBP": 18, "AVIF": 12, "TIFF": 12}
"""Per pixel while the format's library works, where it is more than the pixels themselves; measured."""

_READ_WHOLE = frozenset({"PNG", "WEBP", "AVIF", "HEIF"})
"""Formats of which Pillow may hold the whole file; of a PNG a single chunk, which can be nearly all of it."""


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse what is too large whatever it holds.

    Raises:
        UnreadableImageError: too many pixels in all or on a side.
    """
    width, height = size
    if max(width, height) > MAX_SIDE:
        raise UnreadableImageError(f"{width} x {height} pixels, more than {MAX_SIDE} on a side")
    if width * height > max_pixels:
        raise UnreadableImageError(f"{width} x {height} pixels, more than {max_pixels:,} in all")


def check_file(length: int, kind: str) -> int:
    """Return how much memory the file itself takes while it is decoded, in bytes.

    Raises:
        UnreadableImageError: the file is too large to be opened.
    """
    if length > MAX_FILE_BYTES:
        raise UnreadableImageError(f"a file of {length / 1e6:.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f}")
    return length if kind in _READ_WHOLE else 0


def decoding_bytes(image: Image.Image, *, turned: bool, divisor: int = 1) -> int:
    """Return an upper bound of the memory that decoding takes, before anything is decoded.

    Args:
        image: as Pillow opened it.
        turned: whether EXIF says that it lies on its side.
        divisor: a JPEG is decoded at this fraction of its sides.
    """
    pixels = image.width * image.height
    stored = _STORED_BYTES.get(image.mode, 4)
    converted = stored + _conversion_bytes(image) + (_RGB_BYTES if turned else 0)
    loading = heif.loading_bytes(image) if image.format == "HEIF" else _LOADING_BYTES.get(str(image.format), 0)
    if image.format == "JPEG":
        return pixels * _coefficient_bytes(image) + pixels * converted // divisor**2
    return pixels * max(stored, loading, converted)


def check_memory(image: Image.Image, *, turned: bool, file_bytes: int = 0) -> int:
    """Return the divisor of a JPEG's sides at which it is decoded in bounded memory; 1 for what fits as it is.

    Args:
        image: as Pillow opened it.
        turned: whether EXIF says that it lies on its side.
        file_bytes: what the file itself takes.

    Raises:
        UnreadableImageError: it does not fit, or would take very long.
    """
    tiles = getattr(image, "tile", None)
    if tiles and tiles[0][0] == "ppm_plain" and image.width * image.height > MAX_PLAIN_PIXELS:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels as decimal numbers, which takes too long")
    divisors = (1, 2, 4, 8) if image.format == "JPEG" else (1,)
    for divisor in divisors:
        needed = decoding_bytes(image, turned=turned, divisor=divisor) + file_bytes
        if needed <= MAX_BYTES:
            return divisor
    raise UnreadableImageError(
        f"{image.width} x {image.height} pixels, whose decoding as {image.format} takes "
        f"{needed / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}"
    )


def check_scans(image: Image.Image, content: bytes) -> None:
    """Refuse a progressive JPEG of more passes than any encoder makes.

    Args:
        content: the whole file. In compressed data the marker's first byte never stands before this second one.
    """
    scans = content.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise UnreadableImageError(f"a JPEG of {scans} scans, more than {MAX_SCANS}")


def is_progressive(image: Image.Image) -> bool:
    """Whether an opened JPEG comes in passes."""
    return "progressive" in image.info


def _conversion_bytes(image: Image.Image) -> int:
    """Per pixel, on the way from the loaded mode to RGB, without the loaded pixels."""
    if image.has_transparency_data:
        return _RGB_BYTES + 1 + (0 if image.mode == "RGBA" else 4)
    return 0 if image.mode == "RGB" else _RGB_BYTES + 1


def _coefficient_bytes(image: Any) -> int:
    """Per pixel of a progressive JPEG, whose coefficients are all kept until the last pass, at any divisor."""
    if not is_progressive(image):
        return 0
    layers = [(int(horizontal), int(vertical)) for _, horizontal, vertical, _ in image.layer]
    most = max(h for h, _ in layers) * max(v for _, v in layers)
    return -(-2 * sum(h * v for h, v in layers) // most)
