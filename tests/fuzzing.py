"""Damaged relatives of valid images of every type, by number, and a script that decodes a range of them.

    python tests/fuzzing.py KIND FIRST LAST

What must become of them is in test_fuzz_images.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

import hostile_images as hostile
from clip_har.errors import UnreadableImageError
from clip_har.images import Preprocessing, decode

MODEL = Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _grey16() -> Image.Image:
    return Image.fromarray(np.asarray(hostile.photograph().convert("L")).astype(np.uint16) * 257)


def _interlaced_gif(picture: Image.Image) -> bytes:
    return hostile.encode(picture.quantize(64), "GIF", interlace=True)


VALID: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda picture: hostile.encode(picture, "JPEG", quality=90),
    "jpeg-progressive": lambda picture: hostile.encode(picture, "JPEG", progressive=True),
    "jpeg-grey": lambda picture: hostile.encode(picture.convert("L"), "JPEG"),
    "jpeg-cmyk": lambda picture: hostile.encode(picture.convert("CMYK"), "JPEG"),
    "jpeg-exif": lambda picture: hostile.encode(picture, "JPEG", exif=hostile.orientation_exif(6)),
    "png": lambda picture: hostile.encode(picture, "PNG"),
    "png-palette": lambda picture: hostile.encode(picture.quantize(32), "PNG", transparency=0),
    "png-alpha": lambda picture: hostile.encode(picture.convert("RGBA"), "PNG"),
    "png-16": lambda _: hostile.encode(_grey16(), "PNG"),
    "webp": lambda picture: hostile.encode(picture, "WEBP", quality=80),
    "webp-lossless": lambda picture: hostile.encode(picture.convert("RGBA"), "WEBP", lossless=True),
    "gif": lambda picture: hostile.encode(picture.quantize(64), "GIF"),
    "gif-animated": lambda picture: hostile.encode(
        picture.quantize(64), "GIF", save_all=True, append_images=[picture.rotate(90).quantize(64)]
    ),
    "gif-interlaced": _interlaced_gif,
    "bmp": lambda picture: hostile.encode(picture, "BMP"),
    "bmp-palette": lambda picture: hostile.encode(picture.quantize(16), "BMP"),
    "tiff": lambda picture: hostile.encode(picture, "TIFF"),
    "tiff-lzw": lambda picture: hostile.encode(picture, "TIFF", compression="tiff_lzw"),
    "tiff-float": lambda _: hostile.valid_grey_files()["float.tiff"],
    "ppm": lambda picture: hostile.encode(picture, "PPM"),
    **({"heic": lambda picture: hostile.encode_heic(picture, quality=80)} if hostile.HEIC else {}),
}
"""Type -> what writes a valid file of it."""


def damaged(kind: str, number: int) -> bytes:
    """Return the file that this number gives: bits flipped, bytes set, parts cut, doubled, moved or zeroed."""
    random = Random(f"{kind}/{number}")
    content = bytearray(VALID[kind](hostile.photograph()))
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        random.choice(DAMAGES)(content, random)
    return bytes(content)


def _place(content: bytearray, random: Random) -> int:
    """Return a place in the file; half the time in its header."""
    end = len(content) if random.random() < 0.5 else min(len(content), 128)
    return random.randrange(max(1, end))


def _flip(content: bytearray, random: Random) -> None:
    if content:
        content[_place(content, random)] ^= 1 << random.randrange(8)


def _set(content: bytearray, random: Random) -> None:
    if content:
        content[_place(content, random)] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])


def _set_word(content: bytearray, random: Random) -> None:
    """Sizes and counts are words; the extreme ones are what overflows."""
    start = _place(content, random)
    content[start : start + 4] = random.choice([b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3, random.randbytes(4)])


def _cut(content: bytearray, random: Random) -> None:
    del content[_place(content, random) :]


def _remove(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    del content[start : start + random.choice([1, 2, 4, 64])]


def _double(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    part = content[start : start + random.choice([1, 16, 256])]
    content[start:start] = part * random.choice([1, 2, 50])


def _zero(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    length = len(content[start : start + random.choice([8, 64, 512])])
    content[start : start + length] = bytes(length)


DAMAGES = (_flip, _set, _set_word, _cut, _remove, _double, _zero)


def outcome(content: bytes) -> str:
    """Decode a file and make a model's pixels of it: "decoded", or the reason why not. Anything else is raised."""
    try:
        image = decode(content, enough_side=64)
    except UnreadableImageError as error:
        assert 0 < len(error.reason) < 130 and "\n" not in error.reason
        return error.reason
    assert image.mode == "RGB" and not image.info
    assert MODEL.transform()(image).isfinite().all()
    return "decoded"


def memory(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def main(kind: str, first: int, last: int) -> None:
    """Print the number of each case before it is tried, then the slowest case's seconds and the memory added."""
    outcome(VALID[kind](hostile.photograph()))
    before, slowest = memory("VmRSS"), 0.0
    for number in range(first, last):
        print(number, flush=True)
        content, started = damaged(kind, number), time.perf_counter()
        outcome(content)
        slowest = max(slowest, time.perf_counter() - started)
    print(f"{slowest:.3f} {memory('VmHWM') - before}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
