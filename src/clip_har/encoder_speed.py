"""How many images per second a model reads on this machine: its image encoder alone, or with files to decode."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from clip_har.backbone import CPU_BATCH_SIZE, Backbone, BackboneInfo, resolve_device, resolve_precision
from clip_har.config import Precision
from clip_har.fusion import FusedBackbone
from clip_har.images import DecodedBatch, Preprocessing, decode_batches
from clip_har.images.workers import worker_count
from clip_har.light_imports import import_open_clip
from clip_har.pretrained.guards import quiet

GPU_BATCH_SIZE = 64
"""Images per forward pass when embeddings are computed, by default; a CPU gets fewer (`Backbone.encode_images`)."""
FEWEST_IMAGES = 32
_FILES = 16
_MOST_READ = 200_000


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


def file_images_per_second(
    backbone: Backbone, *, file_size: tuple[int, int], seconds: float, workers: int = -1
) -> float:
    """Images per second from JPEG files to features, decoded in worker processes as when embeddings are computed.

    On a CPU, the workers and the encoder share the cores. The files are in the operating system's cache.

    Args:
        backbone: the model, on its device.
        file_size: width and height of the files in pixels.
        seconds: how long to measure, after batches that the workers decoded in advance; at least one batch in any case.
        workers: processes that decode; -1: one per core.
    """
    count = worker_count(workers)
    size = CPU_BATCH_SIZE if backbone.device.type == "cpu" else GPU_BATCH_SIZE
    in_advance = 1 + 2 * count  # torch's DataLoader prefetches two batches per worker
    preprocessing = backbone.info.preprocessing
    with tempfile.TemporaryDirectory(prefix="clip-har-speed-") as folder:
        paths = list(itertools.islice(itertools.cycle(_write_jpegs(Path(folder), file_size)), _MOST_READ))
        batches = decode_batches(paths, preprocessing.pixel_transform(), batch_size=size, workers=count)
        with contextlib.closing(cast(Generator[DecodedBatch, None, None], batches)):
            begun, read = time.perf_counter(), 0
            counted_from = begun
            for number, batch in enumerate(batches):
                backbone.encode_images(preprocessing.normalise(batch.images_BCHW))
                now = time.perf_counter()
                if read == 0 and number + 1 < in_advance and now - begun < seconds:
                    counted_from = now
                    continue
                read += len(batch.indices)
                if now - counted_from >= seconds:
                    break
    return read / max(1e-9, now - counted_from)


def _write_jpegs(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Smooth random colours with some grain, of the size of a small photograph (about 20 kB)."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(_FILES)]
    for path in paths:
        coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = generator.integers(-8, 9, smooth.shape, dtype=np.int16)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=85)
    return paths


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
