"""HEIC and HEIF, the photographs of iPhones, read by pillow-heif where it is installed.

Telling the format is in formats.py; the limits are in limits.py, and hold before anything is decoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import Image

BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""What a file's first box declares (ISO/IEC 23008-12, annex B); AVIF has brands of its own next to mif1."""


@functools.cache
def reader() -> Callable[[BinaryIO], Image.Image] | None:
    """What opens a file without decoding it, or None where pillow-heif is not installed.

    It is not registered with Pillow, whose list of formats belongs to the whole process.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        return None
    opened: Callable[[BinaryIO], Image.Image] = HeifImageFile
    return opened


def loading_bytes(image: Any) -> int:
    """Per pixel while it is decoded: the planes of libheif, its RGB, and Pillow's copy; measured.

    libheif refuses what is larger than the header says, so that this is a bound for forged headers too.
    """
    deep = image.info.get("bit_depth", 8) > 8
    return (16 if deep else 10) + (2 if image.has_transparency_data else 0)
