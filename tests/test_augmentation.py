"""Views of training images: as random as they should be, as the model wants them, and repeatable from a seed."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clip_har.images import Preprocessing, ViewTransform, decode, decode_batches, training_transform, view_seed

AUGMENTS: tuple[Literal["none", "light", "strong"], ...] = ("none", "light", "strong")
RANDOM: tuple[Literal["light", "strong"], ...] = ("light", "strong")
MODEL = Preprocessing(image_size=(32, 32), mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.4))
PLAIN = Preprocessing(image_size=(32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def noise(width: int = 90, height: int = 60) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(width: int = 90, height: int = 60) -> Image.Image:
    """Red grows to the right and green downwards, from 0 to 255; blue is 128."""
    red_HW = np.tile(np.linspace(0, 255, width), (height, 1))
    green_HW = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    pixels = np.stack([red_HW, green_HW, np.full((height, width), 128)], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def views(image: Image.Image, augment: Literal["none", "light", "strong"], count: int = 60) -> list[Tensor]:
    transform = ViewTransform(preprocessing=PLAIN, augment=augment)
    return [transform(image, seed) for seed in range(count)]


def global_state() -> tuple[list[int], bytes, object]:
    """Return where the global generators of torch, numpy and Python stand."""
    return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()  # noqa: NPY002


# Shape and values


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("image_size", [None, 20, 48])
def test_views_have_the_size_asked_for_and_else_the_models(
    augment: Literal["none", "light", "strong"], image_size: int | None
) -> None:
    wide = Preprocessing(image_size=(32, 40), mean=MODEL.mean, std=MODEL.std)
    view_CHW = ViewTransform(preprocessing=wide, augment=augment, image_size=image_size)(noise(), 1)
    assert view_CHW.shape == ((3, image_size, image_size) if image_size else (3, 32, 40))
    assert view_CHW.dtype == torch.float32


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("size", [(1, 1), (600, 2), (2, 600), (33, 7)])
def test_odd_shapes_give_views(augment: Literal["none", "light", "strong"], size: tuple[int, int]) -> None:
    view_CHW = ViewTransform(preprocessing=MODEL, augment=augment)(noise(*size), 1)
    assert view_CHW.shape == (3, 32, 32)
    assert view_CHW.isfinite().all()


def test_none_is_the_evaluation_transform() -> None:
    assert torch.equal(training_transform(MODEL, "none", None)(noise()), MODEL.transform()(noise()))
    resized = Preprocessing(image_size=(20, 20), mean=MODEL.mean, std=MODEL.std)
    assert torch.equal(training_transform(MODEL, "none", 20)(noise()), resized.transform()(noise()))


@pytest.mark.parametrize("augment", AUGMENTS)
def test_the_models_mean_and_std_hold(augment: Literal["none", "light", "strong"]) -> None:
    plain_CHW = ViewTransform(preprocessing=PLAIN, augment=augment)(ramp(), 3)
    view_CHW = ViewTransform(preprocessing=MODEL, augment=augment)(ramp(), 3)
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (MODEL.mean, MODEL.std))
    expected_CHW = (plain_CHW - mean_C11) / std_C11
    inside_HW = (plain_CHW > 0).all(dim=0)  # a rotation fills its corners with the model's mean colour
    assert inside_HW.float().mean() > 0.6
    torch.testing.assert_close(view_CHW[:, inside_HW], expected_CHW[:, inside_HW], atol=0.1, rtol=0.0)


def test_what_a_shift_uncovers_is_the_mean_colour() -> None:
    white = Image.new("RGB", (60, 60), "white")
    transform = ViewTransform(preprocessing=MODEL, augment="strong")
    corners = torch.stack([transform(white, seed)[:, [0, 0, -1, -1], [0, -1, 0, -1]] for seed in range(20)])
    uncovered = corners.abs().amax(dim=1) < 0.05  # in units of std; white is at 8, 2.5 and 0.75
    assert 0.2 < uncovered.float().mean() < 1


@pytest.mark.parametrize("augment", RANDOM)
def test_the_models_interpolation_holds(augment: Literal["light", "strong"]) -> None:
    bilinear = Preprocessing(image_size=(32, 32), mean=PLAIN.mean, std=PLAIN.std, interpolation="bilinear")
    bilinear_CHW = ViewTransform(preprocessing=bilinear, augment=augment)(noise(), 3)
    bicubic_CHW = ViewTransform(preprocessing=PLAIN, augment=augment)(noise(), 3)
    assert bicubic_CHW.std() > 1.05 * bilinear_CHW.std()  # bicubic keeps more of the noise


# What is random


def span(view_CHW: Tensor) -> tuple[float, float]:
    """Return the share of the ramp's width and height that a view shows."""
    red_W, green_H = view_CHW[0].mean(dim=0), view_CHW[1].mean(dim=1)
    return float(red_W.max() - red_W.min()), float(green_H.max() - green_H.min())


def test_light_crops_half_the_area_or_more() -> None:
    areas = torch.tensor([width * height for width, height in map(span, views(ramp(), "light"))])
    assert 0.40 < areas.min() < 0.6
    assert 0.75 < areas.max() <= 1.0


def test_crops_lie_in_different_places() -> None:
    centres = torch.stack([view_CHW[1].mean() for view_CHW in views(ramp(), "light")])  # green: flips do not move it
    assert centres.std() > 0.02


@pytest.mark.parametrize("augment", RANDOM)
def test_half_the_views_are_flipped(augment: Literal["light", "strong"]) -> None:
    flipped = [
        float(view_CHW[0, :, :8].mean()) > float(view_CHW[0, :, -8:].mean()) for view_CHW in views(ramp(), augment)
    ]
    assert 18 <= sum(flipped) <= 42
    upside_down = [view_CHW[1, :8].mean() > view_CHW[1, -8:].mean() for view_CHW in views(ramp(), augment)]
    assert not any(upside_down)


