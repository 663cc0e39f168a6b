"""--refit of methods that train an encoder: one training chooses the epoch, another has all the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clip_har import checkpoint, commands
from clip_har.config import BackboneConfig, CompareConfig, DataConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError, RunError
from clip_har.experiment import training
from clip_har.experiment.members import MEMBERS_FOLDER
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.refitting import SELECTION
from clip_har.experiment.setup import Experiment, prepare
from clip_har.progress import SILENT
from clip_har.trainer import loop
from clip_har.trainer.batches import Epoch

EPOCHS = 3


def config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    given = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, precision="float32", device="cpu", workers=0),
        optimizer=OptimizerConfig(epochs=EPOCHS, batch_size=8, lr=1e-3),
        method="lp-ft",
        refit=True,
        out=out,
    )
    return replace(given, **changes)


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    return commands.train(config(photos, tiny_model, tmp_path_factory.mktemp("refit") / "run"))


@pytest.fixture(scope="module")
def selection(run: checkpoint.Run) -> checkpoint.Run:
    return checkpoint.load_run(run.folder / MEMBERS_FOLDER / SELECTION)


def experiment_of(run: checkpoint.Run, photos: Path) -> Experiment:
    given = config(photos, "", run.folder)
    backbone = BackboneConfig(precision="float32", device="cpu", workers=0)
    return prepare(given.data, backbone, out=run.folder, progress=SILENT, run=run)


def test_it_is_not_the_default(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    once = commands.train(
        config(photos, tiny_model, tmp_path / "run", refit=None, optimizer=OptimizerConfig(epochs=1, batch_size=8))
    )
    assert not once.settings.refit and once.out_of_fold() is None


def test_the_first_training_is_one_without_refit(
    run: checkpoint.Run, selection: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    assert run.settings.refit and not selection.settings.refit
    alone = commands.train(config(photos, tiny_model, tmp_path / "alone", refit=False))
    expected, found = (load_file(each.folder / each.method.weights_file) for each in (alone, selection))
    assert all(torch.equal(expected[key], tensor) for key, tensor in found.items())


def test_the_figures_and_the_calibration_are_the_first_ones(
    run: checkpoint.Run, selection: checkpoint.Run, photos: Path
) -> None:
    experiment = experiment_of(run, photos)
    val = experiment.images("val")
    found = run.out_of_fold()
    assert found is not None and found.hashes == val.table.hashes
    expected = Predictions(selection, experiment).finetuned(val)
    assert expected is not None
    np.testing.assert_array_equal(found.probabilities_NC.numpy(), expected)
    answered = Predictions(run, experiment).finetuned(val)
    assert answered is not None
    np.testing.assert_array_equal(answered, expected)
    fitted = run.classifier().probabilities(val).numpy()
    assert not np.array_equal(fitted, expected), "the run itself has seen these images"
    assert run.card.confidence == selection.card.confidence
    figures = {key: value for key, value in selection.card.validation.items() if key.startswith("val_")}
    assert figures.items() <= run.card.validation.items()
    best = next(entry["epoch"] for entry in selection.history() if entry["best"])
    assert [entry["epoch"] for entry in run.history()] == list(range(1, best + 1))
    assert run.history()[-1]["best"]


def test_the_second_training_has_all_the_images(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    class Counted(Epoch):
        def __init__(self, images: Any, *given: Any, **named: Any) -> None:
            trained.append(len(images))
            super().__init__(images, *given, **named)

    monkeypatch.setattr(loop, "Epoch", Counted)
    found = commands.train(
        config(photos, tiny_model, tmp_path / "run", optimizer=OptimizerConfig(epochs=1, batch_size=8))
    )
    splits = found.card.splits
    assert trained == [splits["train"], splits["train"] + splits["val"]]


def test_it_cannot_be_ended_early(run: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path / "run")
    commands.train(given)
    (tmp_path / "run" / "card.json").unlink()
    fewer = replace(given, resume=True, optimizer=OptimizerConfig(epochs=1, batch_size=8, lr=1e-3))
    with pytest.raises(RunError, match="--refit cannot be ended early"):
        commands.train(fewer)


@pytest.mark.parametrize("name", ["_task", "fit_calibration"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interruption_names_the_run_and_is_continued_from(
    name: str, call: int, photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the epochs of either training, in a folder chosen by the command."""
    monkeypatch.chdir(tmp_path)
    given = replace(config(photos, tiny_model, tmp_path), out=None)
    commands.train(replace(given, method="gda", out=Path("runs/lp-ft"), refit=None))  # that name is taken
    calls = iter(range(1, 3))
    before = getattr(training, name)

    def interrupted(*given: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return before(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(training, name, interrupted)
        commands.train(given)
    if (name, call) == ("_task", 1):  # nothing was saved yet
        assert caught.value.args == ()
        return
    assert caught.value.args == (str(Path("runs/lp-ft-2")),)
    assert commands.train(replace(given, resume=True)).folder == Path("runs/lp-ft-2")


def test_an_ensemble_judges_it_by_the_first_answers(
    run: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    both = commands.train(
        config(photos, tiny_model, tmp_path / "both", method="ensemble", refit=None, members=(str(run.folder), "ridge"))
    )
    found, own = both.out_of_fold(), run.out_of_fold()
    assert found is not None and own is not None and set(found.hashes) == set(own.hashes)


def test_a_refitted_run_is_refused_where_validation_images_judge(
    run: checkpoint.Run, selection: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    members = (str(run.folder), str(selection.folder))
    for changes in (
        {"method": "soup", "members": members},
        {"method": "ensemble", "members": members, "refit": False},
        {"method": "wise-ft", "start_from": run.folder, "refit": None},
    ):
        with pytest.raises(ConfigError, match="also fitted on the validation images"):
            commands.train(config(photos, tiny_model, tmp_path / "run", **changes))
    with pytest.raises(ConfigError, match="also fitted on the validation images"):  # before any image is read
        commands.train(config(tmp_path / "none", "no-model", tmp_path / "run", method="soup", members=members))


def test_methods_that_validation_images_judge_get_runs_without_refit(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    optimizer = OptimizerConfig(epochs=1, batch_size=8)
    soup = commands.train(config(photos, tiny_model, tmp_path / "soup", method="soup", optimizer=optimizer))
    assert [member.settings.refit for member in soup.settings.members] == [False, False]
    found = commands.compare(
        CompareConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=tiny_model, precision="float32", device="cpu", workers=0),
            optimizer=optimizer,
            methods=("wise-ft", "full"),
            refit=True,
            out=tmp_path / "compared",
        )
    )
    assert not found.skipped
    settings = checkpoint.load_run(tmp_path / "compared" / "runs" / "wise-ft").settings
    assert settings.source is not None and not settings.source.settings.refit
    assert checkpoint.load_run(tmp_path / "compared" / "runs" / "full").settings.refit
