"""Decoding, preprocessing and batching of images: odd ones come out right, bad ones with their reason.

The odd and the bad ones are generated in hostile_images.py.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageFile
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

import hostile_images as hostile
from clip_har.errors import ConfigError, UnreadableImageError
from clip_har.images import (
    IMAGE_SUFFIXES,
    MAX_SIDE,
    TRUNCATED_WARNING,
    DecodedBatch,
    Preprocessing,
    decode,
    decode_batches,
    decode_lenient,
    sniff,
)

KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "GIF": {},
    "WEBP": {},
    "BMP": {},
    "TIFF": {},
    "PPM": {},
}


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    hostile.write_hostile_images(tmp_path)
    return tmp_path


def reason_of(source: Path | bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(source)
    return caught.value.reason


def difference(image: Image.Image, expected_HWC: hostile.Pixels) -> float:
    """Return the mean absolute difference in grey levels."""
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert image.size == (expected_HWC.shape[1], expected_HWC.shape[0])
    return float(np.abs(np.asarray(image).astype(float) - expected_HWC).mean())


# Decoding what is odd but valid


@pytest.mark.parametrize("name", hostile.valid_colour_files())
def test_odd_files_show_the_upright_photograph(hostile_folder: Path, name: str) -> None:
    image = decode(hostile_folder / name)
    assert difference(image, hostile.photograph_pixels()) < (4 if name.endswith(".gif") else 1.5)
    assert not image.info


@pytest.mark.parametrize("name", hostile.valid_grey_files())
def test_grey_files_show_the_grey_photograph(hostile_folder: Path, name: str) -> None:
    grey_HW = np.asarray(hostile.photograph().convert("L"))
    assert difference(decode(hostile_folder / name), np.stack([grey_HW] * 3, axis=-1)) < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    deep_HW = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    if kind == "PPM":  # older Pillows read it but do not write it
        content = b"P5 64 64 65535\n" + deep_HW.astype(">u2").tobytes()
    else:
        content = hostile.encode(Image.fromarray(deep_HW), kind)
    image = decode(content)
    expected_HW = deep_HW / 65535 * 255
    for channel in range(3):
        assert np.abs(np.asarray(image)[..., channel] - expected_HW).max() <= 0.5 + 1e-3


def test_transparency_is_laid_on_white() -> None:
    rgba_HWC = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    image = decode(hostile.encode(Image.fromarray(rgba_HWC), "PNG"))
    alpha_HW1 = rgba_HWC[..., 3:] / 255
    expected_HWC = rgba_HWC[..., :3] * alpha_HW1 + 255 * (1 - alpha_HW1)
    assert np.abs(np.asarray(image) - expected_HWC).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind: str) -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 2, 2))
    decoded = decode(hostile.encode(image, kind, transparency=0))
    assert decoded.getpixel((0, 0)) == (200, 100, 50)
    assert decoded.getpixel((3, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    stored = Image.fromarray(hostile.stored_as(hostile.photograph_pixels(), orientation))
    content = hostile.encode(stored, kind, exif=hostile.orientation_exif(orientation), quality=95)
    image = decode(content)
    assert difference(image, hostile.photograph_pixels()) < 1.5
    assert image.getexif().get(0x0112) is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"junkjunkjunk", id="no TIFF header"),
        pytest.param(b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0up\0\0\0\0\0\0", id="text for a number"),
    ],
)
def test_damaged_exif_does_not_cost_the_photograph(damage: bytes) -> None:
    content = hostile.encode(hostile.photograph(), "JPEG", quality=95, exif=b"Exif\0\0" + damage)
    assert difference(decode(content), hostile.photograph_pixels()) < 1.5


def test_odd_shapes_are_decoded(hostile_folder: Path) -> None:
    assert decode(hostile_folder / "one_pixel.png").size == (1, 1)
    assert decode(hostile_folder / "very_wide.png").size == (2000, 3)


# Sources


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation


def test_bytes_and_streams_decode_like_the_file(hostile_folder: Path) -> None:
    path = hostile_folder / "plain.jpg"
    expected = decode(path).tobytes()
    stream = io.BytesIO(path.read_bytes())
    stream.seek(100)
    assert decode(path.read_bytes()).tobytes() == expected
    assert decode(stream).tobytes() == expected
    assert not stream.closed
    assert decode(Unseekable(path.read_bytes())).tobytes() == expected


def test_what_cannot_be_opened_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason_of(tmp_path / "absent.jpg") == "no such file"
    assert reason_of(tmp_path) == "a directory, not a file"
    assert "cannot be opened" in reason_of(tmp_path / ("long" * 100))
    assert "cannot be opened" in reason_of(tmp_path / "null\0byte.jpg")
    (tmp_path / "secret.jpg").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert reason_of(tmp_path / "secret.jpg") == "permission denied"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes exist on POSIX systems only")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason_of(tmp_path / "pipe.jpg") == "not a regular file"


# What cannot be decoded


@pytest.mark.parametrize(("name", "reason"), hostile.UNREADABLE.items())
def test_bad_files_say_what_is_wrong(hostile_folder: Path, name: str, reason: str) -> None:
    assert reason_of(hostile_folder / name).startswith(reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_said_to_end_early(kind: str, fraction: float) -> None:
    content = hostile.encode(noise(60, 40), kind, **KINDS[kind])
    assert reason_of(content[: int(len(content) * fraction)]) == f"ends early (truncated {kind})"


def test_sizes_are_limited_in_pixels_and_on_a_side() -> None:
    content = hostile.encode(hostile.photograph(), "PNG")
    pixels = hostile.WIDTH * hostile.HEIGHT
    assert decode(content, max_pixels=pixels).size == (hostile.WIDTH, hostile.HEIGHT)
    with pytest.raises(UnreadableImageError, match=f"96 x 64 pixels, more than {pixels - 1:,} in all"):
        decode(content, max_pixels=pixels - 1)
    assert reason_of(hostile.png_header(12_000, 12_000)) == "12000 x 12000 pixels, more than 128,000,000 in all"
    assert "on a side" in reason_of(hostile.png_header(MAX_SIDE + 1, 2))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read as Linux tells it")
def test_a_bomb_costs_no_memory_and_reading_no_torch(hostile_folder: Path) -> None:
    script = """
