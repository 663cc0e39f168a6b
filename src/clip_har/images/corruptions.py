"""Common corruptions of photographs at five severities, seeded by the image's content.

What they do to a model's accuracy is measured in experiment/robustness.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from clip_har.images.augmentation import view_seed
from clip_har.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224
"""Pixels of the short side at which images are corrupted: the parameters below were chosen for it."""
_LONGEST = 4
"""Longest side over shortest; what lies beyond is cropped off, so that a banner does not become 100,000 pixels long."""
VERSION = 1
"""To be raised when a corruption's result changes: cached features depend on it."""

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption at one severity, and the seed of what is random in it."""

    kind: str
    """One of `KINDS`."""
    severity: int
    """1 (mild) to 5."""
    seed: int = 0
    """With the image's content it decides the noise, the place of the occlusion and the sense of the rotation."""

    def apply(self, image: Image.Image, seed: int) -> Image.Image:
        """The corrupted image, 8-bit RGB with a short side of 224 pixels.

        Args:
            image: 8-bit RGB.
            seed: what `image_seed` gives for the image's content.
        """
        level = PARAMETERS[self.kind][self.severity - 1]
        return _APPLY[self.kind](standard_size(image), level, np.random.default_rng(seed))

    def image_seed(self, sha256: str) -> int:
        """The seed of one image: it depends on its content, the kind, the severity and the seed."""
        return view_seed(sha256, self.kind, self.severity, self.seed)

    def key(self) -> dict[str, Any]:
        """What cached features depend on besides the image's content and the model."""
        return {"corruption": self.kind, "severity": self.severity, "seed": self.seed, "version": VERSION}


@dataclass(frozen=True, kw_only=True)
class CorruptedTransform:
    """A model's evaluation transform of the corrupted image, up to its normalisation. Can be pickled."""

    preprocessing: Preprocessing
    corruption: Corruption

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Turn an RGB image and its seed into the model's frame: uint8 CHW."""
        return self._transform(self.corruption.apply(image, seed))

    @cached_property
    def _transform(self) -> Callable[[Image.Image], Tensor]:
        return self.preprocessing.pixel_transform()


def standard_size(image: Image.Image) -> Image.Image:
    """The image with a short side of 224 pixels, cropped at the centre where it is longer than 4:1."""
    short, long = min(image.size), max(image.size)
    if long > _LONGEST * short:
        width, height = (min(side, _LONGEST * short) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    size = (max(SIDE, round(image.width * SIDE / short)), max(SIDE, round(image.height * SIDE / short)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _noise(image: Image.Image, sigma: float, generator: np.random.Generator) -> Image.Image:
    pixels = _unit(image)
    return _image(pixels + generator.normal(scale=sigma, size=pixels.shape))


def _blur(image: Image.Image, sigma: float, _generator: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _brightness(image: Image.Image, added: float, _generator: np.random.Generator) -> Image.Image:
    """Raise V of HSV: hue and saturation stay, so the channels keep their ratios; black becomes grey."""
    pixels = _unit(image)
    value = pixels.max(axis=2, keepdims=True)
    raised = np.minimum(value + added, 1.0)
    return _image(np.where(value > 0, pixels * raised / np.where(value > 0, value, 1.0), raised))


def _contrast(image: Image.Image, factor: float, _generator: np.random.Generator) -> Image.Image:
    pixels = _unit(image)
    means = pixels.mean(axis=(0, 1), keepdims=True)
    return _image((pixels - means) * factor + means)


def _jpeg(image: Image.Image, quality: float, _generator: np.random.Generator) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=int(quality))
    return Image.open(content).convert("RGB")


def _pixelate(image: Image.Image, factor: float, _generator: np.random.Generator) -> Image.Image:
    small = (int(image.width * factor), int(image.height * factor))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)


def _rotation(image: Image.Image, degrees: float, generator: np.random.Generator) -> Image.Image:
    """Either way, by the seed; the corners take the image's mean colour."""
    red, green, blue = (round(255 * mean) for mean in _unit(image).mean(axis=(0, 1)))
    angle = degrees if generator.random() < 0.5 else -degrees
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(red, green, blue))


def _occlusion(image: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """A grey rectangle of the image's own shape, wholly inside it."""
    pixels = np.array(image)
    height, width = (round(side * share**0.5) for side in pixels.shape[:2])
    top = int(generator.integers(0, pixels.shape[0] - height + 1))
    left = int(generator.integers(0, pixels.shape[1] - width + 1))
    pixels[top : top + height, left : left + width] = 127
    return Image.fromarray(pixels)


def _unit(image: Image.Image) -> Pixels:
    return np.asarray(image, dtype=np.float64) / 255.0


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.round(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8))


PARAMETERS: Mapping[str, tuple[float, float, float, float, float]] = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "gaussian-blur": (1.0, 2.0, 3.0, 4.0, 6.0),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg": (25, 18, 15, 10, 7),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "rotation": (10, 20, 30, 45, 60),
    "occlusion": (0.1, 0.2, 0.3, 0.4, 0.5),
}
"""Kind -> its parameter at severity 1 to 5.

Standard deviation of the noise and of the blur (pixels), what is added to the brightness V, factor on the contrast,
JPEG quality, and factor on the resolution: as in ImageNet-C, its code's `make_imagenet_c.py` (Hendrycks & Dietterich
2019, arXiv 1903.12261); blur is of its extra set. Degrees of the rotation and the share of the area hidden, after
Cutout (DeVries & Taylor 2017, arXiv 1708.04552), are not in ImageNet-C: their steps are this project's.
"""
KINDS = tuple(PARAMETERS)

_APPLY: Mapping[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "gaussian-noise": _noise,
    "gaussian-blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "rotation": _rotation,
    "occlusion": _occlusion,
}
