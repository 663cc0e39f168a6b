"""SigLIP models of transformers: timm's image encoder with an attention pool, open_clip's text encoder, a logit bias.

timm's encoders have fixed shapes, so the one with the same is looked up among its SigLIP models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from clip_har.errors import ModelError
from clip_har.pretrained.conversion import Renaming, move_blocks, text_sizes

_NAME = re.compile(r"vit_.*_patch(?P<patch>\d+)_siglip_(?P<size>\d+)")


def convert(renaming: Renaming, config: Any) -> dict[str, Any]:
    """Move the tensors of a SiglipModel; returns open_clip's `model_cfg`.

    Raises:
        ModelError: timm has no such image encoder.
    """
    vision, text = config.vision_config, config.text_config
    name = _timm_name(renaming.origin, vision)
    move_tensors(renaming, config)
    return {
        "embed_dim": text.projection_size,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": name,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **text_sizes(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }


def move_tensors(renaming: Renaming, config: Any) -> None:
    """Move the tensors of a SiglipModel with this configuration, or back with a `Reversal`."""
    _move_image_encoder(renaming, config.vision_config.num_hidden_layers)
    renaming.move("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    renaming.move("text.positional_embedding", "text_model.embeddings.position_embedding.weight")
    move_blocks(renaming, "text.transformer", "text_model.encoder", config.text_config.num_hidden_layers)
    renaming.move_linear("text.ln_final", "text_model.final_layer_norm")
    renaming.move_linear("text.text_projection", "text_model.head")
    for scalar in ("logit_scale", "logit_bias"):
        renaming.move(scalar, scalar, change=lambda tensor: tensor.reshape(()))


def _timm_name(origin: str, vision: Any) -> str:
    """timm's name for an image encoder.

    Raises:
        ModelError: timm has none.
    """
    wanted = (
        vision.hidden_size,
        vision.num_hidden_layers,
        vision.num_attention_heads,
        vision.intermediate_size,
        vision.layer_norm_eps,
    )
    for name in _candidates(vision.patch_size, vision.image_size):
        if _shape_of(name) == wanted and getattr(vision, "vision_use_head", True):
            return name
    raise ModelError(
        f"{origin} has a SigLIP image encoder that timm does not contain: width {vision.hidden_size}, "
        f"{vision.num_hidden_layers} blocks, patches of {vision.patch_size} and images of {vision.image_size} pixels",
        remedy="Use one of Google's SigLIP models, or one fine-tuned from them.",
    )


def _candidates(patch_size: int, image_size: int) -> Iterator[str]:
    import timm

    for name in timm.list_models("vit_*siglip_*"):
        found = _NAME.fullmatch(name)
        if found and (int(found["patch"]), int(found["size"])) == (patch_size, image_size):
            yield name


def vision_config(name: str) -> dict[str, Any] | None:
    """The sizes of timm's image encoder, as a SiglipVisionConfig has them; None if it is not one of SigLIP's."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    width, layers, heads, inner, eps = _shape_of(name)
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "layer_norm_eps": eps,
        "patch_size": int(found["patch"]),
        "image_size": int(found["size"]),
    }


def _shape_of(name: str) -> tuple[int, int, int, int, float]:
    import timm

    with torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="map")
    block = model.blocks[0]
    return (
        model.embed_dim,
        len(model.blocks),
        block.attn.num_heads,
        block.mlp.fc1.out_features,
        float(block.norm1.eps),
    )


def _move_image_encoder(renaming: Renaming, layers: int) -> None:
    trunk, old = "visual.trunk", "vision_model"
    renaming.move_linear(f"{trunk}.patch_embed.proj", f"{old}.embeddings.patch_embedding")
    renaming.move(
        f"{trunk}.pos_embed", f"{old}.embeddings.position_embedding.weight", change=lambda tensor: tensor[None]
    )
    for index in range(layers):
        block, source = f"{trunk}.blocks.{index}", f"{old}.encoder.layers.{index}"
        renaming.move_linear(f"{block}.norm1", f"{source}.layer_norm1")
        for part in ("weight", "bias"):
            names = [f"{source}.self_attn.{role}_proj.{part}" for role in "qkv"]
            renaming.move(f"{block}.attn.qkv.{part}", *names)
        renaming.move_linear(f"{block}.attn.proj", f"{source}.self_attn.out_proj")
        renaming.move_linear(f"{block}.norm2", f"{source}.layer_norm2")
        renaming.move_linear(f"{block}.mlp.fc1", f"{source}.mlp.fc1")
        renaming.move_linear(f"{block}.mlp.fc2", f"{source}.mlp.fc2")
    renaming.move_linear(f"{trunk}.norm", f"{old}.post_layernorm")
    pool, head = f"{trunk}.attn_pool", f"{old}.head"
    renaming.move(f"{pool}.latent", f"{head}.probe")
    for part in ("weight", "bias"):
        renaming.split(f"{head}.attention.in_proj_{part}", (f"{pool}.q.{part}", 1), (f"{pool}.kv.{part}", 2))
    renaming.move_linear(f"{pool}.proj", f"{head}.attention.out_proj")
    renaming.move_linear(f"{pool}.norm", f"{head}.layernorm")
    renaming.move_linear(f"{pool}.mlp.fc1", f"{head}.mlp.fc1")
    renaming.move_linear(f"{pool}.mlp.fc2", f"{head}.mlp.fc2")
