"""Made-up features to train on: clusters that a method must tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.config import DataConfig, TrainConfig, to_flat_json
from clip_har.methods import LabelledFeatures, Task


class Table:
    """Stands in for features.FeatureTable."""

    def __init__(self, embedding: Tensor, hidden: Tensor) -> None:
        self.embedding = embedding
        self.hidden = hidden

    def __len__(self) -> int:
        return len(self.embedding)


def settings(**changes: Any) -> dict[str, Any]:
    return {**to_flat_json(TrainConfig(data=DataConfig(data=Path("d")))), **changes}


def make_task(*, classes: int = 4, width: int = 12, hidden: int = 20, per_class: int = 30, seed: int = 0) -> Task:
    """Clustered features whose prompts are only roughly right."""
    generator = torch.Generator().manual_seed(seed)
    centres_CD = F.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    lift_DH = torch.randn(width, hidden, generator=generator)

    def split(count: int) -> LabelledFeatures:
        labels_N = torch.arange(classes).repeat_interleave(count)
        noise_ND = torch.randn(len(labels_N), width, generator=generator) * 0.2
        embedding_ND = F.normalize(centres_CD[labels_N] + noise_ND, dim=-1)
        return LabelledFeatures(table=Table(embedding_ND, embedding_ND @ lift_DH * 3), labels_N=labels_N)  # type: ignore[arg-type]

    wordings_CTD = torch.randn(classes, 3, width, generator=generator) * 0.5
    captions_CTD = F.normalize(centres_CD[:, None] + wordings_CTD, dim=-1)
    return Task(
        classes=tuple(f"class {i}" for i in range(classes)),
        captions_CTD=captions_CTD,
        prompts_CD=F.normalize(captions_CTD.mean(dim=1), dim=-1),
        logit_scale=20.0,
        train=split(per_class),
        val=split(10),
        seed=seed,
    )
