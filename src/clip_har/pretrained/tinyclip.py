"""Checkpoints of TinyCLIP: open_clip's tensors, but each encoder under a name of its own.

https://github.com/microsoft/Cream/tree/main/TinyCLIP. Its models on the Hugging Face hub are of transformers' format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clip_har.errors import ModelError
from clip_har.pretrained import openai
from clip_har.pretrained.conversion import Conversion

_PREFIXES = (
    "_image_encoder.",
    "image_encoder_without_ddp.",
    "_text_encoder.",
    "text_encoder_without_ddp.",
    "_logit_scale.",
    "logit_scale_without_ddp.",
)
_HEAD_WIDTH = 64


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether every tensor is under one of TinyCLIP's three names, and the image encoder is among them."""
    return all(name.startswith(_PREFIXES) for name in weights) and any("visual." in name for name in weights)


def convert(path: Path, weights: Mapping[str, Tensor]) -> Conversion:
    """The open_clip model of a TinyCLIP checkpoint.

    Raises:
        ModelError: the encoders were pruned to blocks of different width, or tensors are missing.
    """
    plain = {_renamed(name): tensor for name, tensor in weights.items()}
    if any(name.startswith("l0_module.") for name in plain) or _is_pruned(plain):
        raise ModelError(
            f"{path} is a TinyCLIP model with automatic weight inheritance: its blocks were pruned to different "
            "widths, which open_clip cannot represent",
            remedy="Use a TinyCLIP model with manual weight inheritance, such as TinyCLIP-ViT-39M-16-Text-19M.",
        )
    layout = openai.read_layout(path, plain)
    layers = layout.vision_layers
    config = {
        "embed_dim": layout.embed_dim,
        "vision_cfg": {
            "image_size": layout.image_size,
            "layers": list(layers) if isinstance(layers, tuple) else layers,
            "width": layout.vision_width,
            "head_width": _HEAD_WIDTH,
            "patch_size": layout.patch_size,
        },
        "text_cfg": {
            "context_length": layout.context_length,
            "vocab_size": layout.vocab_size,
            "width": layout.text_width,
            "heads": max(1, layout.text_width // _HEAD_WIDTH),
            "layers": layout.text_layers,
        },
    }
    return Conversion(
        config={"model_cfg": config, "preprocess_cfg": openai_preprocessing()},
        tensors=plain,
        image_activation="gelu",
        text_activation="gelu",
        notes=(f"{path.name} does not record its activation: using GELU, as in TinyCLIP's own configurations",),
    )


def openai_preprocessing() -> dict[str, object]:
    """OpenAI's preprocessing, as an open_clip_config.json has it."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }


def _renamed(name: str) -> str:
    """Without TinyCLIP's prefix, and without the one that DistributedDataParallel puts behind it."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).removeprefix("module.")
    return name


def _is_pruned(weights: Mapping[str, Tensor]) -> bool:
    """Whether an attention layer has fewer heads than its width has room for."""
    return any(
        tensor.ndim == 2 and tensor.shape[0] != 3 * tensor.shape[1]
        for name, tensor in weights.items()
        if name.endswith("attn.in_proj_weight")
    )
