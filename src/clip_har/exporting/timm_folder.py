"""A run whose logits are linear in its image encoder's features, as a timm classifier that transformers opens.

transformers' TimmWrapperForImageClassification builds the model from a name and arguments of timm in config.json, so
that the folder contains no code.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.exporting.certificate import Answers
from clip_har.exporting.description import public_name
from clip_har.exporting.timm_encoder import encoder_in_timm, not_in_timm
from clip_har.images import Preprocessing
from clip_har.methods import Classifier
from clip_har.methods.linear_heads import TRANSFORMS, LinearHeadClassifier, PromptedHeadClassifier
from clip_har.methods.lp_ft import TowerWithHead
from clip_har.projection import remove_projection

TOLERANCE = 1e-4
"""Largest difference of a calibrated probability, on random images."""


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """logits = W f(x) + b."""

    visual: nn.Module
    """f: open_clip's image encoder without its projection."""
    weight_CH: Tensor
    bias_C: Tensor


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


def write(run: Run, found: LinearModel, backbone: Backbone, temperature: float, folder: Path) -> Answers:
    """Write the folder; what transformers answers with it. The softmax of its logits is calibrated.

    Raises:
        ConfigError: timm cannot express the image encoder, or transformers its preprocessing.
    """
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    named = encoder_in_timm(found.visual, backbone)
    if named.arguments and "model_args" not in inspect.signature(TimmWrapperConfig.__init__).parameters:
        raise ConfigError(
            f"{public_name(backbone.info.name)} has an image encoder for which transformers 4.53 or later is required",
            remedy="Install it, or use --format onnx.",
        )
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
        raise not_in_timm(backbone, f"{named.name} has other tensors") from error
    wrapped.save_pretrained(folder)
    answers = TimmAnswers(folder)
    images_BCHW = torch.randn(2, 3, *run.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own_BC = (found.visual(images_BCHW) @ found.weight_CH.T + found.bias_C).div(temperature).softmax(dim=-1)
    if not torch.allclose(own_BC, answers(images_BCHW), atol=TOLERANCE):
        raise not_in_timm(backbone, "timm's model gives other probabilities")
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
