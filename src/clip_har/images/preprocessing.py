"""From an RGB image to the tensor a backbone expects: the backbone's own evaluation transform, and its card.

Reading image files is in decoding.py. torch is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from clip_har.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_MAX_SIDE = 4096  # pixels; no image tower takes more, and a forged card could ask for all memory
PIXELS_VERSION = 2
"""Counts the ways in which this project has made pixels of files: what is computed from others is computed again."""

_EXTREME_ASPECT = 4.0


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a backbone wants its images: the part of a checkpoint's card that predicting must not guess."""

    image_size: tuple[int, int]
    """Height and width in pixels."""

    mean: tuple[float, float, float]
    """Per channel, of values in [0, 1]; subtracted."""

    std: tuple[float, float, float]
    """Per channel, of values in [0, 1]; divided by."""

    interpolation: str = "bicubic"
    """"bicubic" or "bilinear"; open_clip's "random" means bicubic outside training."""

    resize_mode: str = "shortest"
    """"shortest" fills the frame and crops the centre, "longest" pads, "squash" distorts."""

    fill_color: int = 0
    """Of the padding, in [0, 255]."""

    def __post_init__(self) -> None:
        problems = [
            name
            for name, good in {
                "image_size": len(self.image_size) == 2
                and 0 < min(self.image_size) <= max(self.image_size) <= _MAX_SIDE,
                "mean": len(self.mean) == 3,
                "std": len(self.std) == 3 and min(self.std) > 0,
                "interpolation": self.interpolation in {"bicubic", "bilinear", "random"},
                "resize_mode": self.resize_mode in {"shortest", "longest", "squash"},
                "fill_color": 0 <= self.fill_color <= 255,
            }.items()
            if not good
        ]
        if problems:
            values = ", ".join(f"{name} = {getattr(self, name)!r}" for name in problems)
            raise ConfigError(f"preprocessing cannot use {values}", remedy="Use the values of the backbone's card.")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as what `json.dumps` takes."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_json` returned.

        Raises:
            ConfigError: a field is missing, unknown or of the wrong kind.
        """
        known = {field.name for field in fields(cls)}
        try:
            if unknown := sorted(set(values) - known):
                raise ValueError(f"unknown {', '.join(unknown)}")
            fitting: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            }
            return cls(**fitting)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessing is damaged: {error}", remedy="Restore the card from a backup.") from error

    @classmethod
    def from_open_clip(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read an open_clip model's `visual.preprocess_cfg`; keys that only open_clip needs are omitted."""
        size = values["size"]
        height, width = (size, size) if isinstance(size, int) else size
        optional = {name: values[name] for name in ("interpolation", "resize_mode", "fill_color") if name in values}
        return cls(image_size=(height, width), mean=tuple(values["mean"]), std=tuple(values["std"]), **optional)

    def transform(self) -> ModelTransform:
        """Return the evaluation transform: RGB image in, float32 CHW tensor out, normalised."""
        return ModelTransform(preprocessing=self)

    def pixel_transform(self) -> PixelTransform:
        """Return the same without normalising: RGB image in, uint8 CHW tensor out."""
        return PixelTransform(preprocessing=self)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels [..., 3, H, W] into the float32 tensor that the backbone expects, on the same device."""
        import torch

        mean_C11, std_C11 = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return pixels.to(torch.float32).div_(255).sub_(mean_C11).div_(std_C11)


@dataclass(frozen=True, kw_only=True)
class PixelTransform:
    """A backbone's evaluation transform up to its normalisation. Can be pickled.

    It is open_clip's own but for rounding: torch's resizing of 8-bit pixels has Pillow's filters and is several times
    faster; one pixel in two hundred differs by one grey level, where an image is enlarged by two.
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image to the model's frame: uint8 CHW."""
        image = _resize_extreme(image, self.preprocessing)
        height, width = self.preprocessing.image_size
        resized = (width, height)
        if self.preprocessing.resize_mode != "squash":
            resized = _open_clip_size(image.size, self.preprocessing)
        if resized[0] > image.width or resized[1] > image.height:
            image = image.resize(resized, _resampling(self.preprocessing))
        resized_CHW = resize_pixels(image_pixels(image), resized[::-1], _interpolation(self.preprocessing))
        return _centre(resized_CHW, (height, width), self.preprocessing.fill_color).contiguous()

    @property
    def enough_side(self) -> int:
        """Pixels of the shorter side from which on a larger JPEG may be decoded at a fraction of its size.

        Four times what is needed, so that the filter still averages: embeddings keep a cosine of 0.999 or more
        (benchmarks/decode_speed.py); with twice as much, some fall to 0.996.
        """
        return 4 * max(self.preprocessing.image_size)


