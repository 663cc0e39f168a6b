"""CLIP-Adapter: a bottleneck MLP on cached image embeddings, mixed with the embeddings themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, OptimizerSettings, TrainConfig
from clip_har.methods.base import Classifier, ClassifierContext, GradientMethod, Task, decayed_groups

# Shapes: B images, C classes, D embedding width, K width of the bottleneck.

REDUCTION = 4
"""D / K, the paper's own."""
RESIDUAL_RATIO = 0.2
"""Share of the adapted features in the mixture, the paper's on ImageNet."""


class AdapterClassifier(Classifier):
    """softmax(logit scale * cos(r A(x) + (1 - r) x, prompts)) with A(x) = ReLU(x W1) W2.

    2 * D * K trainable parameters: 131,072 on ViT-B/32 (D = 512).
    """

    def __init__(self, prompts_CD: Tensor, logit_scale: float) -> None:
        super().__init__()
        width = prompts_CD.shape[1]
        bottleneck = max(1, width // REDUCTION)
        self.prompts_CD: Tensor
        self.register_buffer("prompts_CD", prompts_CD, persistent=False)
        self.logit_scale = logit_scale
        self.down = nn.Linear(width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """W1 as PyTorch draws it for a ReLU, W2 = 0: training starts at the zero-shot model."""
        nn.init.kaiming_uniform_(self.down.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.up.weight)

    def adapt_images(self, embedding_BD: Tensor) -> Tensor:
        """Adapted image embeddings, unit-length [B, D]."""
        adapted_BD: Tensor = self.up(F.relu(self.down(embedding_BD)))
        return F.normalize(RESIDUAL_RATIO * adapted_BD + (1 - RESIDUAL_RATIO) * embedding_BD, dim=-1)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        return self.logit_scale * self.adapt_images(embedding_BD) @ self.prompts_CD.T


class ClipAdapter(GradientMethod):
    """Gao et al. 2021, with the visual adapter alone, which the paper found best."""

    name = "clip-adapter"
    cheaper_rival = "linear-probe"
    source = "arXiv 2110.04544"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        del given, backbone
        return Defaults(
            optimizer=OptimizerSettings(epochs=40)
        )  # an epoch is a second at most; small data sets need the steps

    def build(self, task: Task) -> AdapterClassifier:
        classifier = AdapterClassifier(task.prompts_CD, task.logit_scale)
        classifier.initialise(torch.Generator().manual_seed(task.seed))
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> AdapterClassifier:
        classifier = AdapterClassifier(frame.prompts_CD, frame.logit_scale)
        classifier.load_state_dict(dict(tensors))
        return classifier

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        optimizer = self.settings.optimizer
        lr = optimizer.lr * optimizer.vision_lr_multiplier
        return decayed_groups(dict(classifier.named_parameters()), lr=lr, weight_decay=optimizer.weight_decay)
