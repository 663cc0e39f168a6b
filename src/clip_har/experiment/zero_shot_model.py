"""A pretrained model with its cached features and the class prompts: all that answers without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_har.backbone import Backbone, load_backbone
from clip_har.dataset import ActionDataset, SplitName
from clip_har.features import FeatureStore
from clip_har.fusion import FusedBackbone
from clip_har.images import ImageFiles
from clip_har.methods import LabelledImages
from clip_har.methods.zero_shot import ZeroShotClassifier
from clip_har.prompts import filled
from clip_har.text_tower import mean_prompts


@dataclass(frozen=True, kw_only=True)
class ZeroShotModel:
    """A backbone, its feature store and the embeddings of the class prompts."""

    backbone: Backbone
    store: FeatureStore
    templates: tuple[str, ...]
    phrasing: Mapping[str, str]
    """What stands for each class in the templates, those held out included."""
    captions_CTD: Tensor
    """Unit-length embedding of each class's sentence under each template."""
    prompts_CD: Tensor
    """Unit-length mean of these."""

    def images(self, dataset: ActionDataset, split: SplitName) -> LabelledImages:
        """Features, labels and files of a split whose images are encoded, of any dataset with these classes."""
        records = dataset.split(split)
        return LabelledImages(
            table=self.store.table(records),
            labels_N=torch.from_numpy(dataset.targets(split)),
            files=ImageFiles(
                paths=tuple(record.path for record in records),
                preprocessing=self.backbone.info.preprocessing,
                workers=self.store.workers,
            ),
        )

    def classifier(self) -> ZeroShotClassifier:
        """The baseline."""
        return ZeroShotClassifier(self.prompts_CD, self.backbone.info.logit_scale)

    def load_backbone(self) -> Backbone:
        """A float32 copy of the backbone that its caller may change."""
        if isinstance(self.backbone, FusedBackbone):
            return self.backbone
        return load_backbone(self.backbone.info.name, device=str(self.backbone.device), precision="float32")


def zero_shot_model(
    backbone: Backbone,
    store: FeatureStore,
    classes: Sequence[str],
    templates: tuple[str, ...],
    phrasing: Mapping[str, str],
    prompts_CD: Tensor | None = None,
) -> ZeroShotModel:
    """The model of some classes.

    Args:
        prompts_CD: the class prompts' embeddings, where a run has kept them. Default: the means over the templates.
    """
    captions_CTD = embed_captions(store, [phrasing[name] for name in classes], templates)
    return ZeroShotModel(
        backbone=backbone,
        store=store,
        templates=templates,
        phrasing=phrasing,
        captions_CTD=captions_CTD,
        prompts_CD=mean_prompts(captions_CTD) if prompts_CD is None else prompts_CD,
    )


def embed_captions(store: FeatureStore, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit-length embedding of each class's sentence under each template: [C, T, D].

    Args:
        phrases: what stands for each class in the templates.
    """
    texts = [sentence for phrase in phrases for sentence in filled(phrase, templates)]
    return store.text(texts).reshape(len(phrases), len(templates), -1)
