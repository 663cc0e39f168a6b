"""A classifier that holds the backbone's towers, for the methods that train inside them.

Which parameters are trained, and how, is for each method to say.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Settings
from clip_har.losses import cosine_logits
from clip_har.methods.base import (
    MAX_LOGIT_SCALE,
    Batch,
    Classifier,
    ClassifierContext,
    weighted_cross_entropy,
)
from clip_har.methods.caption_loss import caption_loss
from clip_har.methods.frozen_layers import SplitTower
from clip_har.methods.labelled_images import LabelledImages, over_files
from clip_har.methods.sigmoid_loss import weighted_sigmoid_loss
from clip_har.prompts import filled
from clip_har.text_tower import encode_tokens, mean_prompts, trimmed_tokens

# Shapes: B images, C classes, T prompt templates, L tokens, D embedding width.

SMALL_VIEWS = 160 / 224
"""Side of small training views, as a share of the model's own."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Towers(Classifier):
    """softmax(scale * cos(image encoder(x), prompts)), with either encoder trained or frozen.

    The pretrained towers' own dropout is off, and batch norm keeps its pretrained statistics unless asked otherwise, so
    that at the start training and evaluation see the zero-shot model.

    Args:
        frame: classes, templates and the frozen prompts.
        backbone: what `frame.load_backbone` gave; this classifier owns and changes it.
        train_text: whether the text encoder is trained, so that prompts must be embedded again.
        train_batchnorm: whether batch norm layers update their statistics.
    """

    reads = "image"
    small = False

    def __init__(
        self, frame: ClassifierContext, backbone: Backbone, *, train_text: bool, train_batchnorm: bool = False
    ) -> None:
        super().__init__()
        self.model = backbone.model
        self.prompts_CD: Tensor
        self.tokens_CTL: Tensor
        self.register_buffer("prompts_CD", frame.prompts_CD.clone(), persistent=False)
        self.register_buffer("tokens_CTL", _tokens(frame, backbone), persistent=False)
        self.train_text = train_text
        self.train_batchnorm = self.has_changing_buffers = train_batchnorm
        if getattr(self.model, "logit_scale", None) is None:
            self.model.logit_scale = nn.Parameter(torch.tensor(frame.logit_scale).log(), requires_grad=False)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        visual = cast(nn.Module, self.model.visual)
        visual.to(memory_format=torch.channels_last)
        self.sigmoid_bias = 0.0
        """What the sigmoid loss adds to the logits of a model without a bias of its own."""
        self._evaluated_CD: Tensor | None = None
        self.split: SplitTower | None = None
        """Where tokens of the frozen layers may take the place of images."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit-length embeddings [B, D] of images [B, 3, H, W], or of the tokens [B, L, W] that `split` is about."""
        dtype = next(self.model.visual.parameters()).dtype  # type: ignore[union-attr]
        if images.ndim == 3:
            assert self.split is not None
            return F.normalize(self.split.rest(images.to(dtype)).float(), dim=-1)
        images = images.to(dtype).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(images).float(), dim=-1)  # type: ignore[operator]

    def checkpoint_activations(self) -> bool:
        self.model.set_grad_checkpointing(True)  # type: ignore[operator]
        return not hasattr(self.model.visual, "attnpool")  # open_clip does nothing for a ModifiedResNet

    @torch.no_grad()
    def image_embeddings(self, images: LabelledImages) -> Tensor:
        was_training = self.training
        self.eval()
        embedding_ND = over_files(images, lambda images_BCHW: self.encode_images(images_BCHW.to(self.device)).cpu())
        self.train(was_training)
        return embedding_ND

    def encode_captions(self, labels: Tensor, templates: Tensor) -> Tensor:
        """Unit-length embeddings [M, D] of some classes' sentences under some templates; both int64 [M]."""
        return F.normalize(encode_tokens(self.model, self.tokens_CTL[labels, templates]).float(), dim=-1)

    def class_embeddings(self) -> Tensor:
        """Unit-length prompt embedding per class [C, D]: the mean over the templates, renormalised."""
        if not self.train_text:
            return self.prompts_CD
        classes, templates = self.tokens_CTL.shape[:2]
        labels = torch.arange(classes, device=self.device).repeat_interleave(templates)
        captions = self.encode_captions(labels, torch.arange(templates, device=self.device).repeat(classes))
        return mean_prompts(captions.reshape(classes, templates, -1))

    def drawn_class_embeddings(self) -> Tensor:
        """The same under one template per class, drawn from torch's global generator: text augmentation."""
        classes, templates = self.tokens_CTL.shape[:2]
        drawn = torch.randint(templates, (classes,)).to(self.device)
        return self.encode_captions(torch.arange(classes, device=self.device), drawn)

    def scale(self) -> Tensor:
        """The factor on cosine similarities, a scalar."""
        return cast(Tensor, self.model.logit_scale).exp().clamp(max=MAX_LOGIT_SCALE)

    def prepare(self) -> None:
        """Embed the prompts once for all the batches of an evaluation."""
        self._evaluated_CD = self.class_embeddings()

    def train(self, mode: bool = True) -> Towers:
        super().train(mode)
        self._evaluated_CD = None
        if not self.train_batchnorm:
            for module in self.model.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.logits(self.encode_images(images_BCHW))

    def logits(self, image_BD: Tensor) -> Tensor:
        """The logits [B, C] of images that `encode_images` has embedded."""
        class_CD = self._evaluated_CD if self._evaluated_CD is not None else self.class_embeddings()
        return cosine_logits(image_BD, class_CD, self.scale())

    def of_frame(self, frame: ClassifierContext, backbone: Backbone) -> Towers:
        """A classifier of other classes by the same towers, which both then own.

        Args:
            backbone: of the same architecture; for its tokenizer.
        """
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other.prompts_CD = frame.prompts_CD.to(self.device)
        other.tokens_CTL = _tokens(frame, backbone).to(self.device)
        other._evaluated_CD = None
        return other


