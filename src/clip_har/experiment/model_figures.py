"""What is known of a pretrained model besides its accuracy: counted, measured here, or from the catalogue of models.

`evaluation.model_comparison` says what each figure means; the catalogue itself is in `pretrained`.
"""

from __future__ import annotations

import dataclasses
from typing import cast

from torch import nn

from clip_har.backbone import Backbone
from clip_har.encoder_speed import images_per_second
from clip_har.evaluation.model_comparison import ModelFigures
from clip_har.fusion import FusedBackbone
from clip_har.pretrained import catalogue

MEASURED_SECONDS = 2.0
"""How long the encoder's speed is measured."""


def known_figures(name: str) -> ModelFigures:
    """What the catalogue says of a model that need not be on this machine."""
    facts = catalogue.describe(name)
    if facts is None:
        return ModelFigures()
    return ModelFigures(
        parameters=facts.image_parameters + facts.text_parameters,
        image_parameters=facts.image_parameters,
        embed_dim=facts.embed_dim,
        image_size=(facts.image_size, facts.image_size),
        gflops=facts.gflops,
        pretraining_data=facts.data,
        licence=facts.licence,
        research_only=facts.research_only,
    )


def measured_figures(name: str, backbone: Backbone) -> ModelFigures:
    """The figures of a loaded model; what can be counted or measured is not taken from the catalogue."""
    info = backbone.info
    parts = backbone.parts if isinstance(backbone, FusedBackbone) else (backbone,)
    return dataclasses.replace(
        known_figures(name),
        parameters=info.parameters,
        image_parameters=sum(map(_image_parameters, parts)),
        embed_dim=info.embed_dim,
        image_size=info.preprocessing.image_size,
        images_per_second=images_per_second(backbone, seconds=MEASURED_SECONDS),
        weights_hash=info.weights_hash,
    )


def _image_parameters(backbone: Backbone) -> int:
    return sum(parameter.numel() for parameter in cast(nn.Module, backbone.model.visual).parameters())
