"""Forward passes for PEFT's layers where its own is slow or passed by. The parameters and their names stay PEFT's.

The classes only replace methods, so that an existing layer becomes one by a new `__class__`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from peft.tuners.lora import layer as peft_layers
from torch import Tensor, nn

from clip_har.methods.lora_targets import ADAPTER

# Shapes: B sequences, L tokens, Q of them that ask, W width, R rank, H heads of width d.


class FastAttention(peft_layers.MultiheadAttention):  # type: ignore[misc]
    """Attention with W x + b + s B A x for query, key and value together (A [R, W], B [3W, R]).

    PEFT builds W + s B A again in every pass and back-propagates through it, which takes a product as large as the
    layer's own for the gradient of W; here that gradient is never formed (Hu et al. 2021, arXiv 2106.09685, eq. 3).
    Calls that ask for more than the output go to PEFT.

    The output projection's pair stays at B = 0: PEFT adds its product twice to the weight, but once to the gradient
    (`merge` sets the merged weight and then has the projection merge itself), so any other value would be trained
    against a wrong gradient, and would mean something else in a PEFT that has fixed it. CLIP-LoRA adapts query, key
    and value alone as well (Zanella & Ben Ayed 2024, arXiv 2405.18541, section 4).
    """

    def forward(self, query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        key, value, padding, need_weights, mask = _arguments(*args, **kwargs)
        base = self.base_layer
        plain = base.bias_k is None and not base.add_zero_attn and base.in_proj_bias is not None and query.ndim == 3
        if self.disable_adapters or self.merged or need_weights or padding is not None or not plain or value is not key:
            return super().forward(query, *args, **kwargs)  # type: ignore[no-any-return]
        x_BQW = query if base.batch_first else query.transpose(0, 1)
        source_BLW = key if base.batch_first else key.transpose(0, 1)
        queries_BHQd, keys_BHLd, values_BHLd = self._project(x_BQW, None if key is query else source_BLW)
        if mask is not None:
            if mask.ndim == 3:  # one for each sequence and head
                mask = mask.unflatten(0, (-1, base.num_heads))
            mask = mask.logical_not() if mask.dtype == torch.bool else mask.to(queries_BHQd.dtype)  # True hides there
        attended_BHQd = F.scaled_dot_product_attention(queries_BHQd, keys_BHLd, values_BHLd, mask)
        projection = base.out_proj.get_base_layer()
        output_BQW = F.linear(attended_BHQd.transpose(1, 2).flatten(2), projection.weight, projection.bias)
        return (output_BQW if base.batch_first else output_BQW.transpose(0, 1)).to(query.dtype), None

    def _project(self, x_BQW: Tensor, source_BLW: Tensor | None) -> tuple[Tensor, ...]:
        """Queries of x, and keys and values of the source or else of x too, by heads: [B, H, Q, d] and [B, H, L, d]."""
        width = self.base_layer.embed_dim
        if source_BLW is None:
            parts = self._update(x_BQW, slice(None)).chunk(3, dim=-1)
        else:
            keys_and_values = self._update(source_BLW, slice(width, None)).chunk(2, dim=-1)
            parts = (self._update(x_BQW, slice(width)), *keys_and_values)
        return tuple(part.unflatten(-1, (self.base_layer.num_heads, -1)).transpose(1, 2) for part in parts)

    def _update(self, x_BLW: Tensor, rows: slice) -> Tensor:
        """W x + b + s B A x for some of the 3 W rows."""
        frozen = F.linear(x_BLW, self.base_layer.in_proj_weight[rows], self.base_layer.in_proj_bias[rows])
        down_BLR = self.lora_A[ADAPTER](self.lora_dropout[ADAPTER](x_BLW))
        up = self.lora_B[ADAPTER].weight[rows].T.contiguous()  # so laid out, its gradient's product is 5 times faster
        scale = self.scaling[ADAPTER]
        return torch.addmm(frozen.flatten(0, 1), down_BLR.flatten(0, 1), up, alpha=scale).view_as(frozen)

    def _restore_weights(self) -> None:
        """PEFT registers the base weights again whenever modules are listed; needed only if it has replaced them."""
        if "in_proj_weight" not in self.base_layer._parameters:
            super()._restore_weights()


class SeparateAttention(FastAttention):
    """The same with a pair A [R, W] and B [W, R] for each of query, key and value, as CLIP-LoRA has it.

    To PEFT it is one pair of rank 3R: A is the three one below the other, and B is block-diagonal. `lora_B` holds the
    blocks alone, one below the other [3W, R]; `block_diagonal` gives PEFT's B. Each of the three draws its own dropout.
    """

    def _update(self, x_BLW: Tensor, rows: slice) -> Tensor:
        frozen = F.linear(x_BLW, self.base_layer.in_proj_weight[rows], self.base_layer.in_proj_bias[rows])
        pairs = zip(self.lora_A[ADAPTER].weight.chunk(3), self.lora_B[ADAPTER].weight.chunk(3), strict=True)
        first, last = ((end or 0) // self.base_layer.embed_dim for end in (rows.start, rows.stop))
        updates = [
            F.linear(F.linear(self.lora_dropout[ADAPTER](x_BLW), a_RW), b_WR)
            for a_RW, b_WR in list(pairs)[first : last or None]
        ]
        scale: float = self.scaling[ADAPTER]
        return frozen + scale * torch.cat(updates, dim=-1)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """s B A, for PEFT's own merging."""
        delta: Tensor = block_diagonal(self.lora_B[adapter].weight) @ self.lora_A[adapter].weight
        return delta * float(self.scaling[adapter])


