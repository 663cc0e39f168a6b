"""Views: what training sees in place of the plain image, such as random crops, in the form the backbone expects.

Reading image files is in batches.py. torchvision is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from clip_har.images.preprocessing import PixelTransform, Preprocessing, image_pixels, resize_pixels

if TYPE_CHECKING:
    from torch import Tensor

    from clip_har.config.converters import Augment

_CROP_AREA = {"light": (0.5, 1.0), "strong": (0.8, 1.0)}
"""Least and greatest share of the image's area that a crop keeps."""
_CROP_ASPECT = (3 / 4, 4 / 3)
"""Least and greatest width / height of a crop (Szegedy et al. 2015, arXiv 1409.4842, section 6)."""
_CROP_TRIALS = 10
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.2, 0.2, 0.2, 0.1
_ROTATION = 10.0  # degrees to either side
_TRANSLATION = 0.1  # of the side, in each direction


def training_transform(
    preprocessing: Preprocessing, augment: Augment, image_size: int | None
) -> Callable[[Image.Image], Tensor]:
    """Return what makes a training view of an RGB image: a float32 CHW tensor, normalised as the model wants it.

    Args:
        preprocessing: the model's; its mean, std and interpolation always hold.
        augment: "none" is the evaluation transform; "light" crops half the area or more and flips; "strong" crops 0.8
            or more, flips, changes colours, rotates and shifts.
        image_size: pixels of both sides; None is the model's own height and width.

    Returns:
        A transform that can be pickled. It draws from torch's global generator; see `ViewTransform`.
    """
    transform = ViewTransform(preprocessing=preprocessing, augment=augment, image_size=image_size)
    return transform.draw


def _random_steps(preprocessing: Preprocessing, augment: Augment) -> Callable[[Tensor], Tensor]:
    """Return what makes a random view of uint8 pixels [3, H, W]: uint8 in the model's frame."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = preprocessing.interpolation == "bilinear"
    interpolation = InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC
    steps = [
        RandomCrop(
            size=preprocessing.image_size, area=_CROP_AREA[augment], interpolation="bilinear" if bilinear else "bicubic"
        ),
        v2.RandomHorizontalFlip(),
    ]
    if augment == "strong":
        steps += [  # which are faster in Pillow
            v2.ToPILImage(),
            v2.ColorJitter(_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE),
            v2.RandomAffine(
                _ROTATION,
                translate=(_TRANSLATION, _TRANSLATION),
                interpolation=interpolation,
                fill=[round(255 * mean) for mean in preprocessing.mean],  # the tensor's zero
            ),
            v2.PILToTensor(),
        ]
    transform: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return transform


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A random part of an image, resized: torchvision's RandomResizedCrop, drawn in shares of the image's sides.

    The same draws therefore show the same part of an image at any resolution. Draws from torch's global generator.
    """

    size: tuple[int, int]
    """Height and width of the result in pixels."""
    area: tuple[float, float]
    """Least and greatest share of the image's area."""
    interpolation: str

    def __call__(self, pixels_CHW: Tensor) -> Tensor:
        """Crop and resize uint8 pixels [3, H, W]."""
        import torch

        _, height, width = pixels_CHW.shape
        high, wide = self._shares(width / height)
        kept_height, kept_width = max(1, round(high * height)), max(1, round(wide * width))
        down, right = torch.rand(2).tolist()
        top, left = round(down * (height - kept_height)), round(right * (width - kept_width))
        part_CHW = pixels_CHW[:, top : top + kept_height, left : left + kept_width]
        return resize_pixels(part_CHW, self.size, self.interpolation)

    def _shares(self, image_aspect: float) -> tuple[float, float]:
        """Draw the crop's height and width as shares of the image's; the most of its centre if ten draws do not fit."""
        import torch

        least, most = (math.log(aspect) for aspect in _CROP_ASPECT)
        for _ in range(_CROP_TRIALS):
            area_draw, aspect_draw = torch.rand(2).tolist()
            area = self.area[0] + area_draw * (self.area[1] - self.area[0])
            aspect = math.exp(least + aspect_draw * (most - least)) / image_aspect
            high, wide = math.sqrt(area / aspect), math.sqrt(area * aspect)
            if high <= 1 and wide <= 1:
                return high, wide
        aspect = min(max(image_aspect, _CROP_ASPECT[0]), _CROP_ASPECT[1]) / image_aspect
        return min(1.0, 1 / aspect), min(1.0, aspect)


@dataclass(frozen=True, kw_only=True)
class PixelView:
    """A training view up to its normalisation, whose randomness comes from a seed for each image. Can be pickled."""

    preprocessing: Preprocessing
    augment: Augment
    image_size: int | None = None
    """Pixels of both sides; None is the model's own height and width."""

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return the view, uint8 CHW, that this seed gives of an RGB image. Global generators stay as they are."""
        return self.of_pixels(image_pixels(image), seed) if self.augment != "none" else self._plain(image)

    def of_pixels(self, pixels_CHW: Tensor, seed: int) -> Tensor:
        """The same of an image that is a uint8 tensor already; not for augment "none"."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would set the accelerators' as well
            return self._random(pixels_CHW).contiguous()

    @cached_property
    def framing(self) -> Preprocessing:
        """The model's preprocessing, at the size of the views."""
        if self.image_size is None:
            return self.preprocessing
        return dataclasses.replace(self.preprocessing, image_size=(self.image_size, self.image_size))

    @cached_property
    def _random(self) -> Callable[[Tensor], Tensor]:
        return _random_steps(self.framing, self.augment)

    @cached_property
    def _plain(self) -> PixelTransform:
        return self.framing.pixel_transform()

    @property
    def enough_pixels(self) -> int | None:
        """Width times height from which on a larger image gives no sharper views; None: see `enough_side`."""
        if self.augment == "none":
            return None
        side = self.image_size or max(self.preprocessing.image_size)
        return round(side**2 / (_CROP_AREA[self.augment][0] * _CROP_ASPECT[0]))

    @property
    def enough_side(self) -> int | None:
        """The evaluation transform's, where views are plain."""
        return self._plain.enough_side if self.augment == "none" else None


@dataclass(frozen=True, kw_only=True)
class ViewTransform(PixelView):
    """`training_transform` whose randomness comes from a seed for each image. Can be pickled."""

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return the view, float32 CHW, normalised, that this seed gives of an RGB image."""
        return self.preprocessing.normalise(super().__call__(image, seed))

    def draw(self, image: Image.Image) -> Tensor:
        """The same from torch's global generator."""
        pixels_CHW = self._plain(image) if self.augment == "none" else self._random(image_pixels(image))
        return self.preprocessing.normalise(pixels_CHW)


def view_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on all the parts, such as (content hash, number of the view)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
