"""Held-out actions: never trained on, scored among their own names as by hand; compare's columns; WiSE-FT's curve."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clip_har import checkpoint, cli, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, CompareConfig, DataConfig, EvaluateConfig, OptimizerConfig, TrainConfig
from clip_har.dataset import load_dataset, novel_class_names
from clip_har.errors import ConfigError, RunError
from clip_har.evaluation.findings import Unseen, WiseCurve
from clip_har.experiment.novel_classes import base_novel, mean_of
from clip_har.progress import Silent
from clip_har.prompts import ACTION_TEMPLATES, sentences
from samples import write_colours

COLOURS = {
    "cycling": (200, 60, 50),
    "drinking": (60, 190, 70),
    "eating": (220, 210, 60),
    "running": (60, 70, 200),
    "using_laptop": (120, 60, 160),
}
NOVEL = ("drinking", "using_laptop")
BASE = ("cycling", "eating", "running")


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("five"), COLOURS, train=10)


def train_config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=3, batch_size=8),
        hold_out=("Drinking", "using laptop"),
        out=out,
    )
    return replace(config, **changes)


def evaluated(data: Path, run: checkpoint.Run, **changes: Any) -> Any:
    config = EvaluateConfig(
        data=DataConfig(data=data), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    return commands.evaluate(replace(config, **changes))[0]


@pytest.fixture(scope="module")
def run(five: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    return commands.train(train_config(five, tiny_model, tmp_path_factory.mktemp("runs") / "lora"))


def novel_by_hand(run: checkpoint.Run, data: Path) -> tuple[float, float]:
    """Zero-shot's and the LoRA run's accuracy on the held-out classes, sentence by sentence and image by image."""
    backbone = load_backbone(run.card.backbone.name, device="cpu", precision="float32")
    prompts = torch.stack([backbone.encode_text(sentences(name, ACTION_TEMPLATES)).mean(dim=0) for name in NOVEL])
    prompts_CD = prompts / prompts.norm(dim=1, keepdim=True)
    lora: Any = run.classifier()
    transform, right, total = backbone.info.preprocessing.transform(), torch.zeros(2), 0
    for record in load_dataset(data).split("test"):
        if record.label in NOVEL:
            features = backbone.encode_images(transform(Image.open(str(record.path)))[None])
            zero_shot = int((features.embedding_BD @ prompts_CD.T).argmax())
            tuned = int((lora.adapt_images(features.of_kind("both")) @ lora.adapt_text(prompts_CD).T).argmax())
            right += torch.tensor([NOVEL[zero_shot] == record.label, NOVEL[tuned] == record.label])
            total += 1
    return float(right[0]) / total, float(right[1]) / total


def test_held_out_actions_are_not_trained_on_and_stay_in_the_manifest(run: checkpoint.Run) -> None:
    assert run.classes == BASE
    assert run.novel_classes == NOVEL
    assert run.card.splits == {"train": 24, "val": 6, "test": 18}
    assert run.prompts().shape[0] == 3
    with (run.folder / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["class"] for row in rows} == set(COLOURS)
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)


def test_an_evaluation_scores_base_and_novel_as_by_hand(five: Path, run: checkpoint.Run) -> None:
    result = evaluated(five, run)
    found = result.findings.unseen
    assert isinstance(found, Unseen)
    assert result.classes == found.base_classes == BASE
    assert found.novel_classes == NOVEL
    assert result.n == 18
    assert not any("excluded" in warning for warning in result.warnings)
    before, after = novel_by_hand(run, five)
    assert (found.baseline.novel, found.finetuned.novel) == pytest.approx((before, after))
    assert found.finetuned.base == pytest.approx(result.finetuned.metrics.accuracy)
    assert found.baseline.base == pytest.approx(result.baseline.metrics.accuracy)
    assert found.finetuned == base_novel(found.finetuned.base, found.finetuned.novel)
    assert not found.falls_back


def test_the_harmonic_mean() -> None:
    assert base_novel(0.8, 0.4).harmonic == pytest.approx(2 / (1 / 0.8 + 1 / 0.4))
    assert base_novel(0.0, 0.0).harmonic == 0.0
    assert mean_of([base_novel(0.8, 0.2), base_novel(0.6, 0.4)]) == base_novel((0.8 + 0.6) / 2, (0.2 + 0.4) / 2)


def test_a_number_draws_classes_by_the_split_seed() -> None:
    classes = tuple(COLOURS)
    drawn = {seed: novel_class_names(classes, ("2",), seed) for seed in range(8)}
    assert drawn[3] == novel_class_names(classes, ("2",), 3)
    assert len(set(drawn.values())) > 1
    assert all(len(set(names)) == 2 and list(names) == sorted(names) for names in drawn.values())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("drinkin", "eating"), "the class 'drinkin', which is not in the dataset. Did you mean 'drinking'?"),
        (("drinking",), "--hold-out drinking holds out 1 of 5 classes"),
        (("4",), "--hold-out 4 leaves 1 of 5 classes"),
        (("0",), "--hold-out 0 holds out 0 of 5 classes"),
    ],
)
def test_what_cannot_be_held_out_is_refused(asked: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        novel_class_names(tuple(COLOURS), asked, 0)
    assert said in str(caught.value)


def test_a_resumed_training_must_hold_out_the_same(five: Path, run: checkpoint.Run, tiny_model: str) -> None:
    with pytest.raises(Exception, match="hold_out"):
        commands.train(train_config(five, tiny_model, run.folder, resume=True, hold_out=("eating", "running")))


# --- compare --------------------------------------------------------------------------------------------


def test_compare_gives_base_novel_and_harmonic_and_says_where_a_head_is_fixed(
    five: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CompareConfig(
        data=DataConfig(data=five),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        methods=("zero-shot", "linear-probe", "coop", "tip-adapter"),
        optimizer=OptimizerConfig(epochs=1),
        hold_out=NOVEL,
        out=tmp_path,
    )
    rows = {row.name: row for row in commands.compare(config).rows}
    zero_shot = rows["zero-shot"].unseen
    assert zero_shot is not None
    for name in ("linear-probe", "tip-adapter"):
        unseen = rows[name].unseen
        assert unseen is not None
        assert unseen.novel == zero_shot.novel
        assert unseen.base == pytest.approx(rows[name].accuracy)
        assert "cannot predict the unseen classes" in rows[name].note
    assert "cannot predict" not in rows["zero-shot"].note and rows["coop"].unseen is not None
    written = {row["method"]: row for row in json.loads((tmp_path / "comparison.json").read_text())}
    assert set(written["zero-shot"]["unseen"]) == {"base", "novel", "harmonic"}
    with (tmp_path / "comparison.csv").open() as stream:
        in_table = {row["method"]: row for row in csv.DictReader(stream)}
    coop = rows["coop"].unseen
    assert coop is not None
    assert float(in_table["coop"]["novel"]) == pytest.approx(coop.novel, abs=1e-6)
    assert float(in_table["coop"]["harmonic"]) == pytest.approx(coop.harmonic, abs=1e-6)
    assert "| method | base | novel | harmonic |" in (tmp_path / "comparison.md").read_text()
    assert "held-out (novel) classes" in (tmp_path / "comparison.txt").read_text()
    assert '<h2 id="unseen">Unseen classes</h2>' in (tmp_path / "report.html").read_text()
    argv = [
        "compare",
        "--data",
        str(five),
        "--model",
        tiny_model,
        "--methods",
        "zero-shot",
        "--out",
        str(tmp_path / "b"),
    ]
    assert cli.main([*argv, "--hold-out", "drinking,using_laptop", "--workers", "0", "--precision", "float32"]) == 0
    out = capsys.readouterr().out
    assert "Accuracy on trained (base) and held-out (novel) classes" in out and "harmonic" in out


def test_a_run_with_held_out_actions_keeps_what_is_known_of_its_confidence(run: checkpoint.Run) -> None:
    assert run.card.confidence is not None and run.card.confidence["images"] > 0
    assert run.card.manifest_sha256 in (run.folder / "card.json").read_text()


def test_the_report_names_the_manifest_that_the_card_names(five: Path, run: checkpoint.Run, tmp_path: Path) -> None:
    evaluated(five, run, out=tmp_path)
    assert run.card.manifest_sha256 in (tmp_path / "report.html").read_text()


def test_damaged_weights_are_not_taken_for_names_without_an_answer(five: Path, tiny_model: str, tmp_path: Path) -> None:
    broken = commands.train(train_config(five, tiny_model, tmp_path / "run"))
    (broken.folder / broken.method.weights_file).write_bytes(b"x")
    with pytest.raises(RunError):
        evaluated(five, broken)


def test_held_out_images_that_cannot_be_read_are_not_scored(five: Path, tiny_model: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(five, data)
    for name in NOVEL:
        for path in (data / "test" / name).iterdir():
            path.write_bytes(path.read_bytes()[:200])
    held = commands.train(train_config(data, tiny_model, tmp_path / "run"))
    config = EvaluateConfig(
        data=DataConfig(data=data, unreadable_limit=1.0),
        backbone=BackboneConfig(workers=0, precision="float32"),
        checkpoint=held.folder,
    )
    assert commands.evaluate(config)[0].findings.unseen is None


# --- WiSE-FT --------------------------------------------------------------------------------------------


def test_the_wise_ft_curve_runs_from_zero_shot_to_the_trained_run(
    five: Path, run: checkpoint.Run, tiny_model: str, tmp_path: Path
) -> None:
    mixed = commands.train(train_config(five, tiny_model, tmp_path / "wise", method="wise-ft", start_from=run.folder))
    asked = {"robustness": True, "corruptions": ("contrast",), "severities": (1, 2, 4), "out": tmp_path / "eval"}
    found = evaluated(five, mixed, **asked).findings
    curve = found.wise_curve
    assert isinstance(curve, WiseCurve)
    assert [point.alpha for point in curve.points] == pytest.approx([step / 10 for step in range(11)])
    assert curve.chosen in [point.alpha for point in curve.points]
    assert curve.severity == 2
    source = evaluated(five, run, **{**asked, "severities": (2,), "out": tmp_path / "source"})
    first, last = curve.points[0], curve.points[-1]
    assert first.in_domain == pytest.approx(source.baseline.metrics.accuracy)
    assert last.in_domain == pytest.approx(source.finetuned.metrics.accuracy)
    assert first.novel == pytest.approx(source.findings.unseen.baseline.novel)
    assert last.novel == pytest.approx(source.findings.unseen.finetuned.novel)
    assert first.corrupted == pytest.approx(source.findings.robustness.mean_baseline)
    assert last.corrupted == pytest.approx(source.findings.robustness.mean_finetuned)
    kept = next(point for point in curve.points if point.alpha == curve.chosen)
    assert kept.novel == pytest.approx(found.unseen.finetuned.novel)
    written = json.loads((tmp_path / "eval" / "results.json").read_text())["wise_curve"]
    assert len(written["points"]) == 11


def test_no_curve_is_drawn_from_a_run_that_was_trained_anew(
    five: Path, run: checkpoint.Run, tiny_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "source"
    shutil.copytree(run.folder, folder)
    mixed = commands.train(train_config(five, tiny_model, tmp_path / "wise", method="wise-ft", start_from=folder))
    assert evaluated(five, mixed, out=tmp_path / "before").findings.wise_curve is not None
    shutil.rmtree(folder)
    commands.train(train_config(five, tiny_model, folder, seed=1))
    heard: list[str] = []

    class Heard(Silent):
        def warn(self, text: str) -> None:
            heard.append(text)

    config = EvaluateConfig(
        data=DataConfig(data=five),
        backbone=BackboneConfig(workers=0, precision="float32"),
        checkpoint=mixed.folder,
        out=tmp_path / "after",
    )
    (result, *_) = commands.evaluate(config, progress=Heard())
    assert result.findings.wise_curve is None and result.findings.unseen is not None
    assert [text for text in heard if "WiSE-FT" in text] == [
        f"No WiSE-FT curve: the run it interpolates cannot be used ({folder} does not contain the weights that "
        f"{mixed.folder} was interpolated from. Train the wise-ft run again.)"
    ]
