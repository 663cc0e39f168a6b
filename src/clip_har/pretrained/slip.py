"""Checkpoints of SLIP and A-CLIP: a timm ViT with a projection beside it, and OpenAI's text encoder with QuickGELU.

The ViT becomes open_clip's own. https://github.com/facebookresearch/SLIP and https://github.com/microsoft/A-CLIP
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_har.errors import ModelError
from clip_har.pretrained.conversion import Conversion, Renaming

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_AVERAGES = {
    "visual_ema.": "visual.",
    "transformer_e.": "transformer.",
    "image_projection_e": "image_projection",
    "text_projection_e": "text_projection",
}
"""A-CLIP's moving averages -> what they are of. Its published figures are theirs (`ema=True` in `eval_zeroshot.py`)."""
_TRAINING_ONLY = ("image_mlp.", "im_proj_byol.", "im_pred_byol.", "im_proj_byol_e.")
_HEADS = {384: 12, 768: 12, 1024: 16}
"""Width of SLIP's image encoders -> their attention heads (`models.py` of SLIP), which no tensor's shape tells."""
_HEAD_WIDTH = 64


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names that only SLIP and its successors use together."""
    return {"image_projection", "visual.cls_token", "visual.patch_embed.proj.weight"} <= set(weights)


def convert(path: Path, weights: Mapping[str, Tensor]) -> Conversion:
    """The open_clip model of a SLIP or A-CLIP checkpoint.

    Raises:
        ModelError: a tensor is missing, superfluous or of an unexpected shape.
    """
    averages = any(name.startswith(tuple(_AVERAGES)) for name in weights)
    if averages:
        weights = _averaged(weights)
    renaming = Renaming(str(path), weights)
    renaming.drop(*_TRAINING_ONLY)
    try:
        config = _config(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"{path} does not contain a complete SLIP model ({error})", remedy="Check that the file is complete."
        ) from error
    _move_image_encoder(renaming, config["vision_cfg"]["layers"])
    _move_text_encoder(renaming, config["text_cfg"]["layers"])
    note = f"{path.name} is an A-CLIP checkpoint: using the moving averages of its encoders, as its own evaluation does"
    return Conversion(
        config={
            "model_cfg": config,
            "preprocess_cfg": {  # `eval_zeroshot.py` of SLIP; torchvision's Resize is bilinear
                "mean": list(IMAGENET_MEAN),
                "std": list(IMAGENET_STD),
                "interpolation": "bilinear",
                "resize_mode": "shortest",
            },
        },
        tensors=renaming.finish(),
        image_activation="gelu",
        text_activation="quick_gelu",
        notes=(note,) if averages else (),
    )


def _averaged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moving averages under the names of what they are of, and the tensors that have none."""
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(_AVERAGES.values()))}
    for average, name in _AVERAGES.items():
        for own in [key for key in weights if key.startswith(average)]:
            kept.pop(own, None)
            kept[name + own.removeprefix(average)] = weights[own]
    return kept


def _config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    width, _, _, patch_size = weights["visual.patch_embed.proj.weight"].shape
    grid = math.isqrt(weights["visual.pos_embed"].shape[1] - 1)
    if grid * grid + 1 != weights["visual.pos_embed"].shape[1]:
        raise ValueError("visual.pos_embed is not for a square image")
    context_length, text_width = weights["positional_embedding"].shape
    return {
        "embed_dim": weights["image_projection"].shape[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": grid * patch_size,
            "layers": count_blocks(weights, "visual.blocks."),
            "width": width,
            "head_width": width // _HEADS.get(width, max(1, width // _HEAD_WIDTH)),
            "mlp_ratio": weights["visual.blocks.0.mlp.fc1.weight"].shape[0] / width,
            "patch_size": patch_size,
            "no_ln_pre": True,
            "norm_kwargs": {"eps": 1e-6},  # timm's
        },
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": weights["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": max(1, text_width // _HEAD_WIDTH),
            "layers": count_blocks(weights, "transformer.resblocks."),
        },
    }


def count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks there are below a prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def _move_image_encoder(renaming: Renaming, layers: int) -> None:
    """The bias of timm's patch embedding, which open_clip's has not, is added to the position embeddings of patches."""
    renaming.move("visual.conv1.weight", "visual.patch_embed.proj.weight")
    renaming.move("visual.class_embedding", "visual.cls_token", change=torch.flatten)
    bias_W, position_1LW = renaming.take("visual.patch_embed.proj.bias"), renaming.take("visual.pos_embed")
    if bias_W is not None and position_1LW is not None:
        position_LW = position_1LW[0].float().clone()
        position_LW[1:] += bias_W.float()
        renaming.put("visual.positional_embedding", position_LW)
    for index in range(layers):
        target, source = f"visual.transformer.resblocks.{index}", f"visual.blocks.{index}"
        renaming.move_linear(f"{target}.ln_1", f"{source}.norm1")
        renaming.move(f"{target}.attn.in_proj_weight", f"{source}.attn.qkv.weight")
        renaming.move(f"{target}.attn.in_proj_bias", f"{source}.attn.qkv.bias")
        renaming.move_linear(f"{target}.attn.out_proj", f"{source}.attn.proj")
        renaming.move_linear(f"{target}.ln_2", f"{source}.norm2")
        renaming.move_linear(f"{target}.mlp.c_fc", f"{source}.mlp.fc1")
        renaming.move_linear(f"{target}.mlp.c_proj", f"{source}.mlp.fc2")
    renaming.move_linear("visual.ln_post", "visual.norm")
    renaming.move("visual.proj", "image_projection")


def _move_text_encoder(renaming: Renaming, layers: int) -> None:
    """OpenAI's, under the same names as in open_clip."""
    names = ["token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection"]
    for index in range(layers):
        block = f"transformer.resblocks.{index}"
        names += [f"{block}.attn.in_proj_weight", f"{block}.attn.in_proj_bias"]
        for layer in ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"):
            names += [f"{block}.{layer}.weight", f"{block}.{layer}.bias"]
    for name in (*names, "logit_scale"):
        renaming.move(name, name)
