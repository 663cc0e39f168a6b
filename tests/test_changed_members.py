"""Members named twice by different paths, and members that change between an interruption and its --resume."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_har import checkpoint, commands
from clip_har.config import BackboneConfig, DataConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError
from clip_har.experiment import training
from clip_har.out_of_fold import save_out_of_fold
from clip_har.progress import Silent
from clip_har.run_card import write_card


class Warned(Silent):
    """Remembers what was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def given(photos: Path, tiny_model: str, tmp_path: Path) -> TrainConfig:
    """An ensemble of two runs, which are trained."""
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, precision="float32", device="cpu", workers=0),
        optimizer=OptimizerConfig(epochs=2, batch_size=8),
        method="ensemble",
        members=(str(tmp_path / "gda"), str(tmp_path / "ridge")),
        out=tmp_path / "run",
    )
    for method in ("gda", "ridge"):
        commands.train(replace(config, method=method, members=None, out=tmp_path / method))
    return config


@pytest.mark.parametrize("again", ["gda/", "other/../gda", "gda/card.json", "link"])
def test_a_run_is_the_same_member_by_every_path(again: str, given: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gda")
    with pytest.raises(ConfigError, match="two or more different members"):
        commands.train(replace(given, members=(str(tmp_path / "gda"), f"{tmp_path}/{again}")))


def test_other_members_are_not_mixed_with_what_was_solved_before(
    given: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(training, "fit_calibration", killed)
        commands.train(given)
    ridge = tmp_path / "ridge"
    shutil.rmtree(ridge)
    commands.train(replace(given, method="ridge", members=None, out=ridge, seed=1, refit=False))
    warned = Warned()
    run = commands.train(replace(given, resume=True), progress=warned)
    assert any("the runs it builds on are not those" in text for text in warned.warnings)
    alone = commands.train(replace(given, out=tmp_path / "alone"))
    assert_equal(run, alone)


def test_the_same_members_are_continued_with(given: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(training, "fit_calibration", killed)
        commands.train(given)
    warned = Warned()
    commands.train(replace(given, resume=True), progress=warned)
    assert not any("the runs it builds on" in text for text in warned.warnings)


def test_members_that_no_image_can_judge_together(given: TrainConfig, tmp_path: Path) -> None:
    gda = checkpoint.load_run(tmp_path / "gda")
    found = gda.out_of_fold()
    assert found is not None and gda.card.files is not None
    save_out_of_fold(gda.folder, replace(found, hashes=tuple(sha256[::-1] for sha256 in found.hashes)))
    write_card(gda.folder, gda.card, gda.card.files)
    with pytest.raises(ConfigError, match="no images in common"):
        commands.train(given)


def assert_equal(run: checkpoint.Run, other: checkpoint.Run) -> None:
    assert run.settings.members == other.settings.members
    assert run.card.validation["val_loss"] == other.card.validation["val_loss"]
    found, expected = run.tensors(), other.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