import sys
from pathlib import Path
from clip_har.images import decode
from clip_har.errors import UnreadableImageError
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
folder = Path(sys.argv[1])
decode(folder / "rgba_jpeg_name.jpg")
before = peak()
for name in ("decompression_bomb.png", "very_wide.png"):
    try:
        decode(folder / name)
    except UnreadableImageError:
        pass
print(before, peak() - before, "torch" in sys.modules)
"""
    command = [sys.executable, "-c", script, str(hostile_folder)]
    before, added, torch_imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(added) < 20e6  # bytes
    assert int(before) < 300e6
    assert torch_imported == "False"


def test_only_harmless_formats_are_opened() -> None:
    for kind in ("EPS", "PDF", "ICO", "TGA", "JPEG2000"):
        assert reason_of(hostile.encode(hostile.photograph(), kind)).startswith("not an image but")


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_decode_or_say_why(kind: str) -> None:
    generator = random.Random(0)
    content = hostile.encode(hostile.photograph(), kind, **KINDS[kind])
    outcomes = set()
    for _ in range(100):
        mutated = bytearray(content)
        for _ in range(generator.choice([1, 2, 8])):
            mutated[generator.randrange(generator.choice([64, len(content)]))] = generator.randrange(256)
        try:
            image = decode(bytes(mutated))
            assert image.mode == "RGB"
            outcomes.add("decoded")
        except UnreadableImageError as error:
            assert 0 < len(error.reason) < 130
            assert "\n" not in error.reason
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


def test_pillows_own_limit_and_plugin_errors_become_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile.encode(hostile.photograph(), "PNG")
    for error, reason in {
        MemoryError(): "too large for this machine's memory",
        OSError(5, "Input/output error"): "cannot be read: Input/output error",
        ZeroDivisionError("division by zero"): "corrupt or unusual PNG (division by zero)",
        KeyError("x"): "corrupt or unusual PNG ('x')",
    }.items():

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
        assert reason_of(content) == reason


# Leniently


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_decoded_as_far_as_it_goes(progressive: bool) -> None:
    content = hostile.encode(hostile.photograph(), "JPEG", quality=95, progressive=progressive)
    cut = content[: int(len(content) * 0.8)]
    with pytest.raises(UnreadableImageError):
        decode(cut)
    decoded = decode_lenient(cut)
    assert decoded.warning == TRUNCATED_WARNING
    top = decoded.image.crop((0, 0, hostile.WIDTH, 16))
    assert difference(top, hostile.photograph_pixels()[:16]) < 6


def test_leniency_is_for_jpegs_with_pixels_only(hostile_folder: Path) -> None:
    whole = decode_lenient(hostile_folder / "plain.jpg")
    assert whole.warning is None
    assert whole.image.tobytes() == decode(hostile_folder / "plain.jpg").tobytes()
    assert decode_lenient(hostile_folder / "truncated_half.jpg").warning == TRUNCATED_WARNING
    png = hostile.encode(hostile.photograph(), "PNG")
    for source in (hostile_folder / "truncated_header.jpg", hostile_folder / "bit_flipped.jpg", png[:-200]):
        with pytest.raises(UnreadableImageError):
            decode_lenient(source)


# Formats by content


def test_sniff_goes_by_content(hostile_folder: Path) -> None:
    expected = {
        "plain.jpg": "JPEG",
        "no_extension": "JPEG",
        "rgba_jpeg_name.jpg": "PNG",
        "palette.gif": "GIF",
        "photo.webp": "WEBP",
        "bitmap.bmp": "BMP",
        "tiff_image.tiff": "TIFF",
        "pixmap.ppm": "PPM",
        "truncated_header.jpg": "JPEG",
        "decompression_bomb.png": "PNG",
        "zero_bytes.jpg": None,
        "html_error_page.jpg": None,
        "telephone.heic": "HEIF" if hostile.HEIC else None,
        "notes.txt": None,
    }
    assert {name: sniff(hostile_folder / name) for name in expected} == expected
    with pytest.raises(UnreadableImageError, match="no such file"):
        sniff(hostile_folder / "absent.jpg")


@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow has no AVIF")
def test_avif_is_decoded_where_pillow_can(tmp_path: Path) -> None:
    path = tmp_path / "photo.avif"
    path.write_bytes(hostile.encode(hostile.photograph(), "AVIF", quality=95))
    assert sniff(path) == "AVIF"
    assert difference(decode(path), hostile.photograph_pixels()) < 2


def test_suffixes_are_lower_case_and_dotted() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".heic"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


# Side effects


def test_nothing_global_changes_and_nothing_is_printed(
    hostile_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # so that Pillow warns of every photograph
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in sorted(hostile_folder.iterdir()):
            try:
                decode_lenient(path)
            except UnreadableImageError:
                continue
    assert caught == []
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before
    assert capfd.readouterr() == ("", "")


def test_what_pillow_logs_is_not_printed() -> None:
    content = bytearray(hostile.encode(hostile.photograph(), "TIFF"))
    samples_per_pixel = content.index(b"\x15\x01\x03\x00")  # tag 277, one 16-bit number
    content[samples_per_pixel + 8 : samples_per_pixel + 10] = b"\xff\xff"
    script = """
