"""What methods learn from and answer for: images of a split as cached features and files, with their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clip_har import distributed
from clip_har.features import FeatureTable
from clip_har.images import ImageFiles
from clip_har.layer_cache import LayerCache
from clip_har.progress import SILENT, Progress

# Shapes: N images of a split, C classes, D embedding width, H width before the projection.

InputKind = Literal["embedding", "hidden", "both", "image"]
"""What a classifier reads of an image: see `Classifier.reads`."""

_TOKEN_BATCH = 16
"""Images evaluated together from cached layers: as many as from files."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """One split: cached features, class indices (int64 [N]) and the image files, in the same order."""

    table: FeatureTable
    labels_N: Tensor
    views: tuple[FeatureTable, ...] = ()
    """Cached features of augmented views, one table per view."""
    files: ImageFiles | None = None
    """What classifiers that read images need."""
    layers: LayerCache | None = None
    """The images' tokens behind the layers that stay as they are, which then take the place of the files."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def features(self, kind: InputKind) -> Tensor:
        """The cached features that a classifier reads, float32 [N, D], [N, H] or [N, D + H]."""
        return features_of(self.table, kind)

    def joined(self, other: LabelledImages) -> LabelledImages:
        """These images and then the others', without views; with files and layers where both have them."""
        table = self.table.joined(other.table)
        files = None
        if self.files is not None and other.files is not None:
            files = self.files.joined(other.files, table.hashes)
        return LabelledImages(
            table=table,
            labels_N=torch.cat([self.labels_N, other.labels_N]),
            files=files,
            layers=self.layers if self.layers is other.layers else None,
        )

    def tokens(self, indices: Sequence[int]) -> Tensor:
        """Tokens of some of the images behind the frozen layers, float32 [B, L, W]."""
        assert self.layers is not None
        return self.layers.tokens([self.table.hashes[index] for index in indices])

    def subset(self, indices: list[int]) -> LabelledImages:
        """Some of the images, in the order given."""
        return LabelledImages(
            table=self.table.subset(indices),
            labels_N=self.labels_N[indices],
            views=tuple(view.subset(indices) for view in self.views),
            files=self.files.subset(indices) if self.files else None,
            layers=self.layers,
        )


def features_of(table: FeatureTable, kind: InputKind) -> Tensor:
    """The cached features that a classifier reads, float32 [N, D], [N, H] or [N, D + H]."""
    if kind == "both":
        return torch.cat([table.embedding, table.hidden], dim=1)
    assert kind != "image"
    return table.embedding if kind == "embedding" else table.hidden


def over_files(images: LabelledImages, function: Callable[[Tensor], Tensor], progress: Progress = SILENT) -> Tensor:
    """What `function` gives for every image file, in order: [N, ...]; each process computes its share, all get all.

    Args:
        function: preprocessed images [B, 3, H, W], or tokens [B, L, W] of frozen layers where these are cached ->
            rows [B, ...] on the CPU.
    """
    own = range(distributed.rank(), len(images), distributed.world_size())
    parts: list[tuple[list[int], Tensor]] = []
    with progress.bar("Validating", total=len(own), unit="images") as bar:
        for indices, inputs in _evaluated(images, own):
            parts.append((indices, function(inputs)))
            bar.advance(len(indices))
    gathered = [part for of_process in distributed.gather_objects(parts) for part in of_process]
    order = torch.tensor([index for indices, _ in gathered for index in indices])
    return torch.cat([rows for _, rows in gathered])[order.argsort()]


def _evaluated(images: LabelledImages, own: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices, and the images as an image encoder takes them."""
    if images.layers is None:
        assert images.files is not None
        yield from images.files.evaluation_batches(own)
        return
    for indices in torch.tensor(own, dtype=torch.int64).split(_TOKEN_BATCH):
        yield indices.tolist(), images.tokens(indices.tolist())


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Answers of cross-validation: for each image, those of a classifier that was fitted without it."""

    hashes: tuple[str, ...]
    """The images' content hashes."""
    labels_N: Tensor
    probabilities_NC: Tensor
