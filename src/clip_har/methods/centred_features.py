"""Features before the projection, as adapters on cached features see them: unit length, centred, unit length again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, Features, Settings, TrainConfig
from clip_har.features import FeatureTable
from clip_har.methods.base import Method
from clip_har.methods.labelled_images import InputKind

# Shapes: B and N images, D embedding width, H width before the projection.


class CentredFeatures(nn.Module):
    """z(h) = unit(unit(h) - m), with m the mean of unit(h) over the training images.

    Without the mean, which all images share, cosines between features are all close to 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean_H: Tensor
        self.register_buffer("mean_H", torch.zeros(width))

    def fit(self, hidden_NH: Tensor) -> None:
        """Take the mean of the training images' features."""
        self.mean_H.copy_(F.normalize(hidden_NH, dim=-1).mean(dim=0))

    def forward(self, hidden_BH: Tensor) -> Tensor:
        return F.normalize(F.normalize(hidden_BH, dim=-1) - self.mean_H, dim=-1)


def input_kind(config: TrainConfig | Settings, default: Features) -> InputKind:
    """What a classifier reads for what --features asks."""
    features = default if config.features is None else config.features
    return "both" if features == "pre-projection" else "embedding"


class AdaptsFeatures(Method):
    """A method on the features that --features names; by default those before the projection."""

    saves_buffers = True

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        del given, backbone
        return Defaults(features="pre-projection")

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        return input_kind(config, "pre-projection")

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        return super().settings_read() | {"features"}


def split(both_BX: Tensor, embedding_width: int) -> tuple[Tensor, Tensor]:
    """Unit-length embeddings [B, D] and features before the projection [B, H], from both side by side."""
    return F.normalize(both_BX[:, :embedding_width], dim=-1), both_BX[:, embedding_width:]


def adapter_inputs(table: FeatureTable, centred: CentredFeatures | None) -> Tensor:
    """What an adapter sees of the images of a table: their embeddings [N, D], or centred features [N, H]."""
    return table.embedding if centred is None else centred(table.hidden)