import sys
from clip_har.errors import UnreadableImageError
from clip_har.images import decode
try:
    decode(sys.stdin.buffer.read())
except UnreadableImageError as error:
    print(error.reason)
"""
    # In a process of its own, because pytest catches what is logged.
    done = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, check=True)
    assert done.stdout == b"corrupt TIFF header\n"
    assert done.stderr == b""


def test_threads_decode_alike(hostile_folder: Path) -> None:
    paths = [hostile_folder / name for name in (*hostile.valid_colour_files(), "truncated_half.jpg")] * 8
    expected = [decode_lenient(path).image.tobytes() for path in paths]
    filters = list(warnings.filters)
    started = threading.Barrier(4)

    def decode_all(_: int) -> list[bytes]:
        started.wait()
        return [decode_lenient(path).image.tobytes() for path in paths]

    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(decode_all, range(4)))
    assert warnings.filters == filters


# Preprocessing


def open_clip_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    config = PreprocessCfg(
        size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        resize_mode=preprocessing.resize_mode,
        fill_color=preprocessing.fill_color,
    )
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(config, is_train=False)
    return transform


SQUARE = Preprocessing(image_size=(32, 32), mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))


def test_preprocessing_survives_json() -> None:
    preprocessing = Preprocessing(
        image_size=(32, 48),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        interpolation="bilinear",
        resize_mode="longest",
        fill_color=7,
    )
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": [0, 32]},
        {"image_size": "big"},
        {"std": [0.0, 1.0, 1.0]},
        {"mean": [0.5]},
        {"resize_mode": "stretch"},
        {"interpolation": "nearest"},
        {"fill_color": 300},
        {"colour": "red"},
    ],
)
def test_unusable_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        Preprocessing.from_json(SQUARE.to_json() | change)


def test_missing_preprocessing_is_refused() -> None:
    with pytest.raises(ConfigError, match="mean"):
        Preprocessing.from_json({"image_size": [32, 32], "std": [1, 1, 1]})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_interpolation": "bilinear"},
        {"image_resize_mode": "longest"},
        {"image_resize_mode": "squash"},
    ],
)
def test_transform_is_the_one_open_clip_gives_the_model_but_for_rounding(
    tmp_path: Path, options: dict[str, str]
) -> None:
    tower = {"layers": 1, "width": 32}
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 16, **tower},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "heads": 2, **tower},
    }
    (tmp_path / "tiny-for-images.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-images.json")
    model, _, expected = open_clip.create_model_and_transforms("tiny-for-images", pretrained=None, **options)
    preprocessing = Preprocessing.from_open_clip(model.visual.preprocess_cfg)
    transform = pickle.loads(pickle.dumps(preprocessing.transform()))
    for size in ((96, 64), (50, 120), (32, 32), (7, 9)):
        image = noise(*size)
        image_CHW = transform(image)
        assert image_CHW.dtype == torch.float32
        assert image_CHW.shape == (3, 32, 32)
        std_C11 = torch.tensor(preprocessing.std)[:, None, None]
        levels_CHW = (image_CHW - expected(image)) * std_C11 * 255
        tall = size == (50, 120)  # of tall images Pillow scales the other side first, which shows in noise
        assert levels_CHW.abs().max() < (5.01 if tall else 1.01)
        assert levels_CHW.abs().mean() < (0.3 if tall else 0.005)
        assert torch.equal(preprocessing.normalise(preprocessing.pixel_transform()(image)), image_CHW)


def noise(width: int, height: int, *, low: int = 0, high: int = 256) -> Image.Image:
    pixels_HWC = np.random.default_rng(0).integers(low, high, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels_HWC)


@pytest.mark.parametrize("size", [(2000, 3), (3, 2000), (130, 32), (257, 31), (31, 257), (1000, 101), (11, 50)])
@pytest.mark.parametrize("frame", [(32, 32), (24, 48), (48, 24)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_extreme_shapes_give_what_open_clip_gives(
    size: tuple[int, int], frame: tuple[int, int], resize_mode: str, interpolation: str
) -> None:
    image = noise(*size, low=80, high=176)  # far from 0 and 255: clipping depends on which side is scaled first
    transform = Preprocessing(
        image_size=frame, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=resize_mode, interpolation=interpolation
    ).transform()
    try:
        expected_CHW = open_clip_transform(transform.preprocessing)(image)
    except ValueError:  # open_clip rounds the short side to 0 pixels
        assert resize_mode == "longest"
        assert transform(image).shape == (3, *frame)
        return
    assert (transform(image) - expected_CHW).abs().max() <= 2.001 / 255


def test_extreme_shapes_are_never_resized_to_more_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    areas = []
    resize = Image.Image.resize

    def record(image: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
        areas.append(size[0] * size[1])
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", record)
    for size in ((2000, 3), (3, 2000), (MAX_SIDE, 1), (128, 32), (1, 1)):
        assert SQUARE.transform()(noise(*size)).shape == (3, 32, 32)
    assert max(areas) <= 4 * 32 * 32


# Batches


def to_tensor(image: Image.Image) -> Tensor:
    """Return the image at 16 x 16 with the thread count of this process in the last place."""
    image_CHW: Tensor = pil_to_tensor(image.resize((16, 16), Image.Resampling.NEAREST)).float()
    image_CHW[-1, -1, -1] = torch.get_num_threads()
    return image_CHW


class Listing(NamedTuple):
    paths: list[Path]
    good: list[int]


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Ten files of which the 2nd, 5th, 6th and 9th cannot be read."""
    paths = []
    for index in range(10):
        path = tmp_path / f"{index}.png"
        path.write_bytes(hostile.encode(Image.new("RGB", (20, 30), (index, 0, 0)), "PNG"))
        paths.append(path)
    for index in (1, 4, 5, 8):
        paths[index].write_bytes(b"")
    return Listing(paths, [0, 2, 3, 6, 7, 9])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_keep_the_order_and_report_the_unreadable(listing: Listing, workers: int) -> None:
    batches = list(decode_batches(listing.paths, to_tensor, batch_size=2, workers=workers))
    assert [batch.indices for batch in batches] == [[0], [2, 3], [], [6, 7], [9]]
    assert [batch.unreadable for batch in batches] == [
        [(1, "empty file")],
        [],
        [(4, "empty file"), (5, "empty file")],
        [],
        [(8, "empty file")],
    ]
    assert batches[2].images_BCHW.shape == (0, 3, 16, 16)
    images_BCHW = torch.cat([batch.images_BCHW for batch in batches])
    assert images_BCHW.dtype == torch.float32
    assert images_BCHW[:, 0, 0, 0].tolist() == listing.good
    if workers:
        assert images_BCHW[:, -1, -1, -1].tolist() == [1] * len(listing.good)


