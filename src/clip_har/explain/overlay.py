"""A relevance map laid over the picture that the model saw. Where the map comes from is in relevance.py."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clip_har.images import Preprocessing

SHORTEST = 224
"""Pixels that an overlay's short side has at least."""
STRENGTH = 0.65
"""Share of the colour where the map is highest."""


def shown_image(image_CHW: Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A preprocessed image as a picture again: what the model saw, cropped as it saw it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels_HWC = ((image_CHW.float().cpu() * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels_HWC.numpy())


def overlay(picture: Image.Image, map_hw: Tensor) -> Image.Image:
    """The picture with warm colours where the map is high; greyed a little, so that the colours are the map's.

    Args:
        picture: RGB.
        map_hw: values in [0, 1], of any size; the picture's corners are the map's.
    """
    from matplotlib import colormaps  # slow to import

    factor = max(1.0, SHORTEST / min(picture.size))
    size = (round(picture.width * factor), round(picture.height * factor))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    smooth_HW = F.interpolate(map_hw[None, None].float(), (size[1], size[0]), mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    colours_HWC = colormaps["inferno"](smooth_HW)[..., :3] * 255
    pixels_HWC = np.asarray(picture, dtype=np.float64)
    muted_HWC = 0.6 * pixels_HWC + 0.4 * pixels_HWC.mean(axis=2, keepdims=True)
    share_HW1 = STRENGTH * smooth_HW[..., None]
    mixed = (1 - share_HW1) * muted_HWC + share_HW1 * colours_HWC
    return Image.fromarray(np.clip(mixed, 0, 255).round().astype(np.uint8))


def png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()
