"""An image encoder of open_clip as timm builds it: a name, arguments and tensors.

Whether both give the same features is checked where the whole model is written, in timm_folder.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.errors import ConfigError
from clip_har.exporting.description import public_name
from clip_har.pretrained.architecture import architecture_of
from clip_har.pretrained.conversion import activation_of
from clip_har.pretrained.image_size import image_side

VIT = "vit_base_patch32_clip_224"
"""timm's CLIP encoder, which takes any size as arguments."""
SIZES = {768: "base", 1024: "large", 1280: "huge"}
"""Width -> the word in timm's names of CLIP encoders with standard sizes."""
RESNETS = ("resnet50_clip", "resnet101_clip", "resnet50x4_clip", "resnet50x16_clip", "resnet50x64_clip")
"""timm's encoders with CLIP's attention pool; the one with the same shapes is used."""
_PASSED = ("avg", "map", "token")
"""Pooling of open_clip's timm encoders that timm has itself. "" is the encoder's own."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model as `timm.create_model` builds it, with its state dict but for the classifier."""

    name: str
    arguments: dict[str, Any]
    state: Mapping[str, Tensor]


def encoder_in_timm(visual: nn.Module, backbone: Backbone) -> Named:
    """timm's name, arguments and tensors of an image encoder of open_clip without its projection.

    Raises:
        ConfigError: timm has none.
    """
    if hasattr(visual, "trunk"):
        return _of_timm(visual, backbone)
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    if hasattr(visual, "attnpool"):
        return _of_resnet(state, cast(Any, visual).image_size, backbone)
    return _of_vit(state, visual, backbone)


def _of_timm(visual: Any, backbone: Backbone) -> Named:
    config = architecture_of(backbone.info.name, backbone.info.files_sha256).model_config["vision_cfg"]
    pool = config.get("timm_pool", "avg")
    if pool and pool not in _PASSED:
        raise not_in_timm(backbone, f"its pooling {pool!r} is open_clip's")
    arguments: dict[str, Any] = {"global_pool": pool} if pool else {}
    side = image_side(backbone.model)
    if hasattr(visual.trunk, "set_input_size") and side != visual.trunk.default_cfg["input_size"][-1]:
        arguments["img_size"] = side
    return Named(name=config["timm_model_name"], arguments=arguments, state=visual.trunk.state_dict())


def _of_resnet(state: dict[str, Tensor], image_size: int, backbone: Backbone) -> Named:
    import timm
    from timm.models.byobnet import checkpoint_filter_fn

    choices: tuple[dict[str, Any], ...] = ({}, {"img_size": image_size})
    for name, arguments in itertools.product(RESNETS, choices):
        with torch.device("meta"):
            candidate: Any = timm.create_model(name, num_classes=1, **arguments)
        moved = checkpoint_filter_fn(state, candidate)
        shapes = {key: shape for key, shape in _shapes(candidate).items() if "head.proj." not in key}
        if shapes == {key: tensor.shape for key, tensor in moved.items()}:
            return Named(name=name, arguments=arguments, state=moved)
    raise not_in_timm(backbone, "timm has no ResNet of this size")


def _of_vit(state: dict[str, Tensor], visual: Any, backbone: Backbone) -> Named:
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    activation = activation_of(visual)
    if activation is None:
        raise not_in_timm(backbone, "its activation is unknown")
    width, block = visual.conv1.out_channels, visual.transformer.resblocks[0]
    arguments = {
        "img_size": _side(visual.image_size),
        "patch_size": _side(visual.patch_size),
        "embed_dim": width,
        "depth": len(visual.transformer.resblocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.c_fc.out_features / width,
        "act_layer": activation,
    }
    with torch.device("meta"):
        candidate: Any = timm.create_model(VIT, num_classes=1, **arguments)
    name, state = _standard_name(candidate, arguments), checkpoint_filter_fn(state, candidate)
    return Named(name=name or VIT, arguments={} if name else arguments, state=state)


def _standard_name(vit: Any, arguments: dict[str, Any]) -> str | None:
    """timm's name of the same encoder without arguments, which also earlier versions of transformers build."""
    import timm

    activation = "_quickgelu" if arguments["act_layer"] == "quick_gelu" else ""
    size, patch, image = SIZES.get(arguments["embed_dim"]), arguments["patch_size"], arguments["img_size"]
    name = f"vit_{size}_patch{patch}_clip{activation}_{image}"
    if not timm.is_model(name):
        return None
    with torch.device("meta"):
        named: Any = timm.create_model(name, num_classes=1)
    return name if _traits(named) == _traits(vit) else None


def _traits(vit: Any) -> tuple[Any, ...]:
    """What tells two of timm's ViTs with the same options apart."""
    return _shapes(vit), activation_of(vit), vit.blocks[0].attn.num_heads, vit.norm.eps


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def not_in_timm(backbone: Backbone, why: str) -> ConfigError:
    """The refusal of an image encoder."""
    return ConfigError(
        f"{public_name(backbone.info.name)} has an image encoder that timm cannot express: {why}",
        remedy="Use --format onnx.",
    )
