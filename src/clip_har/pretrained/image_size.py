"""Other image sizes than a model was pretrained with: NAME@SIZE."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.errors import ModelError
from clip_har.failures import is_exhausted

SMALLEST, LARGEST = 32, 1024
"""Sides in pixels that can be asked for."""


def set_image_size(model: nn.Module, side: int, name: str) -> bool:
    """Make a model's image encoder read images of `side` x `side` pixels; whether that is not its own size.

    Convolutions take any size. Positional embeddings of transformers and attention pools are interpolated over the new
    grid of patches (bicubic; Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.2).

    Args:
        model: of open_clip.
        name: the model's, for messages.

    Raises:
        ModelError: the size is out of range, no multiple of the patches, or the encoder takes only its own.
    """
    if side == image_side(model):
        return False
    if not SMALLEST <= side <= LARGEST:
        raise ModelError(f"{name}: an image size of {side}", remedy=f"Pass one from {SMALLEST} to {LARGEST} pixels.")
    visual = cast(Any, model).visual
    try:
        if hasattr(visual, "trunk"):
            _resize_timm(visual, side)
        elif hasattr(visual, "attnpool"):
            cell = _side(visual.image_size) / (math.isqrt(len(visual.attnpool.positional_embedding)) or 1)
            _require_multiple(side, round(cell), name)
            _resize(visual.attnpool, side // round(cell))
            visual.image_size = side
        elif hasattr(visual, "grid_size") and hasattr(visual, "positional_embedding"):
            _require_multiple(side, _side(visual.patch_size), name)
            visual.grid_size = (side // _side(visual.patch_size),) * 2
            _resize(visual, visual.grid_size[0])
            visual.image_size = (side, side)
        else:
            raise ModelError(
                f"{name}: this kind of image encoder takes only its own image size", remedy="Pass the model without it."
            )
        _try(visual, side)
    except ModelError:
        raise
    except Exception as error:
        if is_exhausted(error):
            raise
        raise ModelError(
            f"{name}: the image encoder does not take images of {side} pixels",
            remedy="Pass the model without the size, or another size.",
        ) from error
    visual.preprocess_cfg = {**visual.preprocess_cfg, "size": (side, side)}
    return True


def require_size(model: nn.Module, side: int, name: str) -> None:
    """Refuse to train a model, as it is, on images of `side` x `side` pixels that its image encoder does not take.

    Raises:
        ModelError: it does not.
    """
    try:
        _try(cast(Any, model).visual, side)
    except Exception as error:
        if is_exhausted(error):
            raise
        raise ModelError(
            f"{name}: the image encoder takes images of {image_side(model)} pixels only, not of {side}",
            remedy=f"Train without --train-image-size, or for images of another size: --model {name}@SIZE.",
        ) from error


def image_side(model: nn.Module) -> int:
    """The larger side in pixels of the images that a model of open_clip reads."""
    return _side(cast(Any, model).visual.image_size)


def _side(size: Any) -> int:
    return int(max(size) if isinstance(size, (tuple, list)) else size)


def _require_multiple(side: int, cell: int, name: str) -> None:
    if side % cell:
        below = side // cell * cell
        nearest = [size for size in (below, below + cell) if SMALLEST <= size <= LARGEST]
        raise ModelError(
            f"{name}: the image size must be a multiple of {cell}", remedy=f"Pass {' or '.join(map(str, nearest))}."
        )


def _resize_timm(visual: Any, side: int) -> None:
    if hasattr(visual.trunk, "set_input_size"):  # transformers
        visual.trunk.set_input_size(img_size=(side, side))
    visual.image_size = (side, side)


def _resize(holder: Any, grid: int) -> None:
    """Interpolate the embeddings of a square grid of patches, the first of which belongs to a token of its own."""
    embedding_PW: Tensor = holder.positional_embedding
    old = math.isqrt(len(embedding_PW) - 1)
    if old**2 != len(embedding_PW) - 1:
        raise ValueError("positional embeddings are not those of a square grid and one token")
    with torch.no_grad():
        token_1W, patches_PW = embedding_PW[:1], embedding_PW[1:]
        grid_1WGG = patches_PW.float().T.reshape(1, -1, old, old)
        resized_1WGG = F.interpolate(grid_1WGG, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
        resized_PW = resized_1WGG.flatten(2)[0].T.to(embedding_PW.dtype)
        resized = torch.cat([token_1W, resized_PW]).contiguous()
    holder.positional_embedding = nn.Parameter(resized, requires_grad=embedding_PW.requires_grad)


@torch.no_grad()
def _try(visual: nn.Module, side: int) -> None:
    """Encode a black image, with which an encoder of another size fails."""
    training = visual.training
    visual.eval()  # else batch norms would take the black image into their statistics
    weight = next(visual.parameters())
    visual(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    visual.train(training)
