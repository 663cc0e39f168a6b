"""The page's resampling, crops and rules against Pillow, torch and the run's own code: in node, or else in Chromium."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from clip_har.errors import UnreadableImageError
from clip_har.evaluation.confidence import Calibration
from clip_har.images import limits
from clip_har.images.preprocessing import Preprocessing
from web_page.conftest import Script

Pixels = npt.NDArray[np.uint8]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
UNPACK = "const bytes = (text) => Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));"
PACK = "const text = (data) => btoa(Array.from(data, (value) => String.fromCharCode(value)).join(''));"
RESIZE = f"""{UNPACK}{PACK}
const {{ image, resize }} = await load("resize.js");
return given.map(({{ width, height, pixels, out, ...how }}) =>
  text(resize(image(width, height, bytes(pixels)), out, how).data));"""
FRAME = f"""{UNPACK}{PACK}
const {{ framePixels, image, normalised }} = await load("preprocess.js");
return given.map(({{ width, height, pixels, settings }}) => {{
  const found = framePixels(image(width, height, bytes(pixels)), settings);
  return [text(found), Array.from(normalised(found, settings))];
}});"""


def picture(rng: np.random.Generator, width: int, height: int, kind: str) -> Pixels:
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "edges":  # where filters overshoot
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3 % 256, y * 5 % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def packed(pixels: Pixels) -> dict[str, Any]:
    return {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
    }


def unpacked(text: str, shape: tuple[int, ...]) -> Pixels:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(shape)


def in_two_passes(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling, box: Any) -> Pixels:
    """Each side resized alone by Pillow, in the page's order: what a version of Pillow does first is left out."""
    (left, top, right, bottom), (width, height) = box, size
    if width > image.width and height < image.height:
        tall = image.resize((image.width, height), resampling, box=(0, top, image.width, bottom))
        return np.asarray(tall.resize(size, resampling, box=(left, 0, right, height)))
    wide = image.resize((width, image.height), resampling, box=(left, 0, right, image.height))
    return np.asarray(wide.resize(size, resampling, box=(0, top, width, bottom)))


@pytest.mark.parametrize("kind", ["noise", "edges", "slopes"])
@pytest.mark.parametrize("name", sorted(FILTERS))
def test_resampling_is_pillows_bit_for_bit(script: Script, kind: str, name: str) -> None:
    rng = np.random.default_rng(0)
    jobs, expected = [], []
    for number in range(24):
        width, height, out_width, out_height = rng.integers(1, 150, 4).tolist()
        pixels = picture(rng, width, height, kind)
        box = (0.0, 0.0, float(width), float(height))
        if number % 3 == 2:
            left, right = sorted(np.float32(rng.uniform(0, width, 2)).tolist())
            top, bottom = sorted(np.float32(rng.uniform(0, height, 2)).tolist())
            box = (left, top, right, bottom)
        job = {"filter": name, "arithmetic": "pillow", "out": {"width": out_width, "height": out_height}}
        job["box"] = dict(zip(("left", "top", "right", "bottom"), box, strict=True))
        jobs.append(packed(pixels) | job)
        size = (out_width, out_height)
        expected.append(in_two_passes(Image.fromarray(pixels), size, FILTERS[name], box))
    for text, pixels in zip(script(RESIZE, jobs), expected, strict=True):
        np.testing.assert_array_equal(unpacked(text, pixels.shape), pixels)


def test_enlarging_and_a_single_pass_are_what_pillow_does_at_once(script: Script) -> None:
    rng = np.random.default_rng(1)
    jobs, expected = [], []
    for width, height, out_width, out_height in ((20, 31, 64, 99), (1, 1, 8, 8), (50, 40, 50, 13), (50, 40, 17, 40)):
        pixels = picture(rng, width, height, "edges")
        size = {"width": out_width, "height": out_height}
        jobs.append(packed(pixels) | {"filter": "bicubic", "arithmetic": "pillow", "out": size})
        expected.append(np.asarray(Image.fromarray(pixels).resize((out_width, out_height), FILTERS["bicubic"])))
    for text, pixels in zip(script(RESIZE, jobs), expected, strict=True):
        np.testing.assert_array_equal(unpacked(text, pixels.shape), pixels)