def test_no_paths_give_no_batches() -> None:
    assert list(decode_batches([], to_tensor, batch_size=4, workers=0)) == []


def test_workers_end_when_the_consumer_stops_early(listing: Listing) -> None:
    batches = decode_batches(listing.paths * 20, to_tensor, batch_size=2, workers=2)
    assert isinstance(next(batches), DecodedBatch)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_mistake_in_the_transform_is_not_blamed_on_the_image(listing: Listing) -> None:
    def broken(image: Image.Image) -> Tensor:
        if image.size == (1, 1):
            return torch.zeros(3, 1, 1)
        raise RuntimeError("our own mistake")

    with pytest.raises(RuntimeError, match="our own mistake"):
        list(decode_batches(listing.paths, broken, batch_size=2, workers=0))


def test_batches_leave_the_random_numbers_alone(listing: Listing) -> None:
    before = torch.get_rng_state()
    list(decode_batches(listing.paths, to_tensor, batch_size=4, workers=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_scarce_shared_memory_means_fewer_workers(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    loader = torch.utils.data.DataLoader

    def record(*arguments: Any, **options: Any) -> Any:
        started.append(options["num_workers"])
        return loader(*arguments, **(options | {"num_workers": 0}))

    batch_bytes = 4 * 3 * 16 * 16 * 4
    monkeypatch.setattr(torch.utils.data, "DataLoader", record)
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    for batches_of_room in (100, 6, 5, 2):
        usage = type(shutil.disk_usage("."))(0, 0, batches_of_room * batch_bytes)
        monkeypatch.setattr(shutil, "disk_usage", constant(usage))
        list(decode_batches(listing.paths, to_tensor, batch_size=4, workers=8))
    assert started == [3, 2, 1, 0]  # three batches: more could not help


def constant(value: Any) -> Callable[[Path], Any]:
    return lambda _: value
