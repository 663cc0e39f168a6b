"""How many images per second an image encoder reads here: the encoder alone, without reading and decoding files."""

from __future__ import annotations

import statistics
import time
from typing import Any, cast

import torch
from torch import nn

from clip_har.backbone import CPU_BATCH_SIZE, Backbone, BackboneInfo, resolve_device, resolve_precision
from clip_har.config import Precision
from clip_har.fusion import FusedBackbone
from clip_har.images import Preprocessing
from clip_har.light_imports import import_open_clip
from clip_har.pretrained.guards import quiet

GPU_BATCH_SIZE = 64
"""Images per forward pass when embeddings are computed, by default; a CPU gets fewer (`Backbone.encode_images`)."""
FEWEST_IMAGES = 32


def images_per_second(backbone: Backbone, *, seconds: float = 0.0) -> float:
    """Images per second through `Backbone.encode_images`, as when embeddings are computed.

    Args:
        backbone: the model, on its device.
        seconds: how long to measure at least; `FEWEST_IMAGES` images are encoded in any case. The batch of median time
            counts, so that other programs disturb little.
    """
    if isinstance(backbone, FusedBackbone):  # one encoder after the other
        each = seconds / len(backbone.parts)
        return 1 / sum(1 / images_per_second(part, seconds=each) for part in backbone.parts)
    size = CPU_BATCH_SIZE if backbone.device.type == "cpu" else GPU_BATCH_SIZE
    height, width = backbone.info.preprocessing.image_size
    images_BCHW = torch.randn(size, 3, height, width, generator=torch.Generator().manual_seed(0))
    backbone.encode_images(images_BCHW[: size if seconds else 2])  # the first pass also allocates
    took: list[float] = []
    while len(took) * size < FEWEST_IMAGES or sum(took) < seconds:
        begun = time.perf_counter()
        backbone.encode_images(images_BCHW)
        took.append(time.perf_counter() - begun)
    return size / max(1e-9, statistics.median(took))


def random_backbone(architecture: str, *, device: str = "auto", precision: Precision = "auto") -> Backbone:
    """One of open_clip's architectures with random weights, which are as fast as trained ones.

    Raises:
        ModelError: no such device.
    """
    chosen = resolve_device(device)
    with quiet():
        model: nn.Module = import_open_clip().create_model(architecture).eval().requires_grad_(False)
    visual = cast(Any, model).visual
    info = BackboneInfo(
        name=architecture,
        weights_hash="",
        activation="unknown",
        embed_dim=0,
        parameters=0,
        preprocessing=Preprocessing.from_open_clip(visual.preprocess_cfg),
        logit_scale=1.0,
    )
    resolved = resolve_precision(precision, chosen)
    model.to(chosen)
    visual.to(getattr(torch, resolved), memory_format=torch.channels_last)
    return Backbone(model, None, info, resolved)
