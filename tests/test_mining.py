"""What a training mines its hard pairs from: the answers on validation, and the training images themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clip_har.experiment.fit import TrainingRun
from clip_har.methods import Classifier, LabelledImages
from clip_har.methods.embedding_lora import Lora
from clip_har.progress import SILENT
from clip_har.training_states import Start
from tasks import Table, make_task, settings


class Confusing(Classifier):
    """Reads its answers off the embedding's first entries, one for each class."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 1000 * inputs[:, :4]


def images_answered(answers: list[int], *, seed: int) -> LabelledImages:
    """Twelve images, three of each of four classes; those of class k are answered with `answers[k]`."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(4).repeat_interleave(3)
    told_N4 = F.one_hot(torch.tensor(answers)[labels_N], 4).float()
    rest_N8 = torch.randn(12, 8, generator=generator) * 0.3
    embedding_ND = F.normalize(torch.cat([told_N4, rest_N8], dim=1), dim=1)
    return LabelledImages(table=Table(embedding_ND, embedding_ND), labels_N=labels_N)  # type: ignore[arg-type]


def test_pairs_are_of_the_classes_confused_in_validation(tmp_path: Path) -> None:
    """Validation confuses 0 with 1 and 2 with 3; the training images 0 with 2 and 1 with 3."""
    train, val = images_answered([2, 3, 0, 1], seed=0), images_answered([1, 0, 3, 2], seed=1)
    task = dataclasses.replace(make_task(), train=train, val=val)
    experiment: Any = SimpleNamespace(model=SimpleNamespace(backbone=None, classifier=lambda: Confusing()))
    start = Start(weights="w", manifest="m", prompts="p")
    run = TrainingRun(tmp_path, Lora(settings(hard_pairs=0.5)), task, experiment, start, SILENT)
    run._mine(Confusing())
    assert run.pairs is not None
    confused = {frozenset((entry.label, entry.answer)) for entry in run.pairs.confused if entry.images}
    assert confused == {frozenset(("class 0", "class 1")), frozenset(("class 2", "class 3"))}
    assert all(entry.images == 3 for entry in run.pairs.confused if entry.images)
    rivals = {frozenset((pair.first_rival, pair.second_rival)) for pair in run.pairs.images}
    assert rivals == confused
    cosine_NN = task.train.table.embedding @ task.train.table.embedding.T
    assert [pair.similarity for pair in run.pairs.images] == pytest.approx(
        [cosine_NN[pair.first, pair.second].item() for pair in run.pairs.images], abs=1e-5
    )
