"""Full fine-tuning of both towers, and the same with two tiers of learning rates.

In the manner of FLYP: the pretraining's own kind of loss between images and captions of their classes, but class-aware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from clip_har.backbone import Backbone
from clip_har.config import AugmentSettings, Defaults, OptimizerSettings, Settings, TrainConfig
from clip_har.methods.base import OF_GRADIENT_METHODS, Batch, Classifier, ClassifierContext, GradientMethod, Task
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.learning_rates import tower_groups
from clip_har.methods.sigmoid_loss import start_bias
from clip_har.methods.towers import Towers, default_lr, towers_loss


class FullFineTuning(GradientMethod):
    """Every parameter of both towers and the logit scale, by AdamW.

    Goyal et al. 2023, "Finetune like you pretrain" (arXiv 2212.00638, eq. 3): contrast images with captions made of
    their labels, and train both towers. Theirs counts captions of the same class as negatives; here the classes'
    prompts are contrasted by cross-entropy, or with --loss supcon the batch's own captions, class-aware.
    """

    name = "full"
    refits = True
    refits_by_default = False
    cheaper_rival = "linear-probe"
    source = "arXiv 2212.00638"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        return Defaults(
            optimizer=OptimizerSettings(
                epochs=10,
                batch_size=32,
                lr=default_lr(backbone, transformer=1e-5, convolutional=2e-4),
                weight_decay=0.1,
                warmup_epochs=0.5,
            ),
            augmentation=AugmentSettings(augment="light", text_augment=True),
        )

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "image"

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        return OF_GRADIENT_METHODS - {"views"} | {"loss"}

    def build(self, task: Task) -> Towers:
        classifier = self._empty(task)
        classifier.model.requires_grad_(True)
        if self.settings.lora.loss == "sigmoid":
            classifier.sigmoid_bias = start_bias(task)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Towers:
        classifier = self._empty(frame)
        missing, unexpected = classifier.load_state_dict(dict(tensors), strict=False)
        if unexpected or any(not key.startswith("model.") for key in missing):
            raise KeyError(f"not tensors of this backbone: {unexpected}")
        return classifier

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        assert isinstance(classifier, Towers)
        return tower_groups(classifier.model, self.settings.optimizer)

    def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
        assert isinstance(classifier, Towers)
        return towers_loss(classifier, batch, self.settings)

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        """All parameters, and batch norm's statistics where they were trained."""
        if not self.settings.optimizer.train_batchnorm:
            return super().tensors(classifier)
        return {key: value.detach().cpu().contiguous() for key, value in classifier.state_dict().items()}

    def model_state(self, classifier: Classifier) -> dict[str, Tensor]:
        assert isinstance(classifier, Towers)
        return {key: value.detach().cpu().contiguous() for key, value in classifier.model.state_dict().items()}

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pretrained = self._empty(frame).state_dict()
        return {key: pretrained[key] for key in tensors}

    def _empty(self, frame: ClassifierContext) -> Towers:
        backbone = frame.load_backbone()
        return Towers(frame, backbone, train_text=True, train_batchnorm=self.settings.optimizer.train_batchnorm)


class TwoTier(FullFineTuning):
    """Full fine-tuning with a learning rate of its own for each side: the text encoder learns ten times slower.

    The multipliers 1.0 / 0.1 / 1.0 for image encoder, text encoder and what joins them are the predecessor project's.
    """

    name = "two-tier"
    source = "the predecessor project's config files"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        full = super().defaults(given, backbone)
        return replace(full, optimizer=replace(full.optimizer, text_lr_multiplier=0.1))
