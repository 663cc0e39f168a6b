"""Which images each step takes, in every process: order, hard pairs, shares, padding, and mixing.

The order of an epoch follows from the seed, the epoch's number and the pairs mined before it alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har import distributed
from clip_har.config import AugmentSettings
from clip_har.hard_pairs import HardPairs, compose, margins
from clip_har.methods import Batch, InputKind, LabelledImages
from clip_har.methods.labelled_images import features_of

# Shapes: N training images, B of a batch, C classes.

SEED_STEP = 100_003


def epoch_seed(seed: int, epoch: int) -> int:
    """What everything random in an epoch follows from."""
    return seed * SEED_STEP + epoch


class Epoch:
    """The steps of one epoch, for this process.

    Args:
        images: the training split.
        reads: what the classifier takes of each image.
        batch_size: images per forward pass and process.
        accumulate: forward passes per optimizer step.
        settings: the run's.
        pairs: mined hard pairs, or None.
        logit_scale: what turns a margin of cosine similarity into one of logits.
    """

    def __init__(
        self,
        images: LabelledImages,
        reads: InputKind,
        *,
        batch_size: int,
        accumulate: int,
        settings: AugmentSettings,
        seed: int,
        number: int,
        classes: Sequence[str],
        pairs: HardPairs | None,
        logit_scale: float,
    ) -> None:
        self._images = images
        self._reads = reads
        self._batch_size = batch_size
        self._settings = settings
        self._seed = epoch_seed(seed, number)
        self._number = number
        self._classes = classes
        self._pairs = pairs
        self._margin = settings.hard_margin * logit_scale
        generator = torch.Generator().manual_seed(self._seed)
        order_N = torch.randperm(len(images), generator=generator)
        step_size = batch_size * accumulate * distributed.world_size()
        if pairs is not None and settings.hard_pairs > 0:
            self.steps = compose(order_N, pairs, settings.hard_pairs, step_size, generator)
        else:
            self.steps = list(order_N.split(step_size))

    def __len__(self) -> int:
        return len(self.steps)

    def batches(self, device: torch.device, *, done: int = 0) -> Iterator[list[Batch]]:
        """This process's forward passes of each step after the first `done`."""
        parts = [self._own_part(step) for step in self.steps[done:]]
        micro = [list(zip(*(x.split(self._batch_size) for x in part), strict=True)) for part in parts]
        inputs = self._inputs([indices_B for step in micro for indices_B, _ in step])
        for step in micro:
            yield [self._batch(indices_B, shares_B, next(inputs), device) for indices_B, shares_B in step]

    def _own_part(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and shares of the step's images that this process takes.

        Gradients are averaged over processes, so a share is W / n there. Where a process has fewer images than the
        others, images without a share fill its place: collective operations need equal sizes.
        """
        world, rank = distributed.world_size(), distributed.rank()
        each = -(-len(step) // world)
        own = step[rank * each : (rank + 1) * each]
        shares = torch.full((each,), world / len(step))
        shares[len(own) :] = 0.0
        return torch.cat([own, step[:1].expand(each - len(own))]), shares

    def _inputs(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        if self._images.layers is not None:
            for indices_B in batches:
                yield self._images.tokens(indices_B.tolist())
            return
        if self._reads == "image":
            assert self._images.files is not None
            yield from self._images.files.training_batches(
                [indices_B.tolist() for indices_B in batches],
                augment=self._settings.augment,
                image_size=self._settings.train_image_size,
                seed=self._seed,
            )
            return
        tables = (self._images.table, *self._images.views)
        table = tables[self._number % len(tables)]  # the plain images and their views take turns
        features_N = features_of(table, self._reads)
        for indices_B in batches:
            yield features_N[indices_B]

    def _batch(self, indices_B: Tensor, shares_B: Tensor, inputs: Tensor, device: torch.device) -> Batch:
        labels_B = self._images.labels_N[indices_B]
        offsets_BC = None
        if self._pairs is not None and self._settings.hard_pairs > 0:
            offsets_BC = margins(labels_B, indices_B, self._pairs, self._classes, self._margin)
        targets_BC = None
        if self._settings.mixup > 0:
            inputs, targets_BC = mixed(inputs, labels_B, len(self._classes), self._settings.mixup)
        if self._settings.label_smoothing > 0:
            targets_BC = smoothed(labels_B, targets_BC, len(self._classes), self._settings.label_smoothing)
        return Batch(
            inputs=inputs.to(device, non_blocking=True),
            labels_B=labels_B.to(device),
            weights_B=shares_B.to(device),
            targets_BC=None if targets_BC is None else targets_BC.to(device),
            offsets_BC=None if offsets_BC is None else offsets_BC.to(device),
        )


def smoothed(labels_B: Tensor, targets_BC: Tensor | None, classes: int, share: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7): (1 - share) of the targets, share / C to all.

    Args:
        targets_BC: mixed labels; None for the labels as they are.
    """
    if targets_BC is None:
        targets_BC = F.one_hot(labels_B, classes).float()
    return (1 - share) * targets_BC + share / classes


def mixed(inputs: Tensor, labels_B: Tensor, classes: int, beta: float) -> tuple[Tensor, Tensor]:
    """Each image mixed with another of the batch, and the labels in the same shares (Zhang et al. 2018, mixup).

    arXiv 1710.09412, eq. 1: lambda x_i + (1 - lambda) x_j with lambda ~ Beta(beta, beta). Draws from torch's global
    generator. Mixed embeddings are brought back to unit length where both were.
    """
    share = float(torch.distributions.Beta(beta, beta).sample())
    other = torch.randperm(len(labels_B))
    mixed_inputs = share * inputs + (1 - share) * inputs[other]
    if inputs.ndim == 2 and torch.allclose(inputs.norm(dim=-1), torch.ones(len(inputs)), atol=1e-3):
        mixed_inputs = F.normalize(mixed_inputs, dim=-1)
    one_hot_BC = F.one_hot(labels_B, classes).float()
    return mixed_inputs, share * one_hot_BC + (1 - share) * one_hot_BC[other]