def block_diagonal(blocks_3WxR: Tensor) -> Tensor:
    """Three blocks [W, R], one below the other -> the matrix [3W, 3R] that has them on its diagonal."""
    whole: Tensor = torch.block_diag(*blocks_3WxR.chunk(3))
    return whole


class LastBlock(ResidualAttentionBlock):  # type: ignore[misc]
    """The last layer of a vision transformer whose class token alone is read: in training the others end here.

    They still serve as keys and values, so that the class token's output is the same; the other ten twelfths of the
    layer's work are for one token.
    """

    def forward(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        if not self.training or k_x is not None or v_x is not None or attn_mask is not None:
            return super().forward(q_x, k_x, v_x, attn_mask)  # type: ignore[no-any-return]
        normed_BLW = self.ln_1(q_x)
        class_B1W = q_x[:, :1] + self.ls_1(self.attn(normed_BLW[:, :1], normed_BLW, normed_BLW, need_weights=False)[0])
        return class_B1W + self.ls_2(self.mlp(self.ln_2(class_B1W)))  # type: ignore[no-any-return]


class ReadableLinear(peft_layers.Linear):  # type: ignore[misc]
    """A linear layer whose `weight` is W + s B A, for code that reads the weight and never calls the layer."""

    @property
    def weight(self) -> Tensor:
        base: Tensor = self.get_base_layer().weight
        return base if self.disable_adapters or self.merged else base + self.get_delta_weight(ADAPTER)


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of an adapted model without its adapters, their updates merged into the weights. Copies."""
    state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if not isinstance(module, peft_layers.LoraLayer) or getattr(module, "merged", False):
            continue
        if isinstance(module, FastAttention):
            state[f"{name}.base_layer.in_proj_weight"] += module.get_delta_weight(ADAPTER).cpu()
        elif not name.endswith(".base_layer.out_proj"):  # whose B is zero
            layer = copy.deepcopy(module)  # PEFT's own merging heeds DoRA
            layer.merge(adapter_names=[ADAPTER])
            state[f"{name}.base_layer.weight"] = layer.get_base_layer().weight.detach().cpu().clone()
    own = {key: value for key, value in state.items() if ".lora_" not in key}
    return {key.replace(".base_layer.", "."): value.contiguous() for key, value in own.items()}


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
    """Give PEFT's attention layers in the model the forward pass of `FastAttention`, and freeze what it omits.

    In open_clip's own vision transformer the last layer also skips in training what nothing reads.
    """
    for module in list(model.modules()):
        if isinstance(module, peft_layers.MultiheadAttention):
            module.__class__ = FastAttention
            module.base_layer.out_proj.requires_grad_(False)
    visual: Any = model.visual
    if isinstance(visual, VisionTransformer) and visual.pool_type == "tok" and not visual.output_tokens:
        last = visual.transformer.resblocks[-1]
        pooled_alone = visual.attn_pool is None and visual.transformer.batch_first
        if pooled_alone and type(last) is ResidualAttentionBlock and isinstance(last.attn, FastAttention):
            last.__class__ = LastBlock


def make_attention_separate(model: nn.Module) -> None:
    """Turn the layers that `make_attention_fast` has made, of rank 3R, into `SeparateAttention`, to train them."""
    for module in model.modules():
        if isinstance(module, FastAttention):
            module.__class__ = SeparateAttention
            whole = module.lora_B[ADAPTER].weight  # zeros, before any training
            module.lora_B[ADAPTER].weight = nn.Parameter(torch.zeros_like(whole[:, : whole.shape[1] // 3]))


def make_readable(model: nn.Module, names: Iterable[str]) -> None:
    """Turn PEFT's linear layers of these names into `ReadableLinear`."""
    for name in names:
        model.get_submodule(name).__class__ = ReadableLinear
