"""A run's answers and splits: kept where they can be, computed anew where damaged, the same at every evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_har import checkpoint, commands
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, LoraConfig, OptimizerConfig, TrainConfig
from clip_har.experiment import predictions as answering
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import prepare
from clip_har.progress import SILENT
from samples import write_dataset


def trained(photos: Path, model: str, out: Path, **changes: Any) -> checkpoint.Run:
    return commands.train(
        TrainConfig(
            data=changes.pop("data", DataConfig(data=photos)),
            backbone=BackboneConfig(model=model, workers=0, precision="float32"),
            optimizer=OptimizerConfig(epochs=1, batch_size=8),
            out=out,
            **changes,
        )
    )


@pytest.fixture(scope="module")
def inside(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    """A run inside the towers, whose answers are worth keeping."""
    return trained(photos, tiny_model, tmp_path_factory.mktemp("run") / "lora", lora=LoraConfig(placement="attention"))


def answers(run: checkpoint.Run, photos: Path, tmp_path: Path, **options: Any) -> Any:
    prepared = prepare(
        DataConfig(data=photos),
        BackboneConfig(workers=0, precision="float32"),
        out=tmp_path,
        progress=SILENT,
        run=run,
        for_training=False,
    )
    return Predictions(run, prepared, **options).finetuned(prepared.images("test"))


def test_damaged_answers_are_asked_again(inside: checkpoint.Run, photos: Path, tmp_path: Path) -> None:
    first = answers(inside, photos, tmp_path)
    kept = sorted((inside.folder / "answers").glob("*.npy"))
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert kept and (answers(inside, photos, tmp_path) == first).all()
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    for path in kept:
        path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_allclose(answers(inside, photos, tmp_path), first, atol=1e-6)


def test_pixels_made_in_another_way_are_asked_again(
    inside: checkpoint.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(inside, photos, tmp_path)
    before = set((inside.folder / "answers").iterdir())
    monkeypatch.setattr(answering, "PIXELS_VERSION", 99)
    answers(inside, photos, tmp_path)
    assert len(set((inside.folder / "answers").iterdir()) - before) == 1


def test_a_run_where_nothing_can_be_written_still_answers(
    inside: checkpoint.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    first = answers(inside, photos, tmp_path)
    monkeypatch.setattr(answering, "write_sealed", refused)
    monkeypatch.setattr(answering, "PIXELS_VERSION", 98)
    np.testing.assert_allclose(answers(inside, photos, tmp_path), first, atol=1e-6)


def test_answers_that_are_not_to_be_kept_leave_nothing(inside: checkpoint.Run, photos: Path, tmp_path: Path) -> None:
    before = sorted((inside.folder / "answers").iterdir())
    for path in before:
        path.unlink()
    answers(inside, photos, tmp_path, keep=False)
    assert not list((inside.folder / "answers").iterdir())


def test_an_evaluation_leaves_out_the_split_that_the_training_left_out(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "photos")
    aside = DataConfig(data=data, set_aside=("test",))
    run = trained(data, tiny_model, tmp_path / "run", data=aside)
    own = [line.split(",")[0] for line in (run.folder / "manifest.csv").read_text().splitlines() if ",test" in line]
    backbone = BackboneConfig(workers=0, precision="float32")
    result, _ = commands.evaluate(EvaluateConfig(data=DataConfig(data=data), backbone=backbone, checkpoint=run.folder))
    assert sorted(result.paths) == sorted(own)
    asked, _ = commands.evaluate(
        EvaluateConfig(data=DataConfig(data=data, set_aside=()), backbone=backbone, checkpoint=run.folder)
    )
    assert all(path.startswith("test/") for path in asked.paths)
