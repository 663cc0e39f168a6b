"""Robustness and shift: figures against what is computed by hand, files, console tables, wrong input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clip_har import checkpoint, cli, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, OptimizerConfig, TrainConfig
from clip_har.dataset import load_dataset
from clip_har.evaluation import bootstrap_accuracy, mcnemar_p
from clip_har.experiment.predictions import stratified
from clip_har.images import Corruption
from samples import CLASSES, HUES, write_image


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=3, batch_size=8),
        out=tmp_path_factory.mktemp("runs") / "lora",
    )
    return commands.train(config)


def config(photos: Path, run: checkpoint.Run | None, **changes: Any) -> EvaluateConfig:
    base = EvaluateConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(workers=0, precision="float32"),
        checkpoint=run.folder if run else None,
    )
    return replace(base, **changes)


def accuracy_by_hand(run: checkpoint.Run, photos: Path, corruption: Corruption) -> tuple[float, float]:
    """Zero-shot's and the run's accuracy on the corrupted test images, one image at a time."""
    backbone = load_backbone(run.card.backbone.name, device="cpu", precision="float32")
    transform, classifier = backbone.info.preprocessing.transform(), run.classifier()
    right = np.zeros(2)
    records = load_dataset(photos).split("test")
    for record in records:
        image = corruption.apply(Image.open(str(record.path)).convert("RGB"), corruption.image_seed(record.sha256))
        features = backbone.encode_images(transform(image)[None])
        answers = ((features.embedding_BD @ run.prompts().T).argmax(), classifier(features.of_kind("both")).argmax())
        right += [CLASSES[int(answer)] == record.label for answer in answers]
    before, after = right / len(records)
    return float(before), float(after)


def test_robustness_is_the_accuracy_on_corrupted_images(photos: Path, run: checkpoint.Run, tmp_path: Path) -> None:
    asked = config(
        photos, run, robustness=True, corruptions=("contrast", "gaussian-noise"), severities=(1, 5), out=tmp_path
    )
    result, out = commands.evaluate(asked)
    found = result.findings.robustness
    assert found is not None and found.images == 18
    assert [(score.kind, score.severity) for score in found.scores] == [
        ("contrast", 1),
        ("contrast", 5),
        ("gaussian-noise", 1),
        ("gaussian-noise", 5),
    ]
    for score in found.scores:
        wanted = accuracy_by_hand(run, photos, Corruption(kind=score.kind, severity=score.severity))
        assert (score.baseline, score.finetuned) == pytest.approx(wanted)
    assert found.mean_baseline == pytest.approx(np.mean([score.baseline for score in found.scores]))
    assert found.mean_finetuned == pytest.approx(np.mean([score.finetuned for score in found.scores]))
    assert result.finetuned is not None
    assert found.clean_finetuned == pytest.approx(result.finetuned.metrics.accuracy)
    assert found.clean_baseline == pytest.approx(result.baseline.metrics.accuracy)
    written = json.loads((out / "robustness.json").read_text())
    assert json.loads((out / "results.json").read_text())["robustness"] == written
    assert written["scores"][0] == {
        "kind": "contrast",
        "severity": 1,
        "baseline": found.scores[0].baseline,
        "finetuned": found.scores[0].finetuned,
    }


def test_without_a_run_there_is_zero_shot_alone_on_a_drawn_part(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    asked = config(
        photos, None, robustness=True, corruptions=("jpeg",), severities=(3,), robustness_images=9, out=tmp_path
    )
    asked = replace(asked, backbone=replace(asked.backbone, model=tiny_model))
    result, _ = commands.evaluate(asked)
    found = result.findings.robustness
    assert found is not None
    assert found.images == 9
    assert found.clean_finetuned is found.mean_finetuned is found.scores[0].finetuned is None


def test_nothing_is_measured_that_was_not_asked_for(photos: Path, run: checkpoint.Run, tmp_path: Path) -> None:
    result, out = commands.evaluate(config(photos, run, out=tmp_path))
    assert result.findings.to_json() == {}
    assert not (out / "robustness.json").exists()


def test_drawn_images_keep_the_classes_shares() -> None:
    labels_N = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    chosen = stratified(labels_N, 10, seed=0)
    assert labels_N[chosen].bincount().tolist() == [5, 3, 2]
    assert chosen == sorted(set(chosen)) == stratified(labels_N, 10, seed=0) != stratified(labels_N, 10, seed=1)
    assert len(stratified(labels_N, 7, seed=0)) == 7
    assert stratified(labels_N, 0, seed=0) == stratified(labels_N, 100, seed=0) == list(range(100))


# --- shift ----------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Two of the classes and a stranger, without splits."""
    for number, label in enumerate(("cycling", "running", "sleeping")):
        for index in range(10):
            write_image(
                tmp_path / "other" / label / f"{index}.jpg", HUES.get(label, (9, 9, 9)), seed=9000 + 50 * number + index
            )
    return tmp_path / "other"


