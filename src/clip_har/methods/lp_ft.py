"""LP-FT: a linear probe first, then full fine-tuning of the image encoder from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import AugmentSettings, Defaults, OptimizerSettings, Settings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.methods.base import Classifier, ClassifierContext, GradientMethod, Task
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.learning_rates import tower_groups
from clip_har.methods.linear_probe import probe_of_raw_features
from clip_har.methods.towers import BATCH_NORMS, default_lr
from clip_har.projection import projection_of, remove_projection

# Shapes: B images, C classes, H width of the features before the projection.


EPOCHS = 10
SMOOTHING = 0.1
"""Share of the labels that is spread, unless training is short: docs/methods/lp-ft.md has the measurement."""


class TowerWithHead(Classifier):
    """logits = W f(x) + b, f the image encoder up to its projection; the probe that training starts from is kept."""

    reads = "image"
    small = False

    def __init__(self, backbone: Backbone, width: int, classes: int) -> None:
        super().__init__()
        self.visual = cast(nn.Module, backbone.model.visual)
        projection = projection_of(self.visual)
        self.has_projection = projection is not None and len(projection[0]) == width
        if self.has_projection:  # not in runs from before the projection of such an encoder was known
            remove_projection(self.visual)
        self.head = nn.Linear(width, classes)
        self.probe_weight: Tensor
        self.probe_bias: Tensor
        self.register_buffer("probe_weight", torch.zeros(classes, width))
        self.register_buffer("probe_bias", torch.zeros(classes))
        self.visual.to(memory_format=torch.channels_last)

    def checkpoint_activations(self) -> bool:
        self.visual.set_grad_checkpointing(True)  # type: ignore[operator]
        return not hasattr(self.visual, "attnpool")

    def train(self, mode: bool = True) -> TowerWithHead:
        super().train(mode)
        for module in self.visual.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden_BH = self.visual(images_BCHW.contiguous(memory_format=torch.channels_last))
        if not self.has_projection:  # the probe was trained on unit-length embeddings
            hidden_BH = F.normalize(hidden_BH, dim=-1)
        return self.head(hidden_BH)  # type: ignore[no-any-return]


class LpFt(GradientMethod):
    """Kumar et al. 2022 (arXiv 2202.10054, section 3.4): a head that already fits does not distort the features.

    The probe is that of `linear-probe` on the features as they are, the best on validation; then tower and head are
    trained together by cross-entropy.
    """

    name = "lp-ft"
    answers_new_names = False
    refits = True
    refits_by_default = False
    source = "arXiv 2202.10054"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        epochs = given.optimizer.epochs or EPOCHS
        return Defaults(
            optimizer=OptimizerSettings(
                epochs=EPOCHS,
                batch_size=32,
                lr=default_lr(backbone, transformer=1e-5, convolutional=2e-4),
                warmup_epochs=0.5,
            ),
            augmentation=AugmentSettings(augment="light", label_smoothing=SMOOTHING if epochs >= EPOCHS else 0.0),
        )

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "image"

    def build(self, task: Task) -> TowerWithHead:
        probe = probe_of_raw_features(task, refit=self.settings.refit)
        classes, width = probe.weight_CH.shape
        classifier = TowerWithHead(task.load_backbone(), width, classes)
        with torch.no_grad():
            classifier.head.weight.copy_(probe.weight_CH)
            classifier.head.bias.copy_(probe.bias_C)
            classifier.probe_weight.copy_(probe.weight_CH)
            classifier.probe_bias.copy_(probe.bias_C)
        classifier.requires_grad_(True)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> TowerWithHead:
        classes, width = tensors["head.weight"].shape
        classifier = TowerWithHead(frame.load_backbone(), width, classes)
        _, unexpected = classifier.load_state_dict(dict(tensors), strict=False)
        if unexpected:
            raise KeyError(f"not tensors of this backbone: {unexpected}")
        return classifier

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        """What was trained, and the probe that it started from."""
        assert isinstance(classifier, TowerWithHead)
        probe = {"probe_weight": classifier.probe_weight, "probe_bias": classifier.probe_bias}
        return super().tensors(classifier) | {key: value.cpu().contiguous() for key, value in probe.items()}

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The line's other end is the probe on the frozen encoder (Wortsman et al. 2021, section 3), not zero-shot."""
        if "probe_weight" not in tensors:
            raise ConfigError(
                "This run of lp-ft was trained by an earlier version, which did not keep its probe",
                remedy="Train it again, or pass a run of full.",
            )
        classes, width = tensors["head.weight"].shape
        start = dict(TowerWithHead(frame.load_backbone(), width, classes).named_parameters())
        head = {"head.weight": tensors["probe_weight"], "head.bias": tensors["probe_bias"]}
        return {**{key: start[key].detach() for key in tensors if key in start}, **head} | {
            key: tensors[key] for key in ("probe_weight", "probe_bias")
        }

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        assert isinstance(classifier, TowerWithHead)
        return tower_groups(classifier, self.settings.optimizer)
