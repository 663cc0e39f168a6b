"""The layers of a vision transformer below the lowest one that is trained: what they give can be computed once.

With `--layers last:K` the image encoder is f(x) = rest(below(x)), where `below` has no trained parameter and draws
nothing at random, so that its output for an image stays the same in every epoch. Where that output is kept is in
layer_cache.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_har.methods.learning_rates import depth_of

# Shapes: B images, L tokens, W width of the layers, D embedding width.

_ABOVE_LAYERS = (
    "ln_post",
    "proj",
    "attn_pool",
    "head",
    "trunk.norm.",
    "trunk.fc_norm",
    "trunk.attn_pool",
    "trunk.head",
)
"""Where the names of parameters begin that work on what the last layer gives."""


@dataclass(frozen=True)
class SplitTower:
    """An image encoder in two parts: the first `depth` layers with what lies below them, and the rest."""

    visual: nn.Module
    """open_clip's `VisionTransformer`, or its `TimmModel` of timm's `VisionTransformer`."""
    depth: int

    @property
    def layers(self) -> int:
        """How many layers there are in all."""
        return len(_blocks(self.visual))

    def below(self, images_BCHW: Tensor) -> Tensor:
        """What the frozen layers make of preprocessed images [B, 3, H, W]: tokens [B, L, W]."""
        visual = cast(Any, self.visual)
        if _is_timm(self.visual):
            trunk = visual.trunk
            tokens_BLW = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images_BCHW)))
        else:
            tokens_BLW = visual._embeds(images_BCHW)
        for block in _blocks(self.visual)[: self.depth]:
            tokens_BLW = block(tokens_BLW)
        return cast(Tensor, tokens_BLW)

    def rest(self, tokens_BLW: Tensor) -> Tensor:
        """The image embeddings [B, D] of those tokens, not normalised."""
        visual = cast(Any, self.visual)
        stack = visual.trunk if _is_timm(self.visual) else visual.transformer
        for block in _blocks(self.visual)[self.depth :]:
            if stack.grad_checkpointing and torch.is_grad_enabled():
                tokens_BLW = cast(Tensor, checkpoint(block, tokens_BLW, use_reentrant=False))
            else:
                tokens_BLW = block(tokens_BLW)
        if _is_timm(self.visual):
            return cast(Tensor, visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens_BLW))))
        pooled_BW = visual._pool(tokens_BLW)[0]
        return cast(Tensor, pooled_BW if visual.proj is None else pooled_BW @ visual.proj)


def split_tower(model: nn.Module) -> SplitTower | None:
    """Split an open_clip model's image encoder below its lowest trained layer.

    Returns:
        None if the first layer, or what lies below it, is trained, if nothing is, or if it is not a vision transformer
        of a known form.
    """
    visual = cast(nn.Module, model.visual)
    if not _is_known(visual):
        return None
    depths = []
    for name, parameter in visual.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depth_of(f"visual.{name}")
        if depth is None and not name.startswith(_ABOVE_LAYERS):
            return None
        depths.append(len(_blocks(visual)) if depth is None else depth)
    depth = min(depths, default=0)
    return SplitTower(visual, depth) if depth > 0 else None


def _is_timm(visual: nn.Module) -> bool:
    return hasattr(visual, "trunk")


def _blocks(visual: nn.Module) -> nn.ModuleList:
    stack = cast(Any, visual)
    return cast(nn.ModuleList, stack.trunk.blocks if _is_timm(visual) else stack.transformer.resblocks)


def _is_known(visual: nn.Module) -> bool:
    """Whether the encoder has the form that `SplitTower` takes apart, and drops no patches at random."""
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    from timm.models import vision_transformer

    if type(visual) is VisionTransformer:
        return bool(cast(Any, visual).transformer.batch_first) and isinstance(visual.patch_dropout, nn.Identity)
    trunk: Any = getattr(visual, "trunk", None)
    if type(visual) is TimmModel and type(trunk) is vision_transformer.VisionTransformer:
        return isinstance(trunk.patch_drop, nn.Identity)
    return False
