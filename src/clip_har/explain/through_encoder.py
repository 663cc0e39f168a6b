"""A classifier as a differentiable function of preprocessed images, whatever it reads of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone, ImageFeatures
from clip_har.fusion import FusedBackbone
from clip_har.methods import Classifier
from clip_har.projection import capture_hidden


@dataclass(frozen=True, kw_only=True)
class ThroughEncoder:
    """Images [B, 3, H, W] -> logits [B, C] with gradients, and what they go through."""

    logits_of: Callable[[Tensor], Tensor]
    visual: nn.Module
    """The image encoder."""
    device: torch.device


def through_encoder(classifier: Classifier, load_backbone: Callable[[], Backbone]) -> ThroughEncoder | None:
    """The function of a classifier in eval mode; None where several combined models have no one image encoder.

    Args:
        load_backbone: gives the backbone in float32, for a classifier that reads its features.
    """
    if classifier.reads == "image":
        holder = getattr(classifier, "model", classifier)
        return ThroughEncoder(logits_of=classifier, visual=cast(nn.Module, holder.visual), device=classifier.device)
    backbone = load_backbone()
    if isinstance(backbone, FusedBackbone):
        return None
    visual = cast(nn.Module, backbone.model.visual)
    classifier.to(backbone.device)

    def logits_of(images_BCHW: Tensor) -> Tensor:
        with capture_hidden(visual) as captured:
            embedding_BD = F.normalize(backbone.model.encode_image(images_BCHW).float(), dim=-1)  # type: ignore[operator]
        features = ImageFeatures(embedding_BD=embedding_BD, hidden_BH=captured.get("hidden"))
        return classifier(features.of_kind(classifier.reads).float())  # type: ignore[no-any-return]

    return ThroughEncoder(logits_of=logits_of, visual=visual, device=backbone.device)
