"""One image for several backbones: the pixels that each wants, side by side in one flat tensor.

Backbones of different frames can then share decoding, batches and workers, which pass tensors of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from clip_har.errors import ConfigError
from clip_har.images.preprocessing import ModelTransform, PixelTransform, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

_MOST_PARTS = 16  # a forged card could ask for all memory


@dataclass(frozen=True, kw_only=True)
class FusedPreprocessing(Preprocessing):
    """How several backbones want one image. The inherited fields are those of the first.

    Raises:
        ConfigError: fewer than two parts, or too many.
    """

    parts: tuple[Preprocessing, ...] = field(default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= len(self.parts) <= _MOST_PARTS or any(isinstance(p, FusedPreprocessing) for p in self.parts):
            what = f"preprocessing has {len(self.parts)} parts"
            raise ConfigError(what, remedy=f"Combine 2 to {_MOST_PARTS} models.")

    @classmethod
    def of(cls, parts: Sequence[Preprocessing]) -> FusedPreprocessing:
        """The preprocessing of several backbones, in their order."""
        return cls(**vars(parts[0]), parts=tuple(parts))

    def to_json(self) -> dict[str, Any]:
        return {"parts": [part.to_json() for part in self.parts]}

    def transform(self) -> FusedTransform:
        """Return the evaluation transform: RGB image in, float32 [P] out, normalised."""
        return FusedTransform(preprocessing=self)

    def pixel_transform(self) -> FusedPixelTransform:
        """Return the same without normalising: RGB image in, uint8 [P] out."""
        return FusedPixelTransform(preprocessing=self)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels [..., P] into the float32 tensor [..., P] that `split` takes apart."""
        import torch

        return torch.cat(
            [part.normalise(own).flatten(-3) for part, own in zip(self.parts, self.split(pixels), strict=True)],
            dim=-1,
        )

    def split(self, pixels: Tensor) -> list[Tensor]:
        """The pixels [..., 3, H, W] of each backbone, from [..., P]."""
        sizes = [3 * math.prod(part.image_size) for part in self.parts]
        return [
            own.unflatten(-1, (3, *part.image_size))
            for part, own in zip(self.parts, pixels.split(sizes, dim=-1), strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class FusedPixelTransform(PixelTransform):
    """The backbones' evaluation transforms up to their normalisation. Can be pickled."""

    preprocessing: FusedPreprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image to each model's frame: uint8 [P]."""
        import torch

        return torch.cat([part.pixel_transform()(image).flatten() for part in self.preprocessing.parts])

    @property
    def enough_side(self) -> int:
        return max(part.pixel_transform().enough_side for part in self.preprocessing.parts)


@dataclass(frozen=True, kw_only=True)
class FusedTransform(FusedPixelTransform, ModelTransform):
    """The backbones' evaluation transforms. Can be pickled."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into a float32 tensor [P], normalised."""
        return self.preprocessing.normalise(FusedPixelTransform.__call__(self, image))


def preprocessing_from_json(values: Mapping[str, Any]) -> Preprocessing:
    """Read what `to_json` of either kind returned.

    Raises:
        ConfigError: a field is missing, unknown or of the wrong kind.
    """
    parts = values.get("parts")
    if not isinstance(parts, list) or len(values) != 1 or not all(isinstance(part, dict) for part in parts):
        return Preprocessing.from_json(values)
    return FusedPreprocessing.of([Preprocessing.from_json(part) for part in parts or [{}]])
