"""Corruptions: each against a naive reference, growing with severity, decided by content and seed alone."""

from __future__ import annotations

import colorsys
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_har.config.converters import CORRUPTION_KINDS
from clip_har.images import KINDS, SEVERITIES, CorruptedTransform, Corruption, ImageFiles, Preprocessing
from clip_har.images.corruptions import PARAMETERS, standard_size

PREPROCESSING = Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def picture(width: int = 260, height: int = 224, *, seed: int = 0) -> Image.Image:
    """Smooth colours with some detail and true black."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    pixels[:10, :10] = 0
    return Image.fromarray(pixels)


def corrupted(kind: str, severity: int, image: Image.Image, *, content: str = "a", seed: int = 0) -> np.ndarray:
    corruption = Corruption(kind=kind, severity=severity, seed=seed)
    return np.array(corruption.apply(image, corruption.image_seed(content)), dtype=np.int64)


def test_the_settings_name_the_kinds_there_are() -> None:
    assert CORRUPTION_KINDS == KINDS == tuple(PARAMETERS)
    assert len(KINDS) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_keeps_the_size_and_departs_further_at_each_severity(kind: str) -> None:
    image = picture()
    before = np.array(image, dtype=np.int64)
    results = [corrupted(kind, severity, image) for severity in SEVERITIES]
    assert {result.shape for result in results} == {before.shape}
    departures = [float(np.abs(result - before).mean()) for result in results]
    assert departures == sorted(departures) or kind == "rotation"  # whose angle has a test of its own
    assert departures[0] > 0.01
    np.testing.assert_array_equal(np.array(image), before)


@pytest.mark.parametrize("kind", ("gaussian-noise", "occlusion"))
def test_what_is_random_follows_from_content_severity_and_seed(kind: str) -> None:
    image = picture()
    first = corrupted(kind, 3, image)
    np.testing.assert_array_equal(first, corrupted(kind, 3, image))
    assert (first != corrupted(kind, 3, image, content="b")).any()
    assert (first != corrupted(kind, 3, image, seed=1)).any()


def test_rotation_turns_either_way_by_the_content() -> None:
    image = picture()
    turned = [corrupted("rotation", 2, image, content=str(number)) for number in range(8)]
    fill = tuple(round(mean) for mean in np.array(image).mean(axis=(0, 1)))
    ways = [np.array(image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=fill)) for angle in (20, -20)]
    found = {next(way for way, wanted in enumerate(ways) if np.abs(wanted - result).max() <= 1) for result in turned}
    assert found == {0, 1}


def test_noise_has_the_standard_deviation_of_its_severity() -> None:
    grey = Image.new("RGB", (300, 300), (128, 128, 128))
    measured = [corrupted("gaussian-noise", severity, grey)[..., 0].std() / 255 for severity in (1, 2)]
    assert measured == pytest.approx([0.08, 0.12], rel=0.02)


def test_brightness_adds_to_v_of_hsv() -> None:
    image = picture(224, 224)
    result = corrupted("brightness", 2, image)
    for row, column in ((0, 0), (50, 60), (200, 100), (120, 7)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(np.array(image)[row, column] / 255))
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2))
        assert np.abs(result[row, column] - np.array(wanted) * 255).max() <= 0.51


def test_contrast_draws_each_channel_to_its_mean() -> None:
    image = picture()
    pixels = np.array(image) / 255
    means = pixels.mean(axis=(0, 1))
    wanted = np.clip(means + 0.2 * (pixels - means), 0, 1) * 255
    assert np.abs(corrupted("contrast", 3, image) - wanted).max() <= 0.51


def test_jpeg_is_pillows_at_the_quality_of_its_severity() -> None:
    image, content = picture(), io.BytesIO()
    image.save(content, "JPEG", quality=10)
    np.testing.assert_array_equal(corrupted("jpeg", 4, image), np.array(Image.open(content)))


def test_pixelate_leaves_blocks_of_their_mean() -> None:
    result = corrupted("pixelate", 5, picture(224, 224))
    blocks = result.reshape(56, 4, 56, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    wanted = np.array(picture(224, 224), dtype=float).reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks[:, 0, :, 0] - wanted).max() <= 1


def test_occlusion_hides_its_share_and_touches_nothing_else() -> None:
    image = Image.new("RGB", (224, 448), (255, 0, 0))
    hidden = (corrupted("occlusion", 4, image) == 127).all(axis=2)
    assert hidden.mean() == pytest.approx(0.4, abs=0.005)
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((100, 50), (448, 224)), ((50, 100), (224, 448)), ((3000, 10), (896, 224)), ((1, 1), (224, 224))],
)
def test_images_are_corrupted_at_224_pixels(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert standard_size(Image.new("RGB", size)).size == wanted


def test_files_show_a_model_what_the_transform_makes_of_the_corrupted_image(tmp_path: Path) -> None:
    corruption = Corruption(kind="occlusion", severity=3, seed=5)
    paths, seeds = [], []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        seeds.append(corruption.image_seed(str(number)))
        picture(seed=number).save(paths[-1])
    files = ImageFiles(
        paths=tuple(paths), preprocessing=PREPROCESSING, corruption=corruption, seeds=tuple(seeds)
    ).subset([2, 0])
    ((indices, images_BCHW),) = files.evaluation_batches([0, 1])
    assert indices == [0, 1]
    plain = PREPROCESSING.transform()
    for image_CHW, number in zip(images_BCHW, (2, 0), strict=True):
        wanted = plain(corruption.apply(picture(seed=number), seeds[number]))
        torch.testing.assert_close(image_CHW, wanted)


def test_the_transform_travels_to_workers() -> None:
    transform = CorruptedTransform(
        preprocessing=PREPROCESSING, corruption=Corruption(kind="gaussian-noise", severity=1)
    )
    again = pickle.loads(pickle.dumps(transform))
    torch.testing.assert_close(again(picture(), 3), transform(picture(), 3))