def test_shift_scores_shared_classes_of_another_folder(
    photos: Path, run: checkpoint.Run, other: Path, tmp_path: Path
) -> None:
    seen = sorted((photos / "train" / "running").iterdir())[0]
    (other / "running" / "seen.jpg").write_bytes(seen.read_bytes())
    result, out = commands.evaluate(config(photos, run, shift=other, out=tmp_path / "eval"))
    found = result.findings.shift
    assert found is not None
    assert (found.name, found.images, found.classes, found.left_out) == ("other", 20, 2, 1)
    backbone = load_backbone(run.card.backbone.name, device="cpu", precision="float32")
    transform, classifier, shared = backbone.info.preprocessing.transform(), run.classifier(), [0, 2]
    before, after = [], []
    for label in (0, 2):
        for index in range(10):
            image = Image.open(other / CLASSES[label] / f"{index}.jpg").convert("RGB")
            features = backbone.encode_images(transform(image)[None])
            before.append(shared[int((features.embedding_BD @ run.prompts()[shared].T).argmax())] == label)
            after.append(shared[int(classifier(features.of_kind("both"))[0, shared].argmax())] == label)
    assert found.baseline == pytest.approx(np.mean(before))
    assert found.finetuned == pytest.approx(np.mean(after))
    assert found.finetuned_ci95 == bootstrap_accuracy(np.array(after), seed=0)
    assert found.mcnemar_p == mcnemar_p(np.array(before), np.array(after))
    assert json.loads((out / "results.json").read_text())["shift"]["images"] == 20


def test_a_shift_without_shared_classes_is_refused(
    photos: Path, run: checkpoint.Run, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (other / "running").iterdir():
        path.unlink()
    (other / "running").rmdir()
    argv = ["evaluate", "--data", str(photos), "--checkpoint", str(run.folder), "--shift", str(other)]
    assert cli.main([*argv, "--workers", "0", "--precision", "float32"]) == 2
    assert f"--shift {other} has 1 of the 3 classes with images to evaluate." in capsys.readouterr().err


# --- the command line -----------------------------------------------------------------------------------


def test_the_command_prints_both_tables(
    photos: Path, run: checkpoint.Run, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", "--data", str(photos), "--checkpoint", str(run.folder), "--out", str(tmp_path / "eval")]
    argv += ["--precision", "float32", "--robustness", "--corruptions", "jpeg,pixelat"]
    assert cli.main(argv) == 2
    assert "did you mean 'pixelate'?" in capsys.readouterr().err
    argv[-1] = "jpeg,gaussian-blur"
    argv += ["--severities", "2,4", "--shift", str(other), "--workers", "0"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "Accuracy on 18 corrupted images, zero-shot → run" in out
    assert "severity 2" in out and "severity 4" in out and "gaussian-blur" in out
    assert "other: 20 images of 2 shared classes" in out


def test_severities_beyond_five_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--data", str(photos), "--severities", "0,6"]) == 2
    assert "whole numbers from 1 to 5" in capsys.readouterr().err
