"""Frozen layers computed once: the same training as without the cache, only where nothing below changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clip_har.backbone import load_backbone
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
from clip_har.experiment import frozen_layers
from clip_har.integrity import read_sealed_json
from clip_har.layer_cache import LayerCache
from clip_har.methods import split_tower
from clip_har.methods.frozen_layers import SplitTower
from noted import Notes
from test_tower_lora import write

FIXED = AugmentConfig(augment="none")


@pytest.fixture(scope="module", params=["vit", "timm vit"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write("vit", tmp_path_factory.mktemp("vit"))


def config(photos: Path, model: str, out: Path, **changes: object) -> TrainConfig:
    plain = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        method="lora",
        lora=LoraConfig(placement="attention", layers="last:1", rank=2),
        optimizer=OptimizerConfig(epochs=3, batch_size=8, lr=1e-3),
        augmentation=FIXED,
        out=out,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def losses(run: Path) -> list[float]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry[key] for entry in entries for key in ("train_loss", "val_loss")]


def cached(cache: Path) -> list[Path]:
    return sorted((cache / "layers").rglob("*.npy"))


def test_the_losses_are_those_without_the_cache(tmp_path: Path, photos: Path, model: str, own_cache: Path) -> None:
    without = EngineConfig(layer_cache=False)
    train(config(photos, model, tmp_path / "plain", engine=without))
    assert not cached(own_cache)
    train(config(photos, model, tmp_path / "cached"))
    assert cached(own_cache)
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)


def test_images_are_decoded_once_and_reused_by_the_next_run(
    tmp_path: Path, photos: Path, vit: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = count_images(monkeypatch)
    train(config(photos, vit, tmp_path / "first"))
    images = sum(seen)
    assert 0 < images == len({name for _, name in hashes_of(own_cache)})
    train(config(photos, vit, tmp_path / "second", seed=1, lora=LoraConfig(placement="all", layers="last:1", rank=1)))
    assert sum(seen) == images


def count_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that go through frozen layers, but for the two that the split is tried with."""
    seen: list[int] = []
    original: Callable[[SplitTower, torch.Tensor], torch.Tensor] = SplitTower.below

    def counted(self: SplitTower, images_BCHW: torch.Tensor) -> torch.Tensor:
        seen.append(len(images_BCHW))
        return original(self, images_BCHW)

    shape = frozen_layers._shape

    def tried(*arguments: object) -> object:
        found = shape(*arguments)  # type: ignore[arg-type]
        seen.clear() if len(seen) == 1 else seen.pop()
        return found

    monkeypatch.setattr(SplitTower, "below", counted)
    monkeypatch.setattr(frozen_layers, "_shape", tried)
    return seen


def hashes_of(cache: Path) -> list[tuple[Path, str]]:
    return [
        (path, sha256) for path in (cache / "layers").rglob("*.json") for sha256 in read_sealed_json(path)["sha256"]
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": AugmentConfig(augment="light")},
        {"augmentation": AugmentConfig(augment="none", mixup=0.2)},
        {"lora": LoraConfig(placement="attention", layers="all", rank=2)},
        {"optimizer": OptimizerConfig(epochs=1, batch_size=8)},
        {"method": "full", "lora": LoraConfig()},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_views_that_change_and_layers_that_train_are_not_cached(
    tmp_path: Path, photos: Path, vit: str, own_cache: Path, changes: dict[str, object]
) -> None:
    optimizer = OptimizerConfig(epochs=2, batch_size=8)
    train(config(photos, vit, tmp_path / "run", **{"optimizer": optimizer, **changes}))
    assert not cached(own_cache)


def test_a_damaged_cache_is_computed_again(tmp_path: Path, photos: Path, vit: str, own_cache: Path) -> None:
    train(config(photos, vit, tmp_path / "first"))
    for path in cached(own_cache):
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
    progress = Notes()
    train(config(photos, vit, tmp_path / "second"), progress=progress)
    assert any("damaged" in said for said in progress.said)
    assert losses(tmp_path / "second") == losses(tmp_path / "first")


def test_a_cache_that_does_not_fit_is_not_begun(
    tmp_path: Path, photos: Path, vit: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LayerCache, "free_bytes", lambda self: 1000)
    progress = Notes()
    train(config(photos, vit, tmp_path / "run"), progress=progress)
    assert any("No cache of frozen layers" in said and "0.00 GB are free" in said for said in progress.said)
    assert not cached(own_cache)


def test_the_split_is_below_the_lowest_trained_layer(vit: str) -> None:
    model = load_backbone(vit, device="cpu", precision="float32").model.requires_grad_(False)
    assert split_tower(model) is None
    visual = model.get_submodule("visual")
    visual.get_parameter("proj").requires_grad_(True)
    layers = len(visual.get_submodule("transformer.resblocks"))  # type: ignore[arg-type]
    split = split_tower(model)
    assert split is not None and split.depth == split.layers == layers
    visual.get_submodule("transformer.resblocks.1").requires_grad_(True)
    split = split_tower(model)
    assert split is not None and split.depth == 1
    visual.get_submodule("conv1").requires_grad_(True)
    assert split_tower(model) is None