def towers_loss(classifier: Towers, batch: Batch, settings: Settings) -> Tensor:
    """The loss that `settings` name: over the class prompts, or between the batch's images and a caption of each.

    A caption is its class's sentence under a template drawn at random; each different one is encoded once.
    """
    image_BD = classifier.encode_images(batch.inputs)
    if settings.lora.loss in ("cross-entropy", "sigmoid"):
        drawn = settings.augmentation.text_augment
        class_CD = classifier.drawn_class_embeddings() if drawn else classifier.class_embeddings()
        logits_BC = cosine_logits(image_BD, class_CD, classifier.scale())
        if settings.lora.loss == "sigmoid":
            own = getattr(classifier.model, "logit_bias", None)
            return weighted_sigmoid_loss(logits_BC, classifier.sigmoid_bias if own is None else own, batch)
        return weighted_cross_entropy(logits_BC, batch)
    templates_B = torch.randint(classifier.tokens_CTL.shape[1], batch.labels_B.shape).to(classifier.device)
    pairs_M2, which_B = torch.stack([batch.labels_B, templates_B], dim=1).unique(dim=0, return_inverse=True)
    caption_BD = classifier.encode_captions(pairs_M2[:, 0], pairs_M2[:, 1])[which_B]
    return caption_loss(settings.lora.loss, image_BD, caption_BD, classifier.scale(), batch)


def is_convolutional(backbone: Backbone) -> bool:
    """Whether the image encoder works by convolutions, so that it takes images of any size."""
    visual = cast(nn.Module, backbone.model.visual)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in visual.modules())
    return convolutions > 2 and not hasattr(visual, "attnpool")


def small_views(backbone: Backbone) -> int | None:
    """Side of training views that take about half the time, rounded to 32 pixels; None if only one size will do."""
    if not is_convolutional(backbone):
        return None
    return round(SMALL_VIEWS * backbone.info.preprocessing.image_size[0] / 32) * 32


def default_lr(backbone: Backbone, *, transformer: float, convolutional: float) -> float:
    """A learning rate by the kind of tower: batch-normalised convolutions bear larger steps than a transformer.

    The transformer's holds at ViT-B's width of 768 and falls with it (Yang et al. 2022, arXiv 2203.03466, table 3).
    """
    visual = cast(nn.Module, backbone.model.visual)
    if is_convolutional(backbone) or hasattr(visual, "attnpool"):
        return convolutional
    width = next((module.normalized_shape[0] for module in visual.modules() if isinstance(module, nn.LayerNorm)), 768)
    return transformer * 768 / width


def _tokens(frame: ClassifierContext, backbone: Backbone) -> Tensor:
    """Each class's sentence under each template as tokens [C, T, L], without needless padding."""
    texts = [sentence for phrase in frame.wordings for sentence in filled(phrase, frame.templates)]
    tokens_ML = trimmed_tokens(backbone.model, backbone.tokenizer(texts))
    return tokens_ML.reshape(len(frame.classes), len(frame.templates), -1).to(backbone.device)
