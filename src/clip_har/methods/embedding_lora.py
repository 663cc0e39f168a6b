"""LoRA on cached features: a low-rank residual on each tower's output embedding.

Nothing below changes, so the towers run once and training takes seconds. LoRA in the encoders (--placement attention or
all) is in tower_lora.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, OptimizerSettings, Settings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.methods.base import (
    MAX_LOGIT_SCALE,
    OF_GRADIENT_METHODS,
    Batch,
    Classifier,
    ClassifierContext,
    GradientMethod,
    Method,
    Task,
    weighted_cross_entropy,
)
from clip_har.methods.caption_loss import caption_loss
from clip_har.methods.centred_features import CentredFeatures, input_kind, split
from clip_har.methods.labelled_images import InputKind, LabelledImages
from clip_har.methods.sigmoid_loss import start_bias, weighted_sigmoid_loss

# Shapes: B images, C classes, D embedding width, H width before the projection, R rank.

INIT_STD = 0.01
PRE_PROJECTION_LR = 3e-3


HARMLESS_RANK = 64
"""A rank that costs next to nothing even if a very small model is narrower."""


class LowRankResidual(nn.Module):
    """x + (alpha / r) B A z (Hu et al. 2021, arXiv 2106.09685, section 4.1), for x of width D; z is x unless given.

    A ~ N(0, 0.01^2) and B = 0, so that it starts as the identity. Dropout acts on the update's input alone.
    """

    def __init__(self, width: int, rank: int, alpha: float, dropout: float, *, input_width: int | None = None) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.zeros(rank, input_width or width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank

    def initialise(self, generator: torch.Generator) -> None:
        """Draw A."""
        with torch.no_grad():
            self.lora_A.normal_(0.0, INIT_STD, generator=generator)

    def forward(self, x_BD: Tensor, z_BH: Tensor | None = None) -> Tensor:
        update_BD: Tensor = self.dropout(x_BD if z_BH is None else z_BH) @ self.lora_A.T @ self.lora_B.T
        return x_BD + self.scale * update_BD


class EmbeddingLora(Classifier):
    """Cosine similarity of adapted image embeddings and adapted prompts, times a learnable logit scale.

    4 R D + 1 trainable parameters: 32,769 at rank 16 on ViT-B/32 (D = 512).

    Args:
        renormalise: False takes their dot product instead and bounds no scale, as the predecessor project did. A class
            whose adapted prompt is longer then gets larger logits.
    """

    def __init__(
        self,
        prompts_CD: Tensor,
        logit_scale: float,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        renormalise: bool = True,
    ) -> None:
        super().__init__()
        self.renormalise = renormalise
        width = prompts_CD.shape[1]
        self.prompts_CD: Tensor
        self.register_buffer("prompts_CD", prompts_CD)
        self.image = LowRankResidual(width, rank, alpha, dropout)
        self.text = LowRankResidual(width, rank, alpha, dropout)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))
        self.sigmoid_bias = 0.0
        """What the sigmoid loss adds to the logits."""

    def adapt_images(self, inputs: Tensor) -> Tensor:
        """Adapted image embeddings [B, D], unit-length if they are renormalised."""
        return self._scaled(self.image(inputs))

    def adapt_text(self, embedding_BD: Tensor) -> Tensor:
        """Adapted text embeddings [B, D], unit-length if they are renormalised."""
        return self._scaled(self.text(embedding_BD))

    def image_embeddings(self, images: LabelledImages) -> Tensor:
        with torch.no_grad():
            adapted_ND = self.adapt_images(images.features(self.reads).to(self.device))
            return (adapted_ND if self.renormalise else F.normalize(adapted_ND, dim=-1)).cpu()

    def scale(self) -> Tensor:
        """The factor on the similarities, a scalar."""
        scale = self.logit_scale.exp()
        return scale.clamp(max=MAX_LOGIT_SCALE) if self.renormalise else scale

    def _scaled(self, adapted_BD: Tensor) -> Tensor:
        return F.normalize(adapted_BD, dim=-1) if self.renormalise else adapted_BD

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale() * self.adapt_images(inputs) @ self.adapt_text(self.prompts_CD).T


class PreProjectionLora(EmbeddingLora):
    """The same, with the image embedding's update taken from features before the projection: x + (alpha / r) B A z.

    The projection keeps of them what helped to match captions; what it dropped tells more actions apart.
    R (3 D + H) + 1 trainable parameters: 36,865 at rank 16 on ViT-B/32 (H = 768).
    """

    reads = "both"

    def __init__(self, prompts_CD: Tensor, logit_scale: float, width: int, **settings: Any) -> None:
        super().__init__(prompts_CD, logit_scale, **settings)
        rank, alpha, dropout = settings["rank"], settings["alpha"], settings["dropout"]
        self.image = LowRankResidual(prompts_CD.shape[1], rank, alpha, dropout, input_width=width)
        self.centred = CentredFeatures(width)

    def adapt_images(self, inputs: Tensor) -> Tensor:
        embedding_BD, hidden_BH = split(inputs, self.prompts_CD.shape[1])
        return self._scaled(self.image(embedding_BD, self.centred(hidden_BH)))


class Lora(GradientMethod):
    """The predecessor's recipe, by default on features before the projection and with cross-entropy over the classes.

    --features embedding and --loss supcon bring back theirs.

    The losses within a batch (losses.py) give each image a caption of its class, under a template drawn at random.
    """

    name = "lora"
    source = "arXiv 2106.09685"
    weights_file = "adapter_model.safetensors"
    cheaper_rival = "linear-probe"

    @classmethod
    def variant(cls, config: TrainConfig | Settings) -> type[Method]:
        """In the encoders it is another class, which imports peft: that takes seconds."""
        if config.lora.placement not in ("attention", "all"):
            return cls
        from clip_har.methods.tower_lora import TowerLora

        return TowerLora

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        own = ("placement", "features", "rank", "alpha", "dropout", "rslora", "renormalise", "loss")
        return OF_GRADIENT_METHODS - {"layer_decay", "train_batchnorm", "train_image_size"} | {*own}

    def shown_settings(self) -> dict[str, Any]:
        shown = {"placement": self.settings.lora.placement, "loss": self.settings.lora.loss}
        return shown | {"features": self.settings.features}

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        """--no-renormalise is the predecessor's recipe, on embeddings."""
        del backbone
        if given.features == "embedding" or (given.features is None and given.lora.renormalise is False):
            return Defaults()
        return Defaults(features="pre-projection", optimizer=OptimizerSettings(lr=PRE_PROJECTION_LR))

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        return input_kind(config, "embedding" if config.lora.renormalise is False else "pre-projection")

    def build(self, task: Task) -> EmbeddingLora:
        rank, width = self.settings.lora.rank, task.prompts_CD.shape[1]
        if rank > max(width, HARMLESS_RANK):
            raise ConfigError(
                f"--rank {rank} exceeds the width of the model's embeddings, {width}", remedy="Use a smaller --rank."
            )
        classifier = self._empty(task, task.train.table.hidden.shape[1])
        if isinstance(classifier, PreProjectionLora):
            classifier.centred.fit(task.train.table.hidden)
        if self.settings.lora.loss == "sigmoid":
            classifier.sigmoid_bias = start_bias(task)
        generator = torch.Generator().manual_seed(task.seed)
        classifier.image.initialise(generator)
        classifier.text.initialise(generator)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> EmbeddingLora:
        own = {_from_peft(key): tensor for key, tensor in tensors.items()}
        classifier = self._empty(frame, own["image.lora_A"].shape[1])
        classifier.load_state_dict({"prompts_CD": frame.prompts_CD, **own})
        return classifier

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        assert isinstance(classifier, EmbeddingLora)
        optimizer = self.settings.optimizer
        decay = optimizer.weight_decay
        image_lr = optimizer.lr * optimizer.vision_lr_multiplier
        text_lr = optimizer.lr * optimizer.text_lr_multiplier
        scale_lr = optimizer.lr * optimizer.projection_lr_multiplier
        return [
            {"params": list(classifier.image.parameters()), "lr": image_lr, "weight_decay": decay},
            {"params": list(classifier.text.parameters()), "lr": text_lr, "weight_decay": decay},
            {"params": [classifier.logit_scale], "lr": scale_lr, "weight_decay": 0.0},
        ]

    def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
        assert isinstance(classifier, EmbeddingLora)
        image_BD, scale = classifier.adapt_images(batch.inputs), classifier.scale()
        captions_CTD = task.captions_CTD.to(image_BD.device)
        if self.settings.lora.loss in ("cross-entropy", "sigmoid"):
            class_CD = classifier.prompts_CD
            if self.settings.augmentation.text_augment:
                drawn_C = torch.randint(captions_CTD.shape[1], (len(captions_CTD),))
                class_CD = captions_CTD[torch.arange(len(captions_CTD)), drawn_C]
            logits_BC = scale * image_BD @ classifier.adapt_text(class_CD).T
            if self.settings.lora.loss == "sigmoid":
                return weighted_sigmoid_loss(logits_BC, classifier.sigmoid_bias, batch)
            return weighted_cross_entropy(logits_BC, batch)
        templates_B = torch.randint(captions_CTD.shape[1], batch.labels_B.shape)
        caption_BD = classifier.adapt_text(captions_CTD[batch.labels_B.cpu(), templates_B])
        return caption_loss(self.settings.lora.loss, image_BD, caption_BD, scale, batch)

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same A, and B = 0: on the way there the update shrinks evenly."""
        start = {key: torch.zeros_like(tensor) if "lora_B" in key else tensor for key, tensor in tensors.items()}
        return start | {_to_peft("logit_scale"): torch.tensor(math.log(frame.logit_scale))}

    def state_key(self, key: str) -> str:
        return _from_peft(key)

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        assert isinstance(classifier, EmbeddingLora)
        own = super().tensors(classifier)
        if isinstance(classifier, PreProjectionLora):
            own["centred.mean_H"] = classifier.centred.mean_H.cpu().contiguous()
        return {_to_peft(key): tensor for key, tensor in own.items()}

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        """PEFT's adapter_config.json: the adapter fits a module with layers `image` and `text`.

        Both are identities of width D; `image` on features before the projection is a zero layer from H to D.
        """
        lora = self.settings.lora
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": backbone_name,
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "use_rslora": lora.rslora,
            "target_modules": ["image", "text"],
            "bias": "none",
            "inference_mode": True,
        }
        return {"adapter_config.json": config}

    def _empty(self, frame: ClassifierContext, width: int) -> EmbeddingLora:
        lora, alpha = self.settings.lora, self.settings.lora.alpha
        if lora.rslora:  # alpha / sqrt(r), in terms of the scale alpha / r that the residual applies
            alpha = alpha * math.sqrt(lora.rank)
        own: dict[str, Any] = {
            "rank": lora.rank,
            "alpha": alpha,
            "dropout": lora.dropout,
            "renormalise": lora.renormalise,
        }
        if self.settings.features == "pre-projection":
            return PreProjectionLora(frame.prompts_CD, frame.logit_scale, width, **own)
        return EmbeddingLora(frame.prompts_CD, frame.logit_scale, **own)


# PEFT's names: base_model.model.image.lora_A.weight; ours: image.lora_A.
_PEFT_PREFIX = "base_model.model."


def _to_peft(key: str) -> str:
    return _PEFT_PREFIX + (f"{key}.weight" if ".lora_" in key else key)


def _from_peft(key: str) -> str:
    return key.removeprefix(_PEFT_PREFIX).removesuffix(".weight")