def test_only_strong_changes_colours() -> None:
    grey = Image.new("RGB", (60, 60), (120, 120, 120))
    light = torch.stack([view_CHW[0, 16, 16] for view_CHW in views(grey, "light")])
    strong = torch.stack([view_CHW[0, 16, 16] for view_CHW in views(grey, "strong")]) * 255
    assert light.max() == light.min()
    assert 120 * 0.79 <= strong.min() < 110
    assert 130 < strong.max() <= 120 * 1.21
    orange = Image.new("RGB", (60, 60), (200, 120, 40))
    hues = [view_CHW[1, 16, 16] / view_CHW[0, 16, 16] for view_CHW in views(orange, "strong")]
    assert max(hues) - min(hues) > 0.3


def test_only_strong_rotates() -> None:
    grey_HW = np.tile(np.linspace(60, 180, 60)[:, None], (1, 60)).astype(np.uint8)  # too far from black for clipping
    downwards = Image.fromarray(np.stack([grey_HW] * 3, axis=-1))

    def degrees(view_CHW: Tensor) -> float:
        middle_HW = view_CHW[1, 10:22, 10:22]
        down, right = middle_HW.diff(dim=0).mean(), middle_HW.diff(dim=1).mean()
        return float(torch.rad2deg(torch.atan2(right, down)))

    assert max(abs(degrees(view_CHW)) for view_CHW in views(downwards, "light")) < 0.5
    angles = [degrees(view_CHW) for view_CHW in views(downwards, "strong")]
    assert -11 < min(angles) < -6
    assert 6 < max(angles) < 11


# Seeds


@pytest.mark.parametrize("augment", RANDOM)
def test_a_view_depends_on_its_seed_alone(augment: Literal["light", "strong"]) -> None:
    transform = ViewTransform(preprocessing=MODEL, augment=augment)
    first_CHW = transform(noise(), 5)
    torch.manual_seed(99)
    transform(noise(), 6)
    again: ViewTransform = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(noise(), 5), first_CHW)
    assert not torch.equal(transform(noise(), 6), first_CHW)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_global_generators_stay_as_they_are(augment: Literal["none", "light", "strong"]) -> None:
    before = global_state()
    ViewTransform(preprocessing=MODEL, augment=augment)(noise(), 5)
    after = global_state()
    assert before == after


def test_view_seeds_differ_in_every_part_and_never_change() -> None:
    seeds = {view_seed("ab", 1), view_seed("ab", 2), view_seed("ac", 1), view_seed("ab", 1, 0), view_seed("a", "b1")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert view_seed("ab", 1) == 9128850052446877604  # cached features are views of these seeds


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_views_depend_on_content_and_number_not_on_place(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        noise(40 + number, 50).save(path)
    transform = ViewTransform(preprocessing=MODEL, augment="light")

    def encode(order: list[int], view: int) -> dict[int, Tensor]:
        seeds = [view_seed(f"content {number}", view) for number in order]
        chosen = [paths[number] for number in order]
        batches = decode_batches(chosen, transform, batch_size=2, workers=workers, seeds=seeds)
        images_NCHW = torch.cat([batch.images_BCHW for batch in batches])
        return {number: images_NCHW[place] for place, number in enumerate(order)}

    forwards, backwards, other = encode([0, 1, 2, 3, 4], 0), encode([4, 2, 0], 0), encode([0, 1], 1)
    assert all(torch.equal(backwards[number], forwards[number]) for number in backwards)
    assert not any(torch.equal(other[number], forwards[number]) for number in other)
    assert torch.equal(forwards[3], transform(decode(paths[3]), view_seed("content 3", 0)))


# Large JPEGs


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    ramp(width, height).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def test_large_jpegs_are_decoded_at_a_fraction_that_is_enough() -> None:
    content = jpeg(801, 400)
    assert decode(content).size == (400, 801)
    assert decode(content, enough_pixels=401 * 200).size == (400, 801)
    for enough_pixels, size in ((400 * 200, (200, 401)), (200 * 100, (100, 201)), (1, (50, 101))):
        assert decode(content, enough_pixels=enough_pixels).size == size
    small = np.asarray(decode(content, enough_pixels=200 * 100)).astype(float)
    resized = np.asarray(decode(content).resize((100, 201), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - resized).mean() < 2


@pytest.mark.parametrize("augment", RANDOM)
def test_no_crop_of_what_is_enough_has_to_be_enlarged(augment: Literal["light", "strong"]) -> None:
    transform = ViewTransform(preprocessing=MODEL, augment=augment, image_size=30)
    assert transform.enough_pixels is not None
    crop_area = {"light": 0.5, "strong": 0.8}[augment] * transform.enough_pixels
    assert (crop_area * 3 / 4) ** 0.5 == pytest.approx(30, abs=0.1)


def test_the_shorter_side_must_be_enough_and_both_sides_divisible() -> None:
    content = jpeg(808, 404)
    for enough_side, size in ((203, (404, 808)), (202, (202, 404)), (101, (101, 202)), (50, (101, 202))):
        assert decode(content, enough_side=enough_side).size == size
    assert decode(content, enough_side=100, enough_pixels=202 * 404).size == (202, 404)
    assert decode(jpeg(801, 400), enough_side=1).size == (400, 801)


def test_evaluation_pixels_keep_four_times_the_models_resolution() -> None:
    for transform in (MODEL.transform(), ViewTransform(preprocessing=MODEL, augment="none")):
        assert transform.enough_side == 128
    assert ViewTransform(preprocessing=MODEL, augment="none").enough_pixels is None
    assert ViewTransform(preprocessing=MODEL, augment="light").enough_side is None
