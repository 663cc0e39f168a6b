"""Decoding has bounded memory: told from headers, kept by smaller JPEGs, refused with a reason otherwise."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hostile_images as hostile
from clip_har.errors import UnreadableImageError
from clip_har.images import decode, limits

BYTES_PER_IMAGE = 300e6


def reason_of(content: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(content)
    return caught.value.reason


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        place = jpeg.find(marker)
        if place >= 0:
            return jpeg[: place + 5] + struct.pack(">HH", height, width) + jpeg[place + 9 :]
    raise AssertionError("no frame header")


def test_a_giant_jpeg_is_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile.encode(hostile.photograph(), "JPEG", quality=95)
    pixels = hostile.WIDTH * hostile.HEIGHT
    sizes = {}
    for share in (4, 3.9, 1, 0.9, 0.25, 0.1):
        monkeypatch.setattr(limits, "MAX_BYTES", share * pixels)
        sizes[share] = decode(content).size
    assert sizes == {4: (96, 64), 3.9: (48, 32), 1: (48, 32), 0.9: (24, 16), 0.25: (24, 16), 0.1: (12, 8)}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused_with_what_they_would_take(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile.encode(hostile.photograph(), kind)
    monkeypatch.setattr(limits, "MAX_BYTES", 20_000)
    reason = reason_of(content)
    assert reason.startswith(f"96 x 64 pixels, whose decoding as {kind} takes 0 MB, more than 0")


def test_a_progressive_jpeg_keeps_its_coefficients_at_any_fraction() -> None:
    content = hostile.encode(hostile.photograph(), "JPEG", progressive=True, subsampling=0)
    assert reason_of(with_size(content, 12_000, 9_000)) == (
        "12000 x 9000 pixels, whose decoding as JPEG takes 655 MB, more than 256"
    )


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    content = hostile.encode(hostile.photograph(), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    last_scan = content[start:-2]
    assert decode(content[:-2] + last_scan * 3 + content[-2:]).size == (96, 64)
    assert reason_of(content[:-2] + last_scan * 300 + content[-2:]).endswith("scans, more than 200")


def test_decimal_numbers_are_limited() -> None:
    assert decode(b"P3 2 1 255 1 2 3 4 5 6").size == (2, 1)
    assert reason_of(b"P3 3000 2000 255 1 2 3") == "3000 x 2000 pixels as decimal numbers, which takes too long"


def test_the_file_itself_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile.encode(hostile.photograph(), "PNG")
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    assert reason_of(content).startswith("a file of 0 MB, more than 0")


def large_files() -> dict[str, Callable[[], bytes]]:
    """Photographs of 9 megapixels in the forms that cost most per pixel, and a JPEG of 108 megapixels."""
    width, height = 3600, 2500
    picture = hostile.photograph().resize((width, height))
    turned = picture.copy()
    turned.info["exif"] = hostile.orientation_exif(6).tobytes()
    grey16 = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)

    def telephone() -> bytes:
        stream = io.BytesIO()
        Image.new("L", (12_000, 9_000), 99).save(stream, "JPEG", exif=hostile.orientation_exif(6))
        return stream.getvalue()

    return {
        "108 megapixels.jpg": telephone,
        "progressive.jpg": lambda: hostile.encode(picture, "JPEG", progressive=True, subsampling=0),
        "cmyk turned.jpg": lambda: hostile.encode(picture.convert("CMYK"), "JPEG", exif=hostile.orientation_exif(5)),
        "grey and alpha.png": lambda: hostile.encode(picture.convert("LA"), "PNG", compress_level=1),
        "sixteen bits.png": lambda: hostile.encode(grey16, "PNG", compress_level=1),
        "one strip.tiff": lambda: hostile.encode(
            picture, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: height}
        ),
        "lossless.webp": lambda: hostile.encode(picture.convert("RGBA"), "WEBP", lossless=True, quality=0, method=0),
        **(
            {"telephone turned.heic": lambda: hostile.encode_heic(turned, quality=40, chroma=444)}
            if hostile.HEIC
            else {}
        ),
    }


MEASURE = """
import sys
from pathlib import Path
from clip_har.errors import UnreadableImageError
from clip_har.images import decode, limits
from PIL import Image
import fuzzing
for name in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = fuzzing.memory("VmRSS")
    try:
        decode(Path(name))
        outcome = "decoded"
    except UnreadableImageError as error:
        outcome = error.reason
    print(fuzzing.memory("VmHWM") - before, outcome, sep="\\t")
"""


@pytest.mark.slow  # draws and decodes large images
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux tells it")
def test_no_image_needs_more_than_300_megabytes(tmp_path: Path) -> None:
    hostile.write_hostile_images(tmp_path)
    large = large_files()
    for name, content in large.items():
        (tmp_path / name).write_bytes(content())
    paths = sorted(tmp_path.iterdir())
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    outcomes = dict(
        zip((path.name for path in paths), (line.split("\t") for line in done.stdout.splitlines()), strict=True)
    )
    assert len(outcomes) == len(paths)
    assert {name for name, (_, outcome) in outcomes.items() if outcome != "decoded"} == set(hostile.UNREADABLE)
    for name, (added, _) in outcomes.items():
        assert int(added) < BYTES_PER_IMAGE, name