def test_a_source_read_in_strips_gives_the_same(script: Script) -> None:
    """A canvas gives rows of four channels; whole images are too large to be read at once."""
    body = f"""{PACK}
    const {{ resize }} = await load("resize.js");
    const {{ width, height, out }} = given;
    let most = 0;
    const read = (top, rows) => {{
      most = Math.max(most, rows);
      const data = new Uint8ClampedArray(4 * width * rows);
      for (let y = top, at = 0; y < top + rows; y += 1) {{
        for (let x = 0; x < width; x += 1, at += 4) {{
          data[at] = (x * 3) % 256;
          data[at + 1] = (y * 5) % 256;
          data[at + 2] = (x + y) % 256;
        }}
      }}
      return data;
    }};
    const source = {{ width, height, channels: 4, read }};
    return [text(resize(source, out, {{ filter: "bicubic", arithmetic: "pillow" }}).data), most];"""
    text, most = script(body, {"width": 3000, "height": 1500, "out": {"width": 90, "height": 45}})
    assert 0 < most < 1500
    image = Image.fromarray(picture(np.random.default_rng(2), 3000, 1500, "slopes"))
    expected = in_two_passes(image, (90, 45), FILTERS["bicubic"], (0, 0, 3000, 1500))
    np.testing.assert_array_equal(unpacked(text, expected.shape), expected)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("name", ["bicubic", "bilinear", "random"])
