"""From an RGB image to the tensor a backbone expects: the backbone's own evaluation transform, and its card.

Reading image files is in decoding.py. open_clip is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from clip_har.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

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
                "image_size": len(self.image_size) == 2 and min(self.image_size) > 0,
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
            raise ConfigError(f"preprocessing cannot use {values}", remedy="Take the values of the backbone's card.")

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
        """Read an open_clip model's `visual.preprocess_cfg`; keys that only open_clip needs are left out."""
        size = values["size"]
        height, width = (size, size) if isinstance(size, int) else size
        optional = {name: values[name] for name in ("interpolation", "resize_mode", "fill_color") if name in values}
        return cls(image_size=(height, width), mean=tuple(values["mean"]), std=tuple(values["std"]), **optional)

    def transform(self) -> ModelTransform:
        """Return open_clip's own evaluation transform: RGB image in, float32 CHW tensor out."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(
            size=self.image_size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.resize_mode,
            fill_color=self.fill_color,
        )
        return ModelTransform(preprocessing=self, open_clip_transform=image_transform_v2(config, is_train=False))


@dataclass(frozen=True, kw_only=True)
class ModelTransform:
    """A backbone's evaluation transform, with bounded memory on images of extreme shape. Can be pickled."""

    preprocessing: Preprocessing
    open_clip_transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into a float32 CHW tensor, normalised."""
        return self.open_clip_transform(_resize_extreme(image, self.preprocessing))


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
    bilinear = preprocessing.interpolation == "bilinear" and (mode == "longest" or height == width)
    resampling = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
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
