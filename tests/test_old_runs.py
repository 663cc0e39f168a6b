"""Runs of an earlier version, one for each method, load and answer as they did when they were trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig
from clip_har.predict import Predictor
from old_runs import FIXTURES, RUNS, scored_images, write_counted_images, write_counted_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_counted_model(tmp_path_factory.mktemp("counted") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counted_images(tmp_path_factory.mktemp("counted-images"))


def test_every_method_has_an_old_run() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == set(RUNS)


@pytest.mark.parametrize("form", ["as written", "format 1"])
@pytest.mark.parametrize("name", sorted(RUNS))
def test_an_old_run_answers_as_it_did(name: str, form: str, model: str, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(FIXTURES / name, tmp_path / "run")
    if form == "format 1":
        card = json.loads((run / "card.json").read_text(encoding="utf-8"))
        for key in ("files", "sha256_of_the_rest"):
            del card[key]
        (run / "card.json").write_text(json.dumps(card | {"format_version": 1}), encoding="utf-8")
    expected = json.loads((run / "answers.json").read_text(encoding="utf-8"))
    answers = list(Predictor(run, model=model, device="cpu", precision="float32").predict(scored_images(data)))
    assert len(answers) == len(expected) == 12
    for answer in answers:
        known = expected[Path(answer.image).relative_to(data).as_posix()]
        assert dict(answer.top) == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("name", ["lora-attention", "wise-ft", "linear-probe"])
def test_an_old_run_is_evaluated(name: str, model: str, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(FIXTURES / name, tmp_path / "run")
    result, _ = commands.evaluate(
        EvaluateConfig(
            data=DataConfig(data=data),
            backbone=BackboneConfig(model=model, workers=0, precision="float32", cache=tmp_path / "cache"),
            checkpoint=run,
        )
    )
    expected = json.loads((run / "answers.json").read_text(encoding="utf-8"))
    assert result.finetuned is not None
    for path, probabilities_C in zip(result.paths, result.finetuned.probabilities_NC, strict=True):
        found = dict(zip(result.classes, probabilities_C.tolist(), strict=True))
        assert found == pytest.approx(expected[path], abs=1e-4)
