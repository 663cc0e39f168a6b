"""Which pixels speak for an answer: attention relevance for transformers, Grad-CAM for convolutional towers.

Laying a map over its picture is in overlay.py.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Shapes: B images, C classes, A attention heads, N tokens, K feature maps, h x w places of a map.

ATTENTION, GRAD_CAM = "attention relevance", "Grad-CAM"


@dataclass(kw_only=True)
class _Seen:
    """What one forward pass of the image encoder left behind."""

    attention: list[Tensor] = field(default_factory=list)
    """Attention probabilities [B, A, queries, keys], in the order of the layers."""
    features: Tensor | None = None
    """The last feature maps [B, K, h, w]."""


def relevance_maps(
    logits_of: Callable[[Tensor], Tensor], visual: nn.Module, images_BCHW: Tensor, answers_B: Tensor
) -> tuple[str, Tensor] | None:
    """How much each place of an image speaks for an answer against the other classes.

    The gradient is that of the answer's logit less the mean of all logits: what speaks for every class alike, as most
    of CLIP's similarity does, is not counted. Both methods are short enough to be written out here; captum has Grad-CAM
    but no gradient-weighted attention.

    Args:
        logits_of: preprocessed images -> logits [B, C], through `visual` and differentiable.
        visual: the image encoder.
        images_BCHW: preprocessed images, float32.
        answers_B: the class of each image to explain.

    Returns:
        The method's name and the maps [B, h, w] in [0, 1], each scaled to its largest value, all 0 where nothing
        speaks for the answer; None for a tower with neither attention over the image nor feature maps.
    """
    images = images_BCHW.detach().clone().requires_grad_(True)  # the towers' weights are frozen: the graph starts here
    with torch.enable_grad(), _recorded(visual) as seen:
        logits_BC = logits_of(images).float()
        score = (logits_BC.gather(1, answers_B[:, None])[:, 0] - logits_BC.mean(dim=1)).sum()
        square = [a for a in seen.attention if len(a) == len(images) and a.shape[-1] == a.shape[-2] > 1]
        if square:
            return ATTENTION, _scaled(_attention_relevance(seen.attention, square, score, visual))
        if seen.features is not None:
            return GRAD_CAM, _scaled(_grad_cam(seen.features, score))
    return None


def _attention_relevance(
    attention: Sequence[Tensor], square: Sequence[Tensor], score: Tensor, visual: nn.Module
) -> Tensor:
    """R <- R + E_heads[(dA * A)^+] R from the first layer to the last, from R = I; the class token's row is the map.

    Chefer et al. 2021 (arXiv 2103.15679), equations 5 and 6; dA is the gradient of the score.
    """
    pools = [a for a in attention if len(a) == len(square[0]) and a.shape[-1] != a.shape[-2]]
    tensors = [*square, *pools]
    gradients = torch.autograd.grad(score, tensors, allow_unused=True)
    positive = [
        torch.zeros_like(a[:, 0]) if gradient is None else (gradient * a).clamp(min=0).mean(dim=1).detach()
        for a, gradient in zip(tensors, gradients, strict=True)
    ]
    tokens = square[0].shape[-1]
    relevance_BNN = torch.eye(tokens, device=score.device).repeat(len(square[0]), 1, 1)
    for layer_BNN in positive[: len(square)]:
        relevance_BNN = relevance_BNN + layer_BNN @ relevance_BNN
    height, width, before = _grid(visual, tokens)
    pooled = [p for p in positive[len(square) :] if p.shape[-1] == tokens]
    if pooled:
        row_BN = (pooled[-1] @ relevance_BNN).mean(dim=1)
    elif before and _reads_class_token(visual):
        row_BN = relevance_BNN[:, 0]
    else:
        patches_BNN = relevance_BNN[:, before:]
        own = torch.diagonal(patches_BNN[:, :, before:], dim1=1, dim2=2)
        row_BN = patches_BNN.sum(dim=1)
        row_BN[:, before:] -= own.clamp(max=1.0)  # the identity that R started from says nothing
    return row_BN[:, before:].reshape(-1, height, width)


def _grad_cam(features_BKhw: Tensor, score: Tensor) -> Tensor:
    """ReLU(sum_k mean_hw(d score / d F_k) F_k) of the last feature maps F (Selvaraju et al. 2017, arXiv 1610.02391)."""
    (gradient,) = torch.autograd.grad(score, features_BKhw)
    weights_BK11 = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights_BK11 * features_BKhw).sum(dim=1).clamp(min=0).detach()


def _scaled(maps_Bhw: Tensor) -> Tensor:
    highest = maps_Bhw.amax(dim=(1, 2), keepdim=True)
    return (maps_Bhw / highest.clamp(min=torch.finfo(maps_Bhw.dtype).tiny)).cpu()


def _grid(visual: nn.Module, tokens: int) -> tuple[int, int, int]:
    """Rows and columns of patches, and the tokens before them, such as the class token."""
    holder: Any = visual
    stated = getattr(holder, "grid_size", None) or getattr(
        getattr(getattr(holder, "trunk", None), "patch_embed", None), "grid_size", None
    )
    if stated is not None and math.prod(stated) <= tokens:
        return int(stated[0]), int(stated[1]), tokens - math.prod(stated)
    side = math.isqrt(tokens)
    return side, side, tokens - side * side


def _reads_class_token(visual: nn.Module) -> bool:
    kind = getattr(visual, "pool_type", None) or getattr(getattr(visual, "trunk", None), "global_pool", None)
    return kind in (None, "tok", "token")


@contextlib.contextmanager
def _recorded(visual: nn.Module) -> Iterator[_Seen]:
    """Record attention probabilities and the last feature maps while the image encoder runs.

    Every kind of attention layer, torch's own, timm's and the adapted ones, calls the fused function of torch, which
    keeps no probabilities: for the time being it is replaced by the same computed step by step.
    """
    seen = _Seen()

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa or query.ndim != 4:  # not of an image tower
            return fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        probabilities = scores.softmax(dim=-1)
        if inside or not entered:
            seen.attention.append(probabilities)
        return probabilities @ value

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1 and output.requires_grad:
            seen.features = output

    def enter(_module: nn.Module, _inputs: Any) -> None:
        if not entered:  # what ran before is another member's of an ensemble
            seen.attention.clear()
        entered.append(True)
        inside.append(True)

    def leave(*_: Any) -> None:
        inside.pop()

    entered: list[bool] = []
    inside: list[bool] = []
    fused = F.scaled_dot_product_attention
    leaves = [module for module in visual.modules() if not any(module.children())]
    handles = [module.register_forward_hook(keep) for module in leaves]
    handles += [visual.register_forward_pre_hook(enter), visual.register_forward_hook(leave)]
    F.scaled_dot_product_attention = attend
    try:
        yield seen
    finally:
        F.scaled_dot_product_attention = fused
        for handle in handles:
            handle.remove()