def test_frames_are_those_of_the_run(script: Script, mode: str, name: str) -> None:
    """torch's resampling uses what its processor has: one level of difference is allowed, in few pixels."""
    rng = np.random.default_rng(3)
    jobs, expected = [], []
    for number in range(20):
        size = (32, 32) if number % 2 else (24, 40)
        settings = Preprocessing(
            image_size=size,
            mean=(0.48, 0.46, 0.41),
            std=(0.27, 0.26, 0.28),
            interpolation=name,
            resize_mode=mode,
            fill_color=number,
        )
        smallest = 41 if mode == "squash" else 5  # a squashed image may have been resized in another order
        width, height = rng.integers(smallest, 120, 2).tolist()
        if mode != "squash" and not 0.3 < (width / size[1]) / (height / size[0]) < 3:
            height = width
        pixels = picture(rng, width, height, ("noise", "edges", "slopes")[number % 3])
        jobs.append(packed(pixels) | {"settings": settings.to_json()})
        tensor_CHW = settings.pixel_transform()(Image.fromarray(pixels))
        expected.append((tensor_CHW.permute(1, 2, 0).numpy(), settings))
    for (text, values), (pixels, settings) in zip(script(FRAME, jobs), expected, strict=True):
        found = unpacked(text, pixels.shape)
        assert np.abs(found.astype(int) - pixels).max() <= 1
        assert (found != pixels).mean() < 0.01
        own = np.transpose(found, (2, 0, 1)) / 255.0
        mean, std = (np.array(value)[:, None, None] for value in (settings.mean, settings.std))
        np.testing.assert_allclose(np.reshape(values, own.shape), (own - mean) / std, atol=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_images_of_extreme_shape_become_the_same_frame(script: Script, mode: str) -> None:
    settings = Preprocessing(image_size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode)
    jobs, expected = [], []
    for width, height in ((700, 3), (3, 700), (900, 120), (1, 1), (40, 700), (5000, 60)):
        pixels = picture(np.random.default_rng(4), width, height, "slopes") // 4
        jobs.append(packed(pixels) | {"settings": settings.to_json()})
        expected.append(settings.pixel_transform()(Image.fromarray(pixels)).permute(1, 2, 0).numpy())
    for (text, _), pixels in zip(script(FRAME, jobs), expected, strict=True):
        found = unpacked(text, pixels.shape)
        assert np.abs(found.astype(int) - pixels).max() <= 2


# What is known of a file before it is decoded

INSPECT = f"""{UNPACK}
const {{ inspect }} = await load("decode.js");
return given.map((content) => inspect(bytes(content).buffer));"""


def saved(kind: str, size: tuple[int, int] = (71, 34), mode: str = "RGB", **options: Any) -> str:
    stream = io.BytesIO()
    Image.new(mode, size, 0).save(stream, kind, **options)
    return base64.b64encode(stream.getvalue()).decode()


def test_sizes_are_read_from_headers(script: Script) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a" * 5000
    files = {
        "JPEG": [saved("JPEG"), saved("JPEG", progressive=True), saved("JPEG", exif=exif), saved("JPEG", mode="L")],
        "PNG": [saved("PNG"), saved("PNG", mode="P")],
        "GIF": [saved("GIF")],
        "BMP": [saved("BMP")],
        "WEBP": [saved("WEBP"), saved("WEBP", lossless=True), saved("WEBP", mode="RGBA")],
    }
    if features.check("avif"):
        files["AVIF"] = [saved("AVIF")]
    for kind, contents in files.items():
        for found in script(INSPECT, contents):
            assert found == {"kind": kind, "width": 71, "height": 34}
    assert [found["kind"] for found in script(INSPECT, [saved("TIFF"), base64.b64encode(b"a" * 99).decode()])] == [
        "TIFF",
        None,
    ]


CHECK = """const { checkSize } = await load("decode.js");
const refusal = (head) => {
  try {
    checkSize(head, given.limits);
    return null;
  } catch (error) {
    return error.message;
  }
};
return given.heads.map(refusal);
"""


def test_what_is_too_large_is_refused_in_the_words_of_python(script: Script) -> None:
    sizes = [(20_000, 10_000), (70_000, 5), (5, 70_000), (100, 100)]
    expected: list[str | None] = []
    for size in sizes:
        try:
            limits.check_size(size, limits.MAX_PIXELS)
            expected.append(None)
        except UnreadableImageError as error:
            expected.append(error.reason)
    allowed = {"pixels": limits.MAX_PIXELS, "side": limits.MAX_SIDE, "bytes": limits.MAX_BYTES}
    heads = [{"kind": "JPEG", "width": width, "height": height} for width, height in sizes]
    assert script(CHECK, {"heads": heads, "limits": allowed}) == expected
    heads = [{"kind": kind, "width": 9000, "height": 9000} for kind in ("JPEG", "PNG")]
    heavy = "9000 x 9000 pixels, which take 324 MB, more than 256"
    assert script(CHECK, {"heads": heads, "limits": allowed}) == [None, heavy]


# The rules of the run

JUDGE = """const { judged } = await load("judge.js");
return given.map(({ logits, model }) => judged(logits, model));"""


def test_predictions_follow_the_rules_of_the_run(script: Script) -> None:
    rng = np.random.default_rng(5)
    classes = [f"class {number}" for number in range(6)]
    jobs, expected = [], []
    for number in range(60):
        logits_C = rng.normal(0, 2, 6)
        temperature = float(rng.uniform(0.3, 3))
        rules = {
            "temperature": temperature if number % 5 else None,
            "coverage": 0.9,
            "sets_up_to": float(rng.uniform(0, 1)) if number % 3 else None,
            "answers_from": float(rng.uniform(0, 1)),
            "known_from": float(rng.uniform(0, 0.6)) if number % 2 else 0.0,
        }
        jobs.append({"logits": logits_C.tolist(), "model": {"classes": classes, "top": 4, "calibration": rules}})
        expected.append(prediction(logits_C, rules))
    for found, (label, unsure, unknown, confidence, possible, top) in zip(script(JUDGE, jobs), expected, strict=True):
        assert found["label"] == (None if label is None else classes[label])
        assert (found["unsure"], found["unknown"]) == (unsure, unknown)
        assert found["confidence"] == (None if confidence is None else pytest.approx(confidence))
        assert found["possible"] == (None if possible is None else [classes[index] for index in possible])
        assert [item["label"] for item in found["top"]] == [classes[index] for index in top[:4]]
        assert (found["reason"] is not None) == (unsure or unknown)


def prediction(logits_C: npt.NDArray[np.float64], rules: dict[str, Any]) -> tuple[Any, ...]:
    """Label, unsure, unknown, confidence, prediction set and ranking, written down once more."""
    probabilities_C = np.exp(logits_C) / np.exp(logits_C).sum()
    top = np.argsort(-probabilities_C).tolist()
    unknown = bool(probabilities_C.max() < rules["known_from"])
    label = None if unknown else top[0]
    if rules["temperature"] is None:
        return label, False, unknown, None, None, top
    calibration = Calibration(images=9, temperature=rules["temperature"], conformal={}, selective=())
    calibrated_C = calibration.confidence(probabilities_C[None])[0]
    confidence = float(calibrated_C.max())
    unsure = not unknown and confidence < rules["answers_from"]
    sets_up_to = rules["sets_up_to"]
    possible = None if sets_up_to is None else [i for i in top if 1 - calibrated_C[i] <= sets_up_to]
    return None if unsure else label, unsure, unknown, confidence, possible, top
