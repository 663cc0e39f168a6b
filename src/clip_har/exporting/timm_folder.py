"""A run whose logits are linear in its image encoder's features, as a timm classifier that transformers opens.

transformers' TimmWrapperForImageClassification builds the model from a name and arguments of timm in config.json, so
that the folder contains no code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError, first_line
from clip_har.exporting.certificate import Answers
from clip_har.exporting.description import public_name
from clip_har.images import Preprocessing
from clip_har.methods import Classifier
from clip_har.methods.linear_heads import TRANSFORMS, LinearHeadClassifier, PromptedHeadClassifier
from clip_har.methods.lp_ft import TowerWithHead
from clip_har.pretrained.architecture import architecture_of
from clip_har.pretrained.conversion import activation_of
from clip_har.projection import remove_projection

TOLERANCE = 1e-4
"""Largest difference of a calibrated probability, on random images."""
VIT = "vit_base_patch32_clip_224"
"""timm's CLIP encoder, which takes any size as arguments."""
RESNETS = ("resnet50_clip", "resnet101_clip", "resnet50x4_clip", "resnet50x16_clip", "resnet50x64_clip")
"""timm's encoders with CLIP's attention pool; the one with the same shapes is used."""
_PASSED = ("avg", "map", "token")
"""Pooling of open_clip's timm encoders that timm has itself. "" is the encoder's own."""


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """logits = W f(x) + b."""

    visual: nn.Module
    """f: open_clip's image encoder without its projection."""
    weight_CH: Tensor
    bias_C: Tensor


@dataclass(frozen=True, kw_only=True)
class Named:
    """A model as `timm.create_model` builds it, with its state dict but for the classifier."""

    name: str
    arguments: dict[str, Any]
    state: Mapping[str, Tensor]


def linear_model(classifier: Classifier, backbone: Backbone) -> LinearModel | None:
    """The parts of a classifier that is linear in the features before the projection; None for any other."""
    if isinstance(classifier, TowerWithHead) and classifier.has_projection:
        head = classifier.head
        return LinearModel(visual=classifier.visual, weight_CH=head.weight, bias_C=head.bias)
    if not isinstance(classifier, LinearHeadClassifier) or TRANSFORMS[int(classifier.transform)] != "none":
        return None
    if isinstance(classifier, PromptedHeadClassifier) and float(classifier.zero_shot_weight):
        return None
    visual = copy.deepcopy(cast(nn.Module, backbone.model.visual))
    if not remove_projection(visual):  # the features of such an encoder have unit length
        return None
    return LinearModel(visual=visual, weight_CH=classifier.linear.weight, bias_C=classifier.linear.bias)


def write(
    run: Run, found: LinearModel, backbone: Backbone, model: str | None, temperature: float, folder: Path
) -> Answers:
    """Write the folder; what transformers answers with it. The softmax of its logits is calibrated.

    Raises:
        ConfigError: timm cannot express the image encoder, or transformers its preprocessing.
    """
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    named = _named(found.visual, run, backbone, model)
    config = TimmWrapperConfig(
        architecture=named.name,
        model_args=named.arguments,
        id2label=dict(enumerate(run.classes)),
        label2id={name: index for index, name in enumerate(run.classes)},
        pretrained_cfg=pretrained_cfg(run.preprocessing),
    )
    wrapped = TimmWrapperForImageClassification(config)
    try:
        place = wrapped.timm_model.pretrained_cfg["classifier"]
        head = {f"{place}.weight": found.weight_CH / temperature, f"{place}.bias": found.bias_C / temperature}
        wrapped.timm_model.load_state_dict({**named.state, **head})
    except (RuntimeError, TypeError) as error:
        raise _cannot(backbone, first_line(error)) from error
    wrapped.save_pretrained(folder)
    answers = TimmAnswers(folder)
    images_BCHW = torch.randn(2, 3, *run.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own_BC = (found.visual(images_BCHW) @ found.weight_CH.T + found.bias_C).div(temperature).softmax(dim=-1)
    if not torch.allclose(own_BC, answers(images_BCHW), atol=TOLERANCE):
        raise _cannot(backbone, "timm's model gives other probabilities")
    return answers


class TimmAnswers:
    """An exported folder as plain transformers loads it: images [B, 3, H, W] -> calibrated probabilities [B, C]."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForImageClassification

        self.model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()

    @torch.inference_mode()
    def __call__(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.model(pixel_values=images_BCHW).logits
        return logits_BC.softmax(dim=-1)


def pretrained_cfg(preprocessing: Preprocessing) -> dict[str, Any]:
    """timm's description of the preprocessing, from which transformers builds its image processor."""
    height, width = preprocessing.image_size
    forgets = preprocessing.resize_mode == "shortest" and height != width  # as open_clip does
    return {
        "input_size": [3, height, width],
        "fixed_input_size": True,
        "interpolation": "bilinear" if preprocessing.interpolation == "bilinear" and not forgets else "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash" if preprocessing.resize_mode == "squash" else "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def _named(visual: nn.Module, run: Run, backbone: Backbone, model: str | None) -> Named:
    """timm's name, arguments and tensors of an image encoder of open_clip."""
    if hasattr(visual, "trunk"):
        return _of_timm(visual, run, backbone, model)
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    if hasattr(visual, "attnpool"):
        return _of_resnet(state, cast(Any, visual).image_size, backbone)
    return _of_vit(state, visual, backbone)


def _of_timm(visual: Any, run: Run, backbone: Backbone, model: str | None) -> Named:
    config = architecture_of(model or run.card.backbone.name, backbone.info.files_sha256).model_config["vision_cfg"]
    pool = config.get("timm_pool", "avg")
    if pool and pool not in _PASSED:
        raise _cannot(backbone, f"its pooling {pool!r} is open_clip's")
    arguments = {"global_pool": pool} if pool else {}
    return Named(name=config["timm_model_name"], arguments=arguments, state=visual.trunk.state_dict())


def _of_resnet(state: dict[str, Tensor], image_size: int, backbone: Backbone) -> Named:
    import timm
    from timm.models.byobnet import checkpoint_filter_fn

    arguments: dict[str, Any] = {"img_size": image_size}
    for name in RESNETS:
        with torch.device("meta"):
            candidate: Any = timm.create_model(name, num_classes=1, **arguments)
        moved = checkpoint_filter_fn(state, candidate)
        shapes = {key: tensor.shape for key, tensor in candidate.state_dict().items() if "head.proj." not in key}
        if shapes == {key: tensor.shape for key, tensor in moved.items()}:
            return Named(name=name, arguments=arguments, state=moved)
    raise _cannot(backbone, "timm has no ResNet of this size")


def _of_vit(state: dict[str, Tensor], visual: Any, backbone: Backbone) -> Named:
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    activation = activation_of(visual)
    if activation is None:
        raise _cannot(backbone, "its activation is unknown")
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
    return Named(name=VIT, arguments=arguments, state=checkpoint_filter_fn(state, candidate))


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _cannot(backbone: Backbone, why: str) -> ConfigError:
    return ConfigError(
        f"{public_name(backbone.info.name)} has an image encoder that timm cannot express: {why}",
        remedy="Use --format onnx.",
    )
