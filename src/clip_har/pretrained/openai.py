"""OpenAI's CLIP weights in every format they are passed around in, turned into an open_clip model with QuickGELU.

A TorchScript archive, its state dict, or that state dict as safetensors; the architecture follows from the shapes.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip_har.errors import ModelError
from clip_har.pretrained.files import is_torchscript

MARKERS = ("input_resolution", "context_length", "vocab_size")
"""Entries that OpenAI's archives carry and no other CLIP weights do."""

_HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A CLIP architecture, as read from the shapes of its weights."""

    embed_dim: int
    image_size: int
    """Side of the input image in pixels."""
    vision_layers: int | tuple[int, ...]
    """Blocks of a ViT, or blocks of each stage of a ResNet."""
    vision_width: int
    patch_size: int | None
    """Pixels; None for a ResNet."""
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int

    def __str__(self) -> str:
        image = (
            f"ResNet with {self.vision_layers} blocks"
            if self.patch_size is None
            else f"ViT with {self.vision_layers} blocks and patches of {self.patch_size} pixels"
        )
        return f"{image}, width {self.vision_width}, image size {self.image_size}, embedding {self.embed_dim}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a weight file without running Python code.

    A TorchScript archive goes through torch.jit: call this only for a file that the user named or whose hash is known.

    Raises:
        ModelError: not weights.
    """
    try:
        if is_torchscript(path):
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        content = _load(path)
    except Exception as error:  # torch and safetensors raise many kinds
        raise _unreadable(path, error) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ModelError(f"{path} contains no state dict", remedy="Save model.state_dict() to it.")
    prefix = "module." if content and all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def _load(path: Path) -> Any:
    """Checkpoints of training scripts contain their arguments too, in a class that only holds attributes."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)


def read_openai(path: Path) -> dict[str, Tensor] | None:
    """OpenAI's weights, from an archive or from a state dict with the entries that only theirs have; else None.

    Raises:
        ModelError: the file cannot be read as weights.
    """
    if path.suffix in (".npz", ".npy"):  # big_vision's format, which open_clip reads
        return None
    if path.suffix == ".safetensors" and not set(MARKERS) <= _safetensors_keys(path):
        return None
    weights = read_weights(path)
    return weights if is_torchscript(path) or set(MARKERS) <= set(weights) else None


def _safetensors_keys(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def build(path: Path, weights: Mapping[str, Tensor]) -> nn.Module:
    """The open_clip model for OpenAI's weights, in float32, with QuickGELU and OpenAI's preprocessing.

    Raises:
        ModelError: the weights are not a CLIP model's.
    """
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    layout = read_layout(path, weights)
    try:
        model = CLIP(
            layout.embed_dim,
            vision_cfg=CLIPVisionCfg(
                layers=layout.vision_layers,
                width=layout.vision_width,
                head_width=_HEAD_WIDTH,
                patch_size=layout.patch_size,
                image_size=layout.image_size,
            ),
            text_cfg=CLIPTextCfg(
                context_length=layout.context_length,
                vocab_size=layout.vocab_size,
                width=layout.text_width,
                heads=layout.text_width // _HEAD_WIDTH,
                layers=layout.text_layers,
            ),
            quick_gelu=True,
        )
        model.load_state_dict({key: value for key, value in weights.items() if key not in MARKERS})
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise _not_clip(path) from error
    model.visual.image_mean, model.visual.image_std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    model.visual.preprocess_cfg = {
        "size": model.visual.image_size,
        "mode": "RGB",
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    return model.float().eval()  # type: ignore[no-any-return]


def read_layout(path: Path, weights: Mapping[str, Tensor]) -> Layout:
    """The architecture that the shapes of OpenAI's weights describe.

    Raises:
        ModelError: the weights are not a CLIP model's.
    """
    try:
        vit = "visual.proj" in weights
        place = "visual.positional_embedding" if vit else "visual.attnpool.positional_embedding"
        grid = math.isqrt(weights[place].shape[0] - 1)
        if grid * grid + 1 != weights[place].shape[0]:
            raise _not_clip(path)
        patch_size = weights["visual.conv1.weight"].shape[-1] if vit else None
        return Layout(
            embed_dim=weights["text_projection"].shape[1],
            image_size=grid * (32 if patch_size is None else patch_size),  # a ResNet reduces the image by 32
            vision_layers=_count(weights, "visual.transformer.resblocks.")
            if vit
            else tuple(_count(weights, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
            vision_width=weights["visual.conv1.weight" if vit else "visual.layer1.0.conv1.weight"].shape[0],
            patch_size=patch_size,
            context_length=weights["positional_embedding"].shape[0],
            vocab_size=weights["token_embedding.weight"].shape[0],
            text_width=weights["ln_final.weight"].shape[0],
            text_layers=_count(weights, "transformer.resblocks."),
        )
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise _not_clip(path) from error


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).partition(".")[0] for key in weights if key.startswith(prefix)})


def _unreadable(path: Path, error: Exception) -> ModelError:
    if forbidden := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
        return ModelError(
            f"{path} cannot be read as weights: it contains a Python object ({forbidden[1][:80]}), "
            "which could run code",
            remedy="Save its state dict alone, best with safetensors.",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{path} cannot be read as weights: {reason[:160]}", remedy="Download it again.")


def _not_clip(path: Path) -> ModelError:
    return ModelError(
        f"{path} does not contain the weights of an OpenAI CLIP model",
        remedy="Specify a CLIP weight file with --model.",
    )


def check_layout(path: Path, weights: Mapping[str, Tensor], architecture: str, config: Mapping[str, Any]) -> None:
    """Refuse weights of another architecture than the one named.

    Args:
        path: the weight file.
        weights: what is in it.
        architecture: the name as open_clip knows it.
        config: open_clip's configuration of that name.

    Raises:
        ModelError: they differ.
    """
    found = read_layout(path, weights)
    vision, text = config["vision_cfg"], config["text_cfg"]
    layers, size = vision.get("layers"), vision.get("image_size", 224)
    expected = (
        config["embed_dim"],
        tuple(layers) if isinstance(layers, list) else layers,
        vision.get("width"),
        vision.get("patch_size") if isinstance(layers, int) else None,
        size[0] if isinstance(size, list) else size,
        text.get("width", 512),
        text.get("layers", 12),
    )
    actual = (
        found.embed_dim,
        found.vision_layers,
        found.vision_width,
        found.patch_size,
        found.image_size,
        found.text_width,
        found.text_layers,
    )
    if actual != expected:
        raise ModelError(
            f"{path} contains weights of another architecture than {architecture}: {found}",
            remedy=f"Pass the file alone: --model {path}.",
        )
