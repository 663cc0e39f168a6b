"""Made-up features and images to train on: clusters that a method must tell apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.backbone import Backbone, load_backbone
from clip_har.config import DataConfig, Settings, TrainConfig
from clip_har.config.flat import from_flat_json
from clip_har.images import ImageFiles
from clip_har.methods import LabelledImages, Task
from samples import CLASSES

SOURCE_SETTINGS = {"source_method", "source_settings", "source_trainable_params"}
KNOWN_SETTINGS = Settings(data=DataConfig(data=Path("d"))).to_json().keys() | SOURCE_SETTINGS


class Table:
    """Stands in for features.FeatureTable."""

    def __init__(self, embedding: Tensor, hidden: Tensor, hashes: Sequence[str] | None = None) -> None:
        self.embedding = embedding
        self.hidden = hidden
        contents = (hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in embedding)
        self.hashes = tuple(hashes if hashes is not None else contents)

    def __len__(self) -> int:
        return len(self.embedding)

    def subset(self, indices: Sequence[int]) -> Table:
        rows = list(indices)
        return Table(self.embedding[rows], self.hidden[rows], [self.hashes[row] for row in rows])

    def joined(self, other: Table) -> Table:
        return Table(
            torch.cat([self.embedding, other.embedding]),
            torch.cat([self.hidden, other.hidden]),
            self.hashes + other.hashes,
        )


def settings(**changes: Any) -> Settings:
    """Settings without gaps: the defaults, but for those named as flags name them."""
    assert changes.keys() <= KNOWN_SETTINGS, changes
    flat = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    return Settings.from_json({"data": "d", **flat})


def given(**changes: Any) -> TrainConfig:
    """A config that gives what is named, as flags name it, and nothing else."""
    flat = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    return from_flat_json(TrainConfig, {"data": "d", **flat})


def no_backbone() -> Backbone:
    raise AssertionError("this task has no backbone")


def make_task(*, classes: int = 4, width: int = 12, hidden: int = 20, per_class: int = 30, seed: int = 0) -> Task:
    """Clustered features whose prompts are only roughly right."""
    generator = torch.Generator().manual_seed(seed)
    centres_CD = F.normalize(torch.randn(classes, width, generator=generator), dim=-1)
    lift_DH = torch.randn(width, hidden, generator=generator)

    def split(count: int) -> LabelledImages:
        labels_N = torch.arange(classes).repeat_interleave(count)
        noise_ND = torch.randn(len(labels_N), width, generator=generator) * 0.2
        embedding_ND = F.normalize(centres_CD[labels_N] + noise_ND, dim=-1)
        return LabelledImages(table=Table(embedding_ND, embedding_ND @ lift_DH * 3), labels_N=labels_N)  # type: ignore[arg-type]

    wordings_CTD = torch.randn(classes, 3, width, generator=generator) * 0.5
    captions_CTD = F.normalize(centres_CD[:, None] + wordings_CTD, dim=-1)
    return Task(
        classes=tuple(f"class {i}" for i in range(classes)),
        templates=("a {}", "the {}", "one {}"),
        captions_CTD=captions_CTD,
        prompts_CD=F.normalize(captions_CTD.mean(dim=1), dim=-1),
        logit_scale=20.0,
        load_backbone=no_backbone,
        train=split(per_class),
        val=split(10),
        seed=seed,
    )


def make_image_task(model: str, photos: Path, *, per_class: int = 8, seed: int = 0) -> Task:
    """A task on image files: the photographs of `samples.write_dataset`, for methods inside the towers."""
    backbone = load_backbone(model, device="cpu", precision="float32")
    templates = ("a photo of a person {}", "someone {}")
    captions = [template.replace("{}", name) for name in CLASSES for template in templates]
    captions_CTD = backbone.encode_text(captions).reshape(len(CLASSES), len(templates), -1)

    def split(chosen: slice) -> LabelledImages:
        paths = [
            (path, k) for k, name in enumerate(CLASSES) for path in sorted((photos / "train" / name).iterdir())[chosen]
        ]
        files = ImageFiles(paths=tuple(path for path, _ in paths), preprocessing=backbone.info.preprocessing)
        parts = [backbone.encode_images(images) for _, images in files.evaluation_batches(range(len(paths)))]
        embedding_ND = torch.cat([part.embedding_BD for part in parts])
        hidden = [part.hidden_BH for part in parts if part.hidden_BH is not None]
        table = Table(embedding_ND, torch.cat(hidden) if hidden else embedding_ND)
        return LabelledImages(table=table, labels_N=torch.tensor([label for _, label in paths]), files=files)  # type: ignore[arg-type]

    return Task(
        classes=CLASSES,
        templates=templates,
        captions_CTD=captions_CTD,
        prompts_CD=F.normalize(captions_CTD.mean(dim=1), dim=-1),
        logit_scale=backbone.info.logit_scale,
        load_backbone=lambda: load_backbone(model, device="cpu", precision="float32"),
        train=split(slice(0, per_class)),
        val=split(slice(per_class, per_class + 4)),
        seed=seed,
    )