@dataclass(frozen=True, kw_only=True)
class ModelTransform(PixelTransform):
    """A backbone's evaluation transform, with bounded memory on images of extreme shape. Can be pickled."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into a float32 CHW tensor, normalised."""
        return self.preprocessing.normalise(super().__call__(image))


def image_pixels(image: Image.Image) -> Tensor:
    """Return an RGB image as uint8 CHW, laid out in memory as the image is (HWC)."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize_pixels(pixels_CHW: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 pixels to (height, width), with an antialiased "bicubic" or "bilinear" filter as Pillow's."""
    import torch.nn.functional as F

    if tuple(pixels_CHW.shape[1:]) == size:
        return pixels_CHW
    return F.interpolate(pixels_CHW[None], size=size, mode=interpolation, antialias=True)[0]


def _interpolation(preprocessing: Preprocessing) -> str:
    """Return the filter that open_clip uses; it forgets what was asked for where the frame is not square."""
    height, width = preprocessing.image_size
    heeded = preprocessing.resize_mode != "shortest" or height == width
    return "bilinear" if preprocessing.interpolation == "bilinear" and heeded else "bicubic"


def _resampling(preprocessing: Preprocessing) -> Image.Resampling:
    return Image.Resampling[_interpolation(preprocessing).upper()]


def _centre(pixels_CHW: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """Cut the centre out of what is larger than the frame, and pad what is smaller."""
    channels, height, width = pixels_CHW.shape
    top, left = (round((side - kept) / 2.0) for side, kept in zip((height, width), size, strict=True))
    cut_CHW = pixels_CHW[:, max(top, 0) :, max(left, 0) :][:, : size[0], : size[1]]
    if cut_CHW.shape[1:] == size:
        return cut_CHW
    framed_CHW = cut_CHW.new_full((channels, *size), fill)
    first_row, first_column = (size[0] - cut_CHW.shape[1]) // 2, (size[1] - cut_CHW.shape[2]) // 2
    framed_CHW[:, first_row:, first_column:][:, : cut_CHW.shape[1], : cut_CHW.shape[2]] = cut_CHW
    return framed_CHW


def _resize_extreme(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize an image of extreme shape to the frame; return any other image as it is.

    open_clip would make 149,333 x 224 pixels of 2000 x 3 and then keep 224 of the columns, or round a side to
    none. Here only what is kept is computed, with the neighbours that the filter needs: the same result,
    up to rounding where Pillow chooses to scale the other side first.
    """
    height, width = preprocessing.image_size
    aspect = (image.width / width) / (image.height / height)
    mode = preprocessing.resize_mode
    if mode == "squash" or 1 / _EXTREME_ASPECT <= aspect <= _EXTREME_ASPECT:
        return image
    resampling = _resampling(preprocessing)
    resized_width, resized_height = _open_clip_size(image.size, preprocessing)
    if mode == "longest":
        return image.resize((resized_width, resized_height), resampling)
    columns = _kept_span(image.width, resized_width, width)
    rows = _kept_span(image.height, resized_height, height)
    around = image.crop((columns.first, rows.first, columns.last, rows.last))
    box = (columns.start, rows.start, columns.stop, rows.stop)
    return around.resize((width, height), resampling, box=box)


class _KeptSpan(NamedTuple):
    """What a centre crop keeps of one side of an image, in pixels of that image."""

    first: int
    """Where the pixels begin that the filter looks at."""
    last: int
    """Where they end."""
    start: float
    """Where the kept part begins, counted from `first`."""
    stop: float
    """Where it ends, counted from `first`."""


def _kept_span(side: int, resized: int, kept: int) -> _KeptSpan:
    """Project the centre `kept` of `resized` pixels back onto a side of the image before it was resized."""
    scale = side / resized
    crop_start = round((resized - kept) / 2.0)  # torchvision's CenterCrop
    start, stop = crop_start * scale, min((crop_start + kept) * scale, side)
    margin = 3 * max(scale, 1.0)  # pixels; a bicubic filter reaches for two
    first, last = max(0, math.floor(start - margin)), min(side, math.ceil(stop + margin))
    return _KeptSpan(first, last, start - first, stop - first)


def _open_clip_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height that open_clip resizes to before it crops or pads."""
    (image_width, image_height), (height, width) = size, preprocessing.image_size
    if preprocessing.resize_mode == "shortest" and height == width:  # torchvision's Resize rounds down
        if image_width <= image_height:
            return width, int(width * image_height / image_width)
        return int(height * image_width / image_height), height
    ratios = image_height / height, image_width / width  # open_clip's ResizeKeepRatio rounds to nearest
    ratio = max(ratios) if preprocessing.resize_mode == "longest" else min(ratios)
    return max(1, round(image_width / ratio)), max(1, round(image_height / ratio))
