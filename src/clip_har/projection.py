"""The linear layer at an image encoder's end, from the features before it (hidden) to embeddings: x = h W + b.

open_clip has four places for it: a ViT's parameter `visual.proj`; the linear layer `visual.head.proj` of a timm tower,
or the trunk's own classifier (Perception Encoder, EVA); and `visual.attnpool.c_proj` of a ModifiedResNet, which its
attention pool applies. SigLIP's towers end in an attention pool and have none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEW_PROJECTIONS = frozenset({"attnpool.c_proj", "trunk"})
"""Places of the projection that earlier versions did not know: they used the embeddings as features."""

# Shapes: B images, H width of the features before the projection, D of the embeddings.


class _Unprojected(nn.Module):
    """In place of an attention pool's output layer, of which torch reads weight and bias: the identity."""

    def __init__(self, width: int, like: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.eye(width, dtype=like.dtype, device=like.device), persistent=False)
        self.register_buffer("bias", torch.zeros(width, dtype=like.dtype, device=like.device), persistent=False)


def projection_of(visual: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weights W [H, D] and bias b [D] of an image encoder's projection, float32 on the CPU; None if it has none."""
    place = _place(visual)
    if place is None:
        return None
    holder, name = place
    layer = getattr(holder, name)
    weight_HD = layer if isinstance(layer, nn.Parameter) else layer.weight.T
    bias_D = None if isinstance(layer, nn.Parameter) else layer.bias
    weight_HD = weight_HD.detach().float().cpu().contiguous()
    return weight_HD, torch.zeros(weight_HD.shape[1]) if bias_D is None else bias_D.detach().float().cpu()


def remove_projection(visual: nn.Module) -> bool:
    """Let an image encoder return its features before the projection; False if it has no projection."""
    place = _place(visual)
    if place is None:
        return False
    holder, name = place
    setattr(holder, name, _without(holder, getattr(holder, name)))
    return True


@contextlib.contextmanager
def capture_hidden(visual: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the features before an image encoder's projection during one forward pass.

    Yields:
        A dictionary that has them under "hidden" after the pass, [B, H]; empty for an encoder without a projection.
    """
    captured: dict[str, Tensor] = {}
    place = _place(visual)
    if place is None:
        yield captured
        return
    holder, name = place
    layer = getattr(holder, name)

    def project(_module: nn.Module, _inputs: Any, hidden_BH: Tensor) -> Tensor:
        captured["hidden"] = hidden_BH
        if isinstance(layer, nn.Parameter):
            return hidden_BH @ layer
        return F.linear(hidden_BH, layer.weight, layer.bias)

    setattr(holder, name, _without(holder, layer))
    handle = visual.register_forward_hook(project)
    try:
        yield captured
    finally:
        handle.remove()
        setattr(holder, name, layer)


def place_of_projection(visual: nn.Module) -> str:
    """Where an image encoder's projection is: "proj", "head.proj", "attnpool.c_proj", "trunk", or "" without one."""
    place = _place(visual)
    if place is None:
        return ""
    holder, name = place
    if holder is visual:
        return name
    return {"proj": "head.proj", "c_proj": "attnpool.c_proj"}.get(name, "trunk")


def _place(visual: nn.Module) -> tuple[Any, str] | None:
    """The module that holds the projection, and the attribute's name."""
    towers: Any = visual
    if isinstance(getattr(towers, "proj", None), nn.Parameter):
        return visual, "proj"
    head = getattr(towers, "head", None)
    if isinstance(getattr(head, "proj", None), nn.Linear):
        return head, "proj"
    pool = getattr(towers, "attnpool", None)
    if isinstance(getattr(pool, "c_proj", None), nn.Linear):
        return pool, "c_proj"
    trunk: Any = getattr(towers, "trunk", None)
    classifier = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None
    if not isinstance(classifier, nn.Linear) or len(head or ()):  # something follows it
        return None
    path = next(path for path, module in trunk.named_modules() if module is classifier)
    holder, _, name = path.rpartition(".")
    return trunk.get_submodule(holder), name


def _without(holder: Any, layer: nn.Parameter | nn.Linear) -> nn.Module | None:
    if isinstance(layer, nn.Parameter):
        return None
    pools = hasattr(holder, "k_proj")
    return _Unprojected(layer.in_features, layer.weight) if pools else nn.Identity()
