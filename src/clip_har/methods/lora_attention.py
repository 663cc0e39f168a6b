"""Forward passes for PEFT's layers where its own is slow or passed by. The parameters and their names stay PEFT's.

Both classes only replace methods, so that a layer that PEFT has made becomes one by a new `__class__`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import layer as peft_layers
from torch import Tensor, nn

from clip_har.methods.lora_layers import ADAPTER

# Shapes: B sequences, L tokens, W width, R rank, H heads.


class FastAttention(peft_layers.MultiheadAttention):  # type: ignore[misc]
    """Self-attention with y = W x + b + s B A x for query, key and value together (A [R, W], B [3W, R]).

    PEFT builds W + s B A anew in every pass and back-propagates through it, which takes a product as large as the
    layer's own for the gradient of W; here that gradient is never formed (Hu et al. 2021, arXiv 2106.09685, eq. 3).
    Calls that ask for more than self-attention's output go to PEFT.

    The output projection's pair stays at B = 0: PEFT adds its product twice to the weight, but once to the gradient
    (`merge` sets the merged weight and then has the projection merge itself), so any other value would be trained
    against a wrong gradient, and would mean something else in a PEFT that has mended it. CLIP-LoRA adapts query, key
    and value alone as well (Zanella & Ben Ayed 2024, arXiv 2405.18541, section 4).
    """

    def forward(self, query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        key, value, padding, need_weights, mask = _arguments(*args, **kwargs)
        same = key is query and value is query
        plain = self.base_layer.bias_k is None and not self.base_layer.add_zero_attn and query.ndim == 3
        if self.disable_adapters or self.merged or need_weights or padding is not None or not (same and plain):
            return super().forward(query, *args, **kwargs)  # type: ignore[no-any-return]
        x_BLW = query if self.base_layer.batch_first else query.transpose(0, 1)
        attended_BLW = self._attend(x_BLW, mask)
        projection = self.base_layer.out_proj.get_base_layer()
        output_BLW = F.linear(attended_BLW, projection.weight, projection.bias).to(query.dtype)
        return (output_BLW if self.base_layer.batch_first else output_BLW.transpose(0, 1)), None

    def _attend(self, x_BLW: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, width = x_BLW.shape
        heads = self.base_layer.num_heads
        joint_B3HLd = self._project(x_BLW).reshape(batch, length, 3, heads, width // heads).permute(0, 2, 3, 1, 4)
        query, key, value = joint_B3HLd.unbind(dim=1)
        if mask is not None:
            if mask.ndim == 3:  # one for each sequence and head
                mask = mask.reshape(batch, heads, length, -1)
            mask = (
                mask.logical_not() if mask.dtype == torch.bool else mask.to(query.dtype)
            )  # True hides there, shows here
        attended_BHLd = F.scaled_dot_product_attention(query, key, value, mask)
        return attended_BHLd.transpose(1, 2).reshape(batch, length, width)

    def _project(self, x_BLW: Tensor) -> Tensor:
        """W x + b + s B A x: query, key and value one after the other [B, L, 3W]."""
        joint = F.linear(x_BLW, self.base_layer.in_proj_weight, self.base_layer.in_proj_bias)
        down_BLR = self.lora_A[ADAPTER](self.lora_dropout[ADAPTER](x_BLW))
        up_R3W = self.lora_B[ADAPTER].weight.T
        scale = self.scaling[ADAPTER]
        return torch.addmm(joint.flatten(0, 1), down_BLR.flatten(0, 1), up_R3W, alpha=scale).view_as(joint)

    def _restore_weights(self) -> None:
        """PEFT registers the base weights anew whenever modules are listed; needed only if it has replaced them."""
        if "in_proj_weight" not in self.base_layer._parameters:
            super()._restore_weights()


class ReadableLinear(peft_layers.Linear):  # type: ignore[misc]
    """A linear layer whose `weight` is W + s B A, for code that reads the weight and never calls the layer."""

    @property
    def weight(self) -> Tensor:
        base: Tensor = self.get_base_layer().weight
        return base if self.disable_adapters or self.merged else base + self.get_delta_weight(ADAPTER)


def _arguments(
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, bool, Tensor | None]:
    """The arguments of nn.MultiheadAttention.forward behind `query`, as far as they matter; `is_causal` is a hint."""
    del average_attn_weights, is_causal
    return key, value, key_padding_mask, need_weights, attn_mask


def make_attention_fast(model: nn.Module) -> None:
    """Give PEFT's attention layers in the model the forward pass of `FastAttention`, and freeze what it leaves out."""
    for module in list(model.modules()):
        if isinstance(module, peft_layers.MultiheadAttention):
            module.__class__ = FastAttention
            module.base_layer.out_proj.requires_grad_(False)


def make_readable(model: nn.Module, names: Iterable[str]) -> None:
    """Turn PEFT's linear layers of these names into `ReadableLinear`."""
    for name in names:
        model.get_submodule(name).__class__ = ReadableLinear
