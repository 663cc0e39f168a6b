"""A method is one class and one line: what is defined here trains, evaluates, compares and is mixed by WiSE-FT."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har import cli, commands
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    TrainConfig,
)
from clip_har.config.methods import METHOD_CLASSES
from clip_har.methods import METHODS, Candidate, Classifier, ClassifierContext, SolvedMethod, Task
from clip_har.predict import Predictor

NAME = "class-means"


class ClassMeansClassifier(Classifier):
    """Cosine similarity of an image and each class's direction, times a scale."""

    def __init__(self, directions_CD: Tensor, scale: float) -> None:
        super().__init__()
        self.directions_CD = nn.Parameter(directions_CD.clone())
        self.scale = scale

    def forward(self, embedding_BD: Tensor) -> Tensor:
        return self.scale * embedding_BD @ F.normalize(self.directions_CD, dim=-1).T


class ClassMeans(SolvedMethod):
    """Between the prompts and the mean training image of each class."""

    name = NAME
    source = "none"
    answers_new_names = False
    candidates = 2

    def build(self, task: Task) -> ClassMeansClassifier:
        return ClassMeansClassifier(task.prompts_CD, task.logit_scale)

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> ClassMeansClassifier:
        return ClassMeansClassifier(tensors["directions_CD"], frame.logit_scale)

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"directions_CD": frame.prompts_CD}

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, ClassMeansClassifier)
        labels_NC = F.one_hot(task.train.labels_N, len(task.classes)).float()
        means_CD = F.normalize(labels_NC.T @ task.train.table.embedding, dim=-1)
        for share in (0.5, 1.0):
            with torch.no_grad():
                classifier.directions_CD.copy_(torch.lerp(task.prompts_CD, means_CD, share))
            yield Candidate(description=f"share={share:g}", train_loss=0.0)


@pytest.fixture(autouse=True)
def the_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHOD_CLASSES, NAME, f"{__name__}:ClassMeans")


def test_a_method_is_one_class_and_one_line(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    data = DataConfig(data=photos)
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=tmp_path / "cache")
    assert METHODS[NAME] is ClassMeans
    run = commands.train(TrainConfig(data=data, backbone=backbone, method=NAME, out=tmp_path / "run"))
    assert run.card.method == NAME and run.card.trainable_params == 3 * 24
    result, _ = commands.evaluate(EvaluateConfig(data=data, backbone=backbone, checkpoint=run.folder))
    assert result.finetuned is not None and result.finetuned.name == NAME
    answers = list(Predictor(run.folder, precision="float32").predict(sorted((photos / "test").rglob("*.jpg"))))
    assert [answer.error for answer in answers] == [None] * 18
    mixed = commands.train(
        TrainConfig(data=data, backbone=backbone, method="wise-ft", start_from=run.folder, out=tmp_path / "mixed")
    )
    assert mixed.card.settings["source_method"] == NAME and len(mixed.history()) == 11
    comparison = commands.compare(
        CompareConfig(data=data, backbone=backbone, methods=("zero-shot", NAME), out=tmp_path / "compared")
    )
    assert [row.name for row in comparison.rows] == ["zero-shot", NAME]


def test_the_command_line_knows_it(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", f"--data={photos}", f"--model={tiny_model}", "--workers=0", "--precision=float32"]
    assert cli.main([*argv, f"--method={NAME}", f"--out={tmp_path / 'run'}"]) == 0
    assert json.loads((tmp_path / "run" / "card.json").read_text())["method"] == NAME
    assert cli.main([*argv, "--method=class-mean"]) == 2
    assert NAME in capsys.readouterr().err


def test_every_line_names_a_class_of_that_name() -> None:
    for name in METHOD_CLASSES:
        assert METHODS[name].name == name
