"""Views: what training sees in place of the plain image, such as random crops, in the form the backbone expects.

Reading image files is in batches.py. torchvision is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from clip_har.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from clip_har.config.tree import Augment

_CROP_AREA = {"light": (0.5, 1.0), "strong": (0.8, 1.0)}
"""Least and greatest share of the image's area that a crop keeps."""
_CROP_ASPECT = (3 / 4, 4 / 3)
"""Least and greatest width / height of a crop (Szegedy et al. 2015, arXiv 1409.4842, section 6)."""
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
    if image_size is not None:
        preprocessing = dataclasses.replace(preprocessing, image_size=(image_size, image_size))
    if augment == "none":
        return preprocessing.transform()
    return _random_transform(preprocessing, augment)


def _random_transform(preprocessing: Preprocessing, augment: Augment) -> Callable[[Image.Image], Tensor]:
    import torch
    from torchvision.transforms import InterpolationMode, v2

    bilinear = preprocessing.interpolation == "bilinear"
    interpolation = InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC
    size = list(preprocessing.image_size)
    area = _CROP_AREA[augment]
    steps = [
        v2.RandomResizedCrop(size, scale=area, ratio=_CROP_ASPECT, interpolation=interpolation),
        v2.RandomHorizontalFlip(),
    ]
    if augment == "strong":
        steps += [
            v2.ColorJitter(_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE),
            v2.RandomAffine(
                _ROTATION,
                translate=(_TRANSLATION, _TRANSLATION),
                interpolation=interpolation,
                fill=[round(255 * mean) for mean in preprocessing.mean],  # the tensor's zero
            ),
        ]
    steps += [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(preprocessing.mean, preprocessing.std),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose(steps)
    return transform


@dataclass(frozen=True, kw_only=True)
class ViewTransform:
    """`training_transform` whose randomness comes from a seed for each image. Can be pickled."""

    preprocessing: Preprocessing
    augment: Augment
    image_size: int | None = None
    """Pixels of both sides; None is the model's own height and width."""

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return the view, float32 CHW, that this seed gives of an RGB image. Global generators stay as they are."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would set the accelerators' as well
            return self._transform(image)

    @cached_property
    def _transform(self) -> Callable[[Image.Image], Tensor]:
        return training_transform(self.preprocessing, self.augment, self.image_size)

    @property
    def enough_pixels(self) -> int | None:
        """Width times height from which on a larger image gives no sharper views; None: every pixel counts."""
        if self.augment == "none":
            return None
        side = self.image_size or max(self.preprocessing.image_size)
        return round(side**2 / (_CROP_AREA[self.augment][0] * _CROP_ASPECT[0]))


def view_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) that depends on all the parts, such as (content hash, number of the view)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
