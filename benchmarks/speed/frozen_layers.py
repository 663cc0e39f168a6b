"""Epochs of LoRA in the last 4 of 12 layers with fixed views: frozen layers computed once, or in every epoch."""

from __future__ import annotations

import json
from pathlib import Path

from clip_har.commands import train
from clip_har.config import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EngineConfig,
    LoraConfig,
    OptimizerConfig,
    TrainConfig,
)
from speed.harness import Row, row
from speed.material import CLASSES, write_model, write_photos

EPOCHS = 3


def rows(folder: Path, *, images: int = 10 * CLASSES, pairs: int = 2) -> list[Row]:
    """Seconds of an epoch with its validation; the cache is filled before the first."""
    photos = folder / "split"
    write_photos(photos, images, splits=True)
    model = write_model("ViT-B-32", folder / "model")
    ours: list[float] = []
    plain: list[float] = []
    losses = []
    for number in range(pairs):
        for kept, cached in ((ours, True), (plain, False)):
            out = folder / f"layers-{number}-{cached}"
            entries = epochs(photos, model, out, cached=cached, cache=folder / "cache")
            kept.append(entries[-1]["seconds"])
            losses.append([entry["train_loss"] for entry in entries])
    largest = max(abs(a - b) for a, b in zip(losses[0], losses[1], strict=True))
    return [
        row(
            "epoch of LoRA in the last 4 of 12 layers",
            "s",
            ours,
            plain,
            "the same with --no-layer-cache",
            target=2.5,
            note=f"ViT-B/32, {images * 3 // 5} training images; losses differ by at most {largest:.1e}",
        )
    ]


def epochs(photos: Path, model: str, out: Path, *, cached: bool, cache: Path) -> list[dict[str, float]]:
    """The log's entries of a training."""
    train(
        TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=model, precision="float32", cache=cache),
            method="lora",
            lora=LoraConfig(placement="attention", layers="last:4", towers=("image",)),
            optimizer=OptimizerConfig(epochs=EPOCHS),
            augmentation=AugmentConfig(augment="none"),
            engine=EngineConfig(layer_cache=cached),
            out=out,
        )
    )
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
