"""HEIC images: read within the limits of all formats if pillow-heif is installed, refused with the remedy otherwise."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hostile_images as hostile
from clip_har.dataset import load_dataset
from clip_har.errors import UnreadableImageError
from clip_har.images import Preprocessing, decode, decode_batches, heif, limits, sniff
from clip_har.images.decoding import header_size
from image_folders import fill_classes

HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
REFUSED = 'not an image but a HEIC image, which requires pip install "clip-har[heic]"'
installed = pytest.mark.skipif(not hostile.HEIC, reason="pillow-heif is not installed")


@pytest.fixture
def without_pillow_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heif.reader.cache_clear()
    yield
    heif.reader.cache_clear()


def reason_of(content: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(content)
    return caught.value.reason


def with_size(content: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header (ISO/IEC 23008-12, section 6.5.3)."""
    place = content.index(b"ispe") + 8
    return content[:place] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[place + 8 :]


@pytest.mark.usefixtures("without_pillow_heif")
def test_without_pillow_heif_each_image_is_refused_with_the_command_that_installs_it(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 4, "sitting": 4})
    (tmp_path / "running" / "IMG_1.HEIC").write_bytes(HEAD + bytes(100))
    dataset = load_dataset(tmp_path)
    assert [(item.name, item.reason) for item in dataset.unreadable] == [("running/IMG_1.HEIC", REFUSED)]
    assert len(dataset.records) == 8
    assert reason_of(HEAD) == REFUSED and sniff(tmp_path / "running" / "IMG_1.HEIC") is None


@installed
def test_a_heic_image_is_decoded_upright_whatever_its_name_is(tmp_path: Path) -> None:
    picture = hostile.photograph()
    path = tmp_path / "photo.jpg"
    path.write_bytes(hostile.encode_heic(picture, quality=95))
    assert sniff(path) == "HEIF" and header_size(path) == (hostile.WIDTH, hostile.HEIGHT)
    decoded = decode(path)
    assert (decoded.mode, decoded.info) == ("RGB", {})
    expected = hostile.photograph_pixels().astype(int)
    assert np.abs(np.asarray(decoded) - expected).mean() < 3

    picture.info["exif"] = hostile.orientation_exif(6).tobytes()
    turned = decode(hostile.encode_heic(picture, quality=95))
    assert np.abs(np.asarray(turned) - np.rot90(expected, -1)).mean() < 3


@installed
def test_transparent_parts_are_white() -> None:
    picture = hostile.photograph().convert("RGBA")
    picture.putalpha(0)
    assert np.asarray(decode(hostile.encode_heic(picture, quality=95))).min() > 250


@installed
def test_pillow_itself_is_left_as_it_was() -> None:
    content = hostile.encode_heic(hostile.photograph())
    decode(content)
    assert "HEIF" not in Image.OPEN
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(content))
    assert limits.check_file(1000, "HEIF") == 1000, "libheif holds the whole file"


@installed
def test_damaged_and_forged_files_are_refused_before_they_cost_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile.encode_heic(hostile.photograph().resize((640, 480)))
    assert reason_of(content[:-100]) == "ends early (truncated HEIF)"
    assert reason_of(HEAD + bytes(100)).startswith("corrupt or unusual HEIF")
    assert reason_of(with_size(content, 70_000, 8)) == "70000 x 8 pixels, more than 65535 on a side"
    assert reason_of(with_size(content, 6000, 6000)) == (
        "6000 x 6000 pixels, whose decoding as HEIF takes 360 MB, more than 256"
    )
    assert "Security limit exceeded" in reason_of(with_size(content, 16, 16))
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    assert reason_of(content).startswith("a file of 0 MB, more than 0")


@installed
@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_and_its_workers_read_heic(workers: int, tmp_path: Path) -> None:
    for label in ("running", "sitting"):
        for number in range(4):
            path = tmp_path / label / f"IMG_{number}.HEIC"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(hostile.encode_heic(hostile.photograph().rotate(number + 10 * len(label))))
    dataset = load_dataset(tmp_path)
    assert len(dataset.records) == 8 and not dataset.unreadable
    model = Preprocessing(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    paths = [record.path for record in dataset.records]
    batches = list(decode_batches(paths, model.pixel_transform(), batch_size=4, workers=workers))
    assert [index for batch in batches for index in batch.indices] == list(range(8))
    assert not any(batch.unreadable for batch in batches)
