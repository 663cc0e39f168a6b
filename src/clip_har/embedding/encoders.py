"""What turns images into features for `clip-har embed`: this process with its decoding workers. On Ray: on_ray.py.

Which images, and what becomes of their features, is in encoding.py.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch

from clip_har.backbone import Backbone, BackboneInfo, ImageFeatures
from clip_har.config import EmbedConfig
from clip_har.errors import ModelError
from clip_har.fusion import part_names
from clip_har.images.hashed_batches import Address, HashedBatch, hashed_batches
from clip_har.images.workers import worker_count
from clip_har.progress import Progress
from clip_har.tuned_models import load_given


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """Some consecutive images."""

    sha256: list[str | None]
    """SHA-256 in hex of each file's content; None where there is no content."""
    reasons: list[str | None]
    """Why each image cannot be read; None where it can."""
    features: ImageFeatures | None
    """Of the readable ones, in order; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What decides the features."""

    info: BackboneInfo
    precision: str
    widths: dict[str, int]
    """Numbers per image of each kind of feature that is written."""


class Encoder(Protocol):
    """What encodes."""

    @property
    def about(self) -> EncoderInfo:
        """What decides the features."""

    def encoded(self, batches: Iterable[Sequence[Address]], images: int) -> Generator[EncodedBatch, None, None]:
        """The features of each batch, in order; few batches are asked for ahead.

        Args:
            images: how many there are in all, approximately.
        """


class LocalEncoder:
    """Encodes in this process, and decodes in others next to it.

    Raises:
        UserError: the model cannot be used, or has no such features.
    """

    def __init__(self, config: EmbedConfig, progress: Progress) -> None:
        self._config = config
        self._backbone = load_encoder(
            config.model, device=config.device, precision=config.precision, offline=config.offline, progress=progress
        )
        self.about = about(self._backbone, config.features)

    def encoded(self, batches: Iterable[Sequence[Address]], images: int) -> Generator[EncodedBatch, None, None]:
        size = self._config.encode_batch_size
        read = hashed_batches(
            batches,
            self.about.info.preprocessing.pixel_transform(),
            batch_size=size,
            workers=_workers(self._config.workers, images, size),
        )
        with closing(read):  # else workers that ignore signals would outlive an interruption
            for batch in read:
                yield encode(self._backbone, batch)


def encode(backbone: Backbone, batch: HashedBatch) -> EncodedBatch:
    """The features of what was read."""
    images_BCHW = backbone.info.preprocessing.normalise(batch.images_BCHW)
    features = backbone.encode_images(images_BCHW) if len(images_BCHW) else None
    return EncodedBatch(sha256=batch.sha256, reasons=batch.reasons, features=features)


def about(backbone: Backbone, features: str) -> EncoderInfo:
    """What decides the features of a model.

    Raises:
        ModelError: the image encoder has no features before a projection.
    """
    return EncoderInfo(info=backbone.info, precision=backbone.precision, widths=feature_widths(backbone, features))


def load_encoder(model: str, *, device: str, precision: str, offline: bool, progress: Progress) -> Backbone:
    """The model to embed with; under torchrun on the GPU of this process.

    Raises:
        UserError: as for `load_given`; or several models are combined.
    """
    if len(part_names(model)) > 1:
        raise ModelError(
            f"--model {model} combines several models", remedy="Embed with each of them, into directories of their own."
        )
    own = os.environ.get("LOCAL_RANK", "")
    if device == "auto" and own.isdecimal() and torch.cuda.is_available():
        device = f"cuda:{int(own) % torch.cuda.device_count()}"
    backbone = load_given(model, device=device, precision=precision, local_only=offline)  # type: ignore[arg-type]
    for note in backbone.notes:
        progress.note(note)
    return backbone


def feature_widths(backbone: Backbone, features: str) -> dict[str, int]:
    """How many numbers each kind of feature has that is asked for.

    Raises:
        ModelError: the image encoder has no features before a projection.
    """
    height, width = backbone.info.preprocessing.image_size
    blank = backbone.encode_images(torch.zeros(1, 3, height, width))
    kinds = ("embedding", "hidden") if features == "both" else (features,)
    if "hidden" in kinds and blank.hidden_BH is None:
        raise ModelError(
            f"The image encoder of {backbone.info.name} has no features before a projection",
            remedy="Pass --features embedding.",
        )
    found = {"embedding": blank.embedding_BD, "hidden": blank.hidden_BH}
    return {kind: tensor.shape[1] for kind, tensor in found.items() if kind in kinds and tensor is not None}


def _workers(asked: int, images: int, batch_size: int) -> int:
    """Processes that decode: one per core, which the processes of torchrun share; no more than there are batches."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    count = worker_count(asked)
    if asked < 0 and local.isdecimal():
        count = max(1, count // max(1, int(local)))
    return min(count, -(-images // batch_size))
