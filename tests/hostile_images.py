"""Small images as they come from the web: odd but valid ones, damaged ones, and files that are no images.

Everything is drawn or assembled here from a seed; what decoding must make of it is in test_images.py.
"""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 96, 64
HEIC = find_spec("pillow_heif") is not None

UNREADABLE = {
    "zero_bytes.jpg": "empty file",
    "truncated_header.jpg": "ends early (truncated JPEG)",
    "truncated_half.jpg": "ends early (truncated JPEG)",
    "bit_flipped.jpg": "corrupt or unusual JPEG",
    "html_error_page.jpg": "not an image but an HTML page",
    "random_bytes.png": "not an image but unknown data",
    "decompression_bomb.png": "too many pixels",
    "notes.txt": "not an image but text",
    "Thumbs.db": "not an image but a Windows system file",
    "lfs_pointer.jpg": "not an image but a Git LFS pointer",
    "telephone.heic": "corrupt or unusual HEIF"
    if HEIC
    else "not an image but a HEIC image, which requires pip install",
    "clip.mp4": "not an image but a video",
    "drawing.svg": "not an image but an SVG drawing",
}
"""File names, and how the reason starts for which each cannot be read."""


def photograph_pixels() -> Pixels:
    """Return the picture that all valid files show, HWC: smooth, coloured, four different corners."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    red, green, blue = columns * 2, rows * 3, 255 - columns - rows
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def photograph() -> Image.Image:
    return Image.fromarray(photograph_pixels())


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file's bytes; `options` are those of Pillow's writer."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def encode_heic(image: Image.Image, **options: Any) -> bytes:
    """The same as HEIC, turned as iPhones turn it; its writer is not registered with Pillow, as the reader is not."""
    from pillow_heif.as_plugin import _save_heif

    stream, copy = io.BytesIO(), image.copy()
    copy.encoderinfo = options
    _save_heif(copy, stream, "")
    return stream.getvalue()


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored_as(pixels_HWC: Pixels, orientation: int) -> Pixels:
    """Return how a camera that writes this EXIF orientation stores a picture: the naive reference."""
    turned = {
        1: pixels_HWC,
        2: pixels_HWC[:, ::-1],
        3: pixels_HWC[::-1, ::-1],
        4: pixels_HWC[::-1],
        5: pixels_HWC.swapaxes(0, 1),
        6: np.rot90(pixels_HWC, 1),
        7: pixels_HWC[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels_HWC, -1),
    }
    return np.ascontiguousarray(turned[orientation])


def png_header(width: int, height: int) -> bytes:
    """Return a 1-bit greyscale PNG of that size which holds a single row of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = zlib.compress(bytes(1 + width // 8))
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", row) + _png_chunk(b"IEND", b"")


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def valid_colour_files() -> dict[str, bytes]:
    """Return files that show the photograph in colour, whatever their name and encoding."""
    picture = photograph()
    jpeg = encode(picture, "JPEG", quality=95)
    opaque = picture.convert("RGBA")
    turned = Image.fromarray(stored_as(photograph_pixels(), 6))
    return {
        "plain.jpg": jpeg,
        "UPPERCASE.JPG": jpeg,
        "name with spaces & ünïcode 你好.jpg": jpeg,
        "no_extension": jpeg,
        ".hidden.jpg": jpeg,
        "progressive.jpg": encode(picture, "JPEG", quality=95, progressive=True),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG", quality=95),
        "exif_rotated_6.jpg": encode(turned, "JPEG", quality=95, exif=orientation_exif(6)),
        "rgba_jpeg_name.jpg": encode(opaque, "PNG"),
        "palette.gif": encode(picture.quantize(256), "GIF"),
        "animated.gif": encode(
            picture.quantize(256),
            "GIF",
            save_all=True,
            append_images=[ImageOps.invert(picture).quantize(256)],
        ),
        "photo.webp": encode(picture, "WEBP", quality=95),
        "bitmap.bmp": encode(picture, "BMP"),
        "tiff_image.tiff": encode(picture, "TIFF"),
        "lzw.tiff": encode(picture, "TIFF", compression="tiff_lzw"),
        "cmyk.tiff": encode(picture.convert("CMYK"), "TIFF"),
        "pixmap.ppm": encode(picture, "PPM"),
    }


def valid_grey_files() -> dict[str, bytes]:
    """Return files that show the photograph in shades of grey."""
    grey = photograph().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return {
        "grayscale.jpg": encode(grey, "JPEG", quality=95),
        "gray_alpha.png": encode(grey.convert("LA"), "PNG"),
        "sixteen_bit.png": encode(deep, "PNG"),
        "sixteen_bit.tiff": encode(deep, "TIFF"),
        "float.tiff": encode(Image.fromarray(np.asarray(grey).astype(np.float32) / 255), "TIFF"),
    }


def odd_shapes() -> dict[str, bytes]:
    """Return valid files of extreme shape."""
    return {
        "one_pixel.png": encode(Image.new("RGB", (1, 1), "red"), "PNG"),
        "very_wide.png": encode(Image.new("RGB", (2000, 3), "red"), "PNG"),
    }


def unreadable_files() -> dict[str, bytes]:
    """Return a file for each entry of UNREADABLE."""
    jpeg = encode(photograph(), "JPEG", quality=95)
    pixels_start = jpeg.index(b"\xff\xda") + 14
    flipped = jpeg[: pixels_start + 40] + b"\xff\xc4\x00\x04" + jpeg[pixels_start + 44 :]
    return {
        "zero_bytes.jpg": b"",
        "truncated_header.jpg": jpeg[:60],
        "truncated_half.jpg": jpeg[: len(jpeg) // 2],
        "bit_flipped.jpg": flipped,
        "html_error_page.jpg": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>",
        "random_bytes.png": b"\xcd\x07" + np.random.default_rng(0).bytes(2000),
        "decompression_bomb.png": png_header(40_000, 40_000),
        "notes.txt": b"buy milk\n",
        "Thumbs.db": b"\xd0\xcf\x11\xe0junk",
        "lfs_pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "telephone.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
        "clip.mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp41" + bytes(100),
        "drawing.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    }


def write_hostile_images(folder: Path) -> dict[str, Path]:
    """Write every file into a folder and return the paths by file name."""
    files = valid_colour_files() | valid_grey_files() | odd_shapes() | unreadable_files()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}
