"""CLIP-Adapter: a bottleneck MLP on cached image embeddings, mixed with the embeddings themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, OptimizerSettings, TrainConfig
from clip_har.methods.base import Classifier, ClassifierContext, GradientMethod, Task, decayed_groups
from clip_har.methods.centred_features import AdaptsFeatures, CentredFeatures, split

# Shapes: B images, C classes, D embedding width, K width of the bottleneck.

REDUCTION = 4
"""D / K, the paper's own."""
RESIDUAL_RATIO = 0.2
"""Share of the adapted features in the mixture, the paper's on ImageNet."""


class AdapterClassifier(Classifier):
    """softmax(logit scale * cos(r A(x) + (1 - r) x, prompts)) with A(x) = ReLU(x W1) W2.

    2 D K trainable parameters: 131,072 on ViT-B/32 (D = 512).
    """

    def __init__(self, prompts_CD: Tensor, logit_scale: float, input_width: int | None = None) -> None:
        super().__init__()
        width = prompts_CD.shape[1]
        bottleneck = max(1, width // REDUCTION)
        self.prompts_CD: Tensor
        self.register_buffer("prompts_CD", prompts_CD, persistent=False)
        self.logit_scale = logit_scale
        self.down = nn.Linear(input_width or width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """W1 as PyTorch draws it for a ReLU, W2 = 0: training starts at the zero-shot model."""
        nn.init.kaiming_uniform_(self.down.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(self.up.weight)

    def adapt_images(self, inputs: Tensor) -> Tensor:
        """Adapted image embeddings, unit-length [B, D]."""
        return self._mixed(inputs, inputs)

    def _mixed(self, embedding_BD: Tensor, inputs: Tensor) -> Tensor:
        adapted_BD: Tensor = self.up(F.relu(self.down(inputs)))
        return F.normalize(RESIDUAL_RATIO * adapted_BD + (1 - RESIDUAL_RATIO) * embedding_BD, dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logit_scale * self.adapt_images(inputs) @ self.prompts_CD.T


class PreProjectionAdapter(AdapterClassifier):
    """The same with A of the features before the projection: K (H + D) trainable parameters."""

    reads = "both"

    def __init__(self, prompts_CD: Tensor, logit_scale: float, width: int) -> None:
        super().__init__(prompts_CD, logit_scale, width)
        self.centred = CentredFeatures(width)

    def adapt_images(self, inputs: Tensor) -> Tensor:
        embedding_BD, hidden_BH = split(inputs, self.prompts_CD.shape[1])
        return self._mixed(embedding_BD, self.centred(hidden_BH))


class ClipAdapter(AdaptsFeatures, GradientMethod):
    """Gao et al. 2021, with the visual adapter alone, which the paper found best."""

    name = "clip-adapter"
    cheaper_rival = "linear-probe"
    source = "arXiv 2110.04544"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        # An epoch is a second at most; small data sets need the steps.
        return replace(super().defaults(given, backbone), optimizer=OptimizerSettings(epochs=40))

    def build(self, task: Task) -> AdapterClassifier:
        classifier = self._empty(task, task.train.table.hidden.shape[1])
        if isinstance(classifier, PreProjectionAdapter):
            classifier.centred.fit(task.train.table.hidden)
        classifier.initialise(torch.Generator().manual_seed(task.seed))
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> AdapterClassifier:
        classifier = self._empty(frame, tensors["down.weight"].shape[1])
        classifier.load_state_dict(dict(tensors))
        return classifier

    def _empty(self, frame: ClassifierContext, width: int) -> AdapterClassifier:
        if self.settings.features == "pre-projection":
            return PreProjectionAdapter(frame.prompts_CD, frame.logit_scale, width)
        return AdapterClassifier(frame.prompts_CD, frame.logit_scale)

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        optimizer = self.settings.optimizer
        lr = optimizer.lr * optimizer.vision_lr_multiplier
        return decayed_groups(dict(classifier.named_parameters()), lr=lr, weight_decay=optimizer.weight_decay)
