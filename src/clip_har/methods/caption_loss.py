"""The losses between images and a caption of each, for a step of one forward pass or of several.

The losses themselves are in losses.py; the order of the passes is the engine's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip_har.losses import CAPTION_LOSSES
from clip_har.methods.base import Batch

# Shapes: B images of a pass, S images of the step's passes together, D embedding width.


@dataclass(frozen=True, kw_only=True)
class EmbeddingBatch(Batch):
    """Asks `caption_loss` for the embeddings of images and captions, side by side, in place of the loss."""


@dataclass(frozen=True, kw_only=True)
class PartOfStep(Batch):
    """One of a step's passes, whose images are contrasted with those of the other passes too."""

    passes: tuple[Batch, ...]
    """All of the step's, in order."""
    embeddings: tuple[Tensor, ...]
    """What `caption_loss` gave for each of them as an `EmbeddingBatch`, without gradients: [B, 2 D] each."""
    number: int
    """Which of the passes this is."""


def asking_for_embeddings(batch: Batch) -> EmbeddingBatch:
    """The same images, for the first of the two rounds."""
    return EmbeddingBatch(**_fields(batch))


def parts_of_step(batches: Sequence[Batch], embeddings: Sequence[Tensor]) -> list[PartOfStep]:
    """The passes of the second round."""
    passes, constant = tuple(batches), tuple(embeddings)
    return [
        PartOfStep(**_fields(batch), passes=passes, embeddings=constant, number=number)
        for number, batch in enumerate(batches)
    ]


def caption_loss(name: str, image_BD: Tensor, caption_BD: Tensor, scale: Tensor, batch: Batch) -> Tensor:
    """A pass's part of the loss called `name`, a scalar; for an `EmbeddingBatch`, the embeddings [B, 2 D].

    The negatives are all images and captions of the step. In one of several passes those of the others are constants,
    and the gradients of the passes add up to that of one large batch (Gao et al. 2021, arXiv 2101.06983, section 3.2).
    """
    own_BE = torch.cat([image_BD, caption_BD], dim=1)
    if isinstance(batch, EmbeddingBatch):
        return own_BE
    loss = CAPTION_LOSSES[name]
    if not isinstance(batch, PartOfStep):
        return loss(image_BD, caption_BD, batch.labels_B, scale, batch.weights_B)
    rows, count = list(batch.embeddings), len(batch.passes)
    rows[batch.number] = own_BE
    image_SD, caption_SD = torch.cat(rows).chunk(2, dim=1)
    labels_S = torch.cat([other.labels_B for other in batch.passes])
    weights_S = torch.cat([other.weights_B for other in batch.passes])
    # Every pass computes the whole loss, so that each gives the scale, and the loss reported, its equal part.
    scale = scale.detach() + (scale - scale.detach()) / count
    whole = loss(image_SD, caption_SD, labels_S, scale, weights_S)
    return whole - whole.detach() * (1 - 1 / count)


def _fields(batch: Batch) -> dict[str, Any]:
    return {item.name: getattr(batch, item.name) for item in dataclasses.fields(Batch)}
