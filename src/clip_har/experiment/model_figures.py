"""What is known of a pretrained model besides its accuracy: counted, measured here, or from the catalogue of models.

`evaluation.model_comparison` says what each figure means; the catalogue itself is in `pretrained`.
"""

from __future__ import annotations

import dataclasses
import time
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import nn

from clip_har.backbone import Backbone
from clip_har.evaluation.model_comparison import ModelFigures

TIMED_IMAGES = 16
"""Images of a timed batch, as many as a CPU encodes at once."""
TIMED_IMAGES_OF_A_GPU = 64
TIMED_SECONDS, MOST_PASSES = 2.0, 9


class CatalogueFacts(Protocol):
    """What the catalogue of models says of one; read-only, and None where it does not know."""

    @property
    def image_parameters(self) -> int | None: ...
    @property
    def text_parameters(self) -> int | None: ...
    @property
    def embed_dim(self) -> int | None: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def gflops(self) -> float | None: ...
    @property
    def data(self) -> str | None: ...
    @property
    def licence(self) -> str | None: ...
    @property
    def research_only(self) -> bool | None: ...


def catalogue_facts(name: str) -> CatalogueFacts | None:
    """The catalogue's entry of a model; None where it has none, or where there is no catalogue."""
    try:
        catalogue = import_module("clip_har.pretrained.catalogue")
    except ModuleNotFoundError:
        return None
    return cast("CatalogueFacts | None", catalogue.describe(name))


def known_figures(name: str) -> ModelFigures:
    """What the catalogue says of a model that need not be on this machine."""
    facts = catalogue_facts(name)
    if facts is None:
        return ModelFigures()
    both = (facts.image_parameters, facts.text_parameters)
    return ModelFigures(
        parameters=None if both[0] is None or both[1] is None else both[0] + both[1],
        image_parameters=facts.image_parameters,
        embed_dim=facts.embed_dim,
        image_size=None if facts.image_size is None else (facts.image_size, facts.image_size),
        gflops=facts.gflops,
        pretraining_data=facts.data or "",
        licence=facts.licence or "",
        research_only=facts.research_only,
    )


def measured_figures(name: str, backbone: Backbone) -> ModelFigures:
    """The figures of a loaded model; what can be counted or measured is not taken from the catalogue."""
    info = backbone.info
    visual = cast(nn.Module, backbone.model.visual)
    return dataclasses.replace(
        known_figures(name),
        parameters=info.parameters,
        image_parameters=sum(parameter.numel() for parameter in visual.parameters()),
        embed_dim=info.embed_dim,
        image_size=info.preprocessing.image_size,
        images_per_second=images_per_second(backbone),
        weights_hash=info.weights_hash,
    )


def images_per_second(backbone: Backbone) -> float:
    """Images that the frozen image encoder reads in a second: of the fastest of several batches of noise.

    The fastest is the one that other programs disturbed least. A first, smaller batch is not timed. Reading and
    decoding files is no part of it.
    """
    height, width = backbone.info.preprocessing.image_size
    count = TIMED_IMAGES if backbone.device.type == "cpu" else TIMED_IMAGES_OF_A_GPU
    images_BCHW = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    backbone.encode_images(images_BCHW[:2])
    took: list[float] = []
    while not took or (sum(took) < TIMED_SECONDS and len(took) < MOST_PASSES):
        begun = time.perf_counter()
        backbone.encode_images(images_BCHW)
        took.append(time.perf_counter() - begun)
    return count / max(1e-9, min(took))
