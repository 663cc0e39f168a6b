"""The log for TensorBoard and Weights & Biases, both without a network."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, EngineConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError
from clip_har.tracking import TensorBoard, require, trackers
from tasks import settings


def test_tensorboard_reads_the_steps_and_the_epochs(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=2, batch_size=10),
        engine=EngineConfig(tensorboard=True),
        out=tmp_path / "run",
    )
    run = commands.train(config)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "images_per_second", "val_accuracy", "val_loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    logged = [event.value for event in events.Scalars("val_loss")]
    assert logged == pytest.approx([entry["val_loss"] for entry in run.history()])
    with pytest.raises(Exception, match="already contains a run"):
        commands.train(replace(config, engine=EngineConfig()))


def test_what_was_logged_after_the_saved_state_is_hidden(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, from_step=0)
    for step in range(1, 6):
        first.log({"loss": float(step)}, step)
    first.close()
    again = TensorBoard(tmp_path, from_step=2)
    again.log({"loss": 30.0}, 3)
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_weights_and_biases_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tracker,) = trackers(tmp_path, settings(wandb=True), from_step=0)
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        require(EngineConfig(wandb=True))
