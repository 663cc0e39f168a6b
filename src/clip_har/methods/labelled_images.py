"""What methods learn from and answer for: images of a split as cached features and files, with their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clip_har.features import FeatureTable
from clip_har.images import ImageFiles

# Shapes: N images of a split, C classes, D embedding width, H width before the projection.

InputKind = Literal["embedding", "hidden", "both", "image"]
"""What a classifier reads of an image: see `Classifier.reads`."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """One split: cached features, class indices (int64 [N]) and the image files, in the same order."""

    table: FeatureTable
    labels_N: Tensor
    views: tuple[FeatureTable, ...] = ()
    """Cached features of augmented views, one table per view."""
    files: ImageFiles | None = None
    """What classifiers that read images need."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def features(self, kind: InputKind) -> Tensor:
        """The cached features that a classifier reads, float32 [N, D], [N, H] or [N, D + H]."""
        return features_of(self.table, kind)

    def joined(self, other: LabelledImages) -> LabelledImages:
        """These images and then the others', as cached features without views or files."""
        return LabelledImages(table=self.table.joined(other.table), labels_N=torch.cat([self.labels_N, other.labels_N]))

    def subset(self, indices: list[int]) -> LabelledImages:
        """Some of the images, in the order given."""
        return LabelledImages(
            table=self.table.subset(indices),
            labels_N=self.labels_N[indices],
            views=tuple(view.subset(indices) for view in self.views),
            files=self.files.subset(indices) if self.files else None,
        )


def features_of(table: FeatureTable, kind: InputKind) -> Tensor:
    """The cached features that a classifier reads, float32 [N, D], [N, H] or [N, D + H]."""
    if kind == "both":
        return torch.cat([table.embedding, table.hidden], dim=1)
    assert kind != "image"
    return table.embedding if kind == "embedding" else table.hidden


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Answers of cross-validation: for each image, those of a classifier that was fitted without it."""

    hashes: tuple[str, ...]
    """The images' content hashes."""
    labels_N: Tensor
    probabilities_NC: Tensor
