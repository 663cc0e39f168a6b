"""What a training says: flags without effect, too few validation images, and an interrupted run that is ended early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tasks
from clip_har import checkpoint, commands
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    LoraConfig,
    OptimizerConfig,
    TrainConfig,
)
from clip_har.errors import RunError
from clip_har.methods import method_class
from test_workflows import Heard


@pytest.mark.parametrize(
    ("method", "given", "idle"),
    [
        ("linear-probe", {"lr": 0.1, "rank": 4}, ("rank", "lr")),
        ("zero-shot", {"epochs": 3}, ("epochs",)),
        ("lora", {"lr": 0.1, "rank": 4, "hard_pairs": 0.2}, ()),
        ("lora", {"layers": "last:2", "dora": True}, ("dora", "layers")),
        ("lora", {"layers": "last:2", "placement": "attention"}, ()),
        ("lora", {"start_from": "runs/full"}, ("start_from",)),
        ("wise-ft", {"start_from": "runs/full", "epochs": 2}, ("epochs",)),
        ("full", {"loss": "supcon", "rank": 3}, ("rank",)),
        ("coop", {"placement": "embedding"}, ("placement",)),
        (
            "ridge",
            {"budget": "hours", "members": ("a", "b"), "features": "embedding"},
            ("features", "members", "budget"),
        ),
        ("ensemble", {"lr": 0.1, "rank": 4, "members": ("a", "b"), "budget": "hours"}, ("budget",)),
        ("auto", {"lr": 0.1, "members": ("a", "b"), "budget": "hours", "start_from": "run"}, ("start_from", "members")),
        ("lora", {"refit": True}, ("refit",)),
        ("soup", {"refit": True}, ("refit",)),
        ("ensemble", {"refit": True}, ()),
        ("ridge", {"refit": True}, ()),
        ("lp-ft", {"refit": True}, ()),
        ("lora", {"refit": True, "placement": "attention"}, ()),
    ],
)
def test_settings_without_effect_are_known(method: str, given: dict[str, Any], idle: tuple[str, ...]) -> None:
    config = tasks.given(method=method, **given)
    assert method_class(method, config).without_effect(config) == idle


def test_a_training_says_which_flags_have_no_effect(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    heard = Heard()
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=backbone,
        method="linear-probe",
        optimizer=OptimizerConfig(lr=0.1),
        lora=LoraConfig(rank=4),
        out=tmp_path / "run",
    )
    commands.train(config, progress=heard)
    assert [text for text in heard.warnings if text.startswith("No effect")] == [
        "No effect on linear-probe: --rank, --lr"
    ]


def test_too_few_validation_images_are_warned_about_once(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    data, backbone = DataConfig(data=photos), BackboneConfig(model=tiny_model, workers=0, precision="float32")
    trained, evaluated, compared = Heard(), Heard(), Heard()
    out = tmp_path / "runs" / "lora"
    commands.train(TrainConfig(data=data, backbone=backbone, method="lora", out=out), progress=trained)
    commands.evaluate(EvaluateConfig(data=data, backbone=backbone, checkpoint=out), progress=evaluated)
    methods = ("zero-shot", "lora")
    config = CompareConfig(data=data, backbone=backbone, methods=methods, seeds=(0, 1), out=tmp_path)
    commands.compare(config, progress=compared)
    for heard in (trained, evaluated, compared):
        assert [text for text in heard.warnings if "too few" in text] == [
            "6 validation images are too few for predict --coverage 0.9 (requires 9), 0.95 (requires 19), 0.99 "
            "(requires 99) and --accuracy 0.8 (requires 11), 0.9 (requires 22), 0.95 (requires 45), 0.99 (requires 230)"
        ]


@pytest.mark.parametrize(("asked", "epochs"), [(1, 3), (3, 3), (4, 4)])
def test_an_interrupted_run_can_be_ended_early(
    asked: int, epochs: int, photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer --epochs it ends at once, or at that epoch, as the whole training was until there."""
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    whole = TrainConfig(
        data=DataConfig(data=photos),
        backbone=backbone,
        optimizer=OptimizerConfig(epochs=6, batch_size=8),
        out=tmp_path / "whole",
    )
    expected = commands.train(whole).history()
    begun = replace(whole, out=tmp_path / "begun")
    with monkeypatch.context() as patch:
        save = checkpoint.save_log

        def interrupted(folder: Path, history: list[dict[str, Any]]) -> None:
            save(folder, history)
            if len(history) == 3:
                raise KeyboardInterrupt

        patch.setattr(checkpoint, "save_log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            commands.train(begun)
    heard = Heard()
    with pytest.raises(RunError, match="other settings: epochs 6 -> 9"):
        commands.train(replace(begun, resume=True, optimizer=replace(begun.optimizer, epochs=9)))
    run = commands.train(replace(begun, resume=True, optimizer=replace(begun.optimizer, epochs=asked)), progress=heard)
    history = run.history()
    assert [entry["epoch"] for entry in history] == list(range(1, epochs + 1))
    for entry, other in zip(history, expected, strict=False):
        assert (entry["lr"], entry["train_loss"], entry["val_loss"]) == (
            other["lr"],
            other["train_loss"],
            other["val_loss"],
        )
    best = next(entry for entry in history if entry["best"])
    assert run.card.validation["epoch"] == best["epoch"] and run.settings.optimizer.epochs == 6
    assert any(f"Ended after epoch {epochs} of 6, as asked" in text for text in heard.warnings)


def test_the_epochs_of_a_method_s_own_default_are_no_early_end(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begun without --epochs, resumed with the number that it has anyway, or with more."""
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    config = TrainConfig(data=DataConfig(data=photos), backbone=backbone, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_log", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            commands.train(config)
    with pytest.raises(RunError, match="was started with 15 epochs, not 16"):
        commands.train(replace(config, resume=True, optimizer=OptimizerConfig(epochs=16)))
    heard = Heard()
    run = commands.train(replace(config, resume=True, optimizer=OptimizerConfig(epochs=15)), progress=heard)
    assert len(run.history()) == 15 and not any("Ended" in text for text in heard.warnings)


def test_other_files_in_the_run_folder_are_named_and_kept(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / ".hidden").write_text("")
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    config = TrainConfig(data=DataConfig(data=photos), backbone=backbone, method="zero-shot", out=tmp_path)
    heard = Heard()
    commands.train(config, progress=heard)
    said = f"{tmp_path} contains other files, such as thesis.txt; the run is written next to them"
    assert said in heard.warnings and (tmp_path / "thesis.txt").read_text() == "mine"
    heard = Heard()
    commands.train(replace(config, out=tmp_path / "new"), progress=heard)
    commands.train(replace(config, out=tmp_path / "new", resume=True), progress=heard)
    assert not any("contains other files" in text for text in heard.warnings)
