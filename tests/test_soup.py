"""Soups: one model of the mean weights of several runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clip_har import Predictor, checkpoint, commands
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError, RunError
from clip_har.integrity import sealed
from clip_har.methods.soup import mean_tensors


def config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    given = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, precision="float32", device="cpu", workers=0),
        optimizer=OptimizerConfig(epochs=1, batch_size=8, lr=1e-4),
        method="full",
        out=out,
    )
    return replace(given, **changes)


@pytest.fixture(scope="module")
def runs(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[checkpoint.Run, ...]:
    """Two trainings of the same method with different seeds."""
    out = tmp_path_factory.mktemp("members")
    return tuple(commands.train(config(photos, tiny_model, out / str(seed), seed=seed)) for seed in (0, 1))


@pytest.fixture(scope="module")
def soup(
    runs: tuple[checkpoint.Run, ...], photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> checkpoint.Run:
    members = tuple(str(run.folder) for run in runs)
    out = tmp_path_factory.mktemp("soup") / "run"
    return commands.train(config(photos, tiny_model, out, method="soup", members=members))


def weights(run: checkpoint.Run) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.folder / run.method.weights_file)
    return found


def test_the_mean_is_taken_in_float32() -> None:
    members = [{"a": torch.tensor([1.0, 2.0]).bfloat16()}, {"a": torch.tensor([2.0, 5.0]).bfloat16()}]
    mean = mean_tensors(members)["a"]
    assert mean.dtype == torch.bfloat16 and mean.tolist() == [1.5, 3.5]


def test_the_weights_are_the_best_member_or_the_mean(soup: checkpoint.Run, runs: tuple[checkpoint.Run, ...]) -> None:
    log = [entry["candidate"] for entry in soup.history()]
    assert len(log) == 2 and log[1].count("seed") == 2
    first = int(log[0].partition("seed ")[2][0])
    assert log[0] == f"mean of full (seed {first})"
    both, best = mean_tensors([weights(run) for run in runs]), weights(runs[first])
    losses = [entry["val_loss"] for entry in soup.history()]
    expected = both if losses[1] < losses[0] else best
    kept = weights(soup)
    assert kept.keys() == expected.keys()
    for key, tensor in kept.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)
    assert not torch.equal(both["model.visual.proj"], best["model.visual.proj"])


def test_a_soup_is_a_run_like_any_other(soup: checkpoint.Run, photos: Path) -> None:
    card = soup.card
    assert card.method == "soup" and card.validation is not None
    assert [member.seed for member in (each.settings for each in soup.settings.members)] == [0, 1]
    paths = sorted(path for path in (photos / "test").rglob("*") if path.is_file())
    assert len(list(Predictor(soup.folder).predict(paths))) == len(paths)
    answers = Predictor(soup.folder).predict(paths[:1], classes=["a cat", "a dog"])
    assert {name for name, _ in next(iter(answers)).top} == {"a cat", "a dog"}
    backbone = BackboneConfig(precision="float32", device="cpu", workers=0)
    result, _ = commands.evaluate(
        EvaluateConfig(data=DataConfig(data=photos), backbone=backbone, checkpoint=soup.folder)
    )
    assert result.finetuned is not None


def test_a_soup_is_a_member_of_an_ensemble(soup: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    members = (str(soup.folder), "ridge")
    run = commands.train(config(photos, tiny_model, tmp_path / "both", method="ensemble", members=members))
    assert [member.method for member in run.settings.members] == ["soup", "ridge"]
    path = next(path for path in (photos / "test").rglob("*") if path.is_file())
    assert len(list(Predictor(run.folder).predict([path]))) == 1


def test_what_cannot_be_averaged(
    runs: tuple[checkpoint.Run, ...], photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    def train(*members: str) -> None:
        commands.train(config(photos, tiny_model, tmp_path / "run", method="soup", members=members))

    with pytest.raises(ConfigError, match="a run of ridge, which cannot be a member of soup"):
        train(str(runs[0].folder), "ridge")
    with pytest.raises(ConfigError, match="soup needs two or more different members"):
        train(str(runs[0].folder))
    with pytest.raises(ConfigError, match="weights of runs of full and lp-ft cannot be averaged"):
        train(str(runs[0].folder), "lp-ft")
    assert not (tmp_path / "run" / "members").exists()  # refused before anything was trained


@pytest.mark.parametrize(
    "members",
    [
        [],
        [{"method": "soup", "settings": {"data": "d"}}],
        [{"method": "wise-ft", "settings": {"data": "d"}}],
        [{"method": "nonsense", "settings": {"data": "d"}}],
    ],
)
def test_a_forged_card_is_refused_in_one_line(members: list[Any], soup: checkpoint.Run, tmp_path: Path) -> None:
    """Changed and sealed again, as somebody who knows how would."""
    shutil.copytree(soup.folder, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    card["settings"]["members"] = members
    (tmp_path / "run" / "card.json").write_text(json.dumps(sealed(card)))
    with pytest.raises(RunError, match="does not contain the weights of the method 'soup'"):
        Predictor(tmp_path / "run")
