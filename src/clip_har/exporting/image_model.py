"""A run as one module from preprocessed images to logits and calibrated probabilities, as a graph can hold it.

Writing the graph is in onnx_file.py. What the run itself answers is for run_model.py.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.fusion import FusedBackbone
from clip_har.methods import Classifier
from clip_har.methods.ensemble import EnsembleClassifier
from clip_har.methods.labelled_images import InputKind
from clip_har.projection import projection_of, remove_projection

# Shapes: B images, C classes, D embedding width, H width before the projection.


class Encoder(nn.Module):
    """Preprocessed images [B, 3, H, W] -> the features that a classifier reads of the frozen image encoder.

    Args:
        backbone: in float32; it is copied.
        kind: "embedding", "hidden" or "both", see `ImageFeatures.of_kind`.
    """

    def __init__(self, backbone: Backbone, kind: InputKind) -> None:
        super().__init__()
        visual = cast(nn.Module, backbone.model.visual)
        self.kind = kind
        self.visual = copy.deepcopy(visual)
        projection = projection_of(visual)
        self.projects = projection is not None
        self.weight_HD: Tensor
        self.bias_D: Tensor
        if projection is not None:
            remove_projection(self.visual)
            self.register_buffer("weight_HD", projection[0])
            self.register_buffer("bias_D", projection[1])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden_BH: Tensor = self.visual(images_BCHW)
        projected_BD = hidden_BH @ self.weight_HD + self.bias_D if self.projects else hidden_BH
        embedding_BD = F.normalize(projected_BD, dim=-1)
        hidden_BH = hidden_BH if self.projects else embedding_BD
        if self.kind == "both":
            return torch.cat([embedding_BD, hidden_BH], dim=1)
        return hidden_BH if self.kind == "hidden" else embedding_BD


class ImageClassifier(nn.Module):
    """Preprocessed images [B, 3, H, W] -> logits [B, C] and calibrated probabilities [B, C].

    Args:
        encoder: None for a classifier that reads images.
        temperature: divides the logits before the softmax of the probabilities.
    """

    def __init__(self, encoder: Encoder | None, classifier: Classifier, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.temperature = temperature
        self.training = False

    def train(self, mode: bool = True) -> ImageClassifier:
        """Stay in eval mode: leaving it, or entering it again, would drop the prompts that are embedded once."""
        del mode
        return self

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        inputs = images_BCHW if self.encoder is None else self.encoder(images_BCHW)
        logits_BC: Tensor = self.classifier(inputs)
        return logits_BC, (logits_BC / self.temperature).softmax(dim=-1)


def require_exportable(run: Run) -> None:
    """Refuse what has no single graph, before anything slow.

    Raises:
        ConfigError: the run combines several models.
    """
    if "+" in run.card.backbone.name and run.card.backbone.projection == "fused":
        raise _combines_models(run)


def image_classifier(run: Run, backbone: Backbone, *, model: str | None, temperature: float) -> ImageClassifier:
    """A run as one module, on the CPU, in eval mode.

    Args:
        backbone: the run's, in float32 on the CPU.
        model: where the backbone is now, if not where the run's card says.

    Raises:
        ConfigError: the run combines several models.
        RunError: the run's weights cannot be read.
    """
    if isinstance(backbone, FusedBackbone):
        raise _combines_models(run)
    classifier = run.classifier(model=model)
    encoder = None if classifier.reads == "image" else Encoder(backbone, classifier.reads)
    if isinstance(classifier, EnsembleClassifier) and classifier.reads == "image":
        classifier.encode_frozen = Encoder(backbone, "both")
    classifier.prepare()
    return ImageClassifier(encoder, classifier, temperature).requires_grad_(False)


def _combines_models(run: Run) -> ConfigError:
    return ConfigError(
        f"{run.folder} combines several models ({run.card.backbone.name}), which cannot be exported as one graph",
        remedy="Train a run on one of them: --model NAME.",
    )
