"""Unknown actions: scores and thresholds against naive versions, and what evaluate, card and predict make of them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_har import checkpoint, cli, commands
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, TrainConfig
from clip_har.errors import ConfigError, RunError
from clip_har.evaluation.gaussians import fit_gaussians
from clip_har.evaluation.unknown import (
    KEPT_RATES,
    UnknownActions,
    auroc,
    false_positive_rate,
    max_softmax,
    negative_energy,
    roc_curve,
    threshold_at,
    thresholds,
    unknown_score,
)
from clip_har.methods.gda import Gda
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.run_card import add_to_card
from samples import write_colours

COLOURS = {
    "cycling": (200, 60, 50),
    "drinking": (60, 190, 70),
    "eating": (220, 210, 60),
    "running": (60, 70, 200),
    "using_laptop": (120, 60, 160),
}
NOVEL = ("drinking", "using_laptop")


def drawn(seed: int, known: int = 60, unknown: int = 45) -> tuple[Any, Any]:
    """Rounded scores, so that there are ties."""
    draw = np.random.default_rng(seed)
    return np.round(draw.normal(1, 1, known), 1), np.round(draw.normal(0, 1, unknown), 1)


# --- measures against naive versions --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_false_positive_rate_against_loops(seed: int) -> None:
    known, unknown = drawn(seed)
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    accepting = [level for level in known if np.mean(known >= level) >= 0.95]
    assert false_positive_rate(known, unknown) == pytest.approx(np.mean(unknown >= max(accepting)))


def test_the_roc_curve_rises_from_nothing_to_everything_and_its_area_is_auroc() -> None:
    known, unknown = drawn(4)
    curve = np.array(roc_curve(known, unknown))
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1]
    assert (np.diff(curve, axis=0) >= 0).all()
    area = float(np.sum(np.diff(curve[:, 0]) * (curve[1:, 1] + curve[:-1, 1]) / 2))
    assert area == pytest.approx(auroc(known, unknown))
    many = np.random.default_rng(0).normal(size=(2, 1000))
    assert len(roc_curve(*many)) <= 200


def test_scores_of_probabilities_and_logits() -> None:
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 5
    probabilities = logits.softmax(dim=1)
    assert max_softmax(probabilities.numpy()) == pytest.approx(probabilities.max(dim=1).values.numpy())
    assert negative_energy(logits.numpy()) == pytest.approx(logits.logsumexp(dim=1).numpy(), rel=1e-5)
    assert np.isfinite(negative_energy(logits.numpy() * 1e4)).all()


def test_a_threshold_rejects_known_images_at_most_as_often_as_stated() -> None:
    draw = np.random.default_rng(5)
    rejected = []
    for _ in range(400):
        kept = thresholds(draw.normal(size=99))
        rejected.append((draw.normal(size=50) < kept[0.05]).mean())
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.008)


def test_thresholds_are_ranks_and_rates_between_take_the_next_lower() -> None:
    scores = np.arange(1.0, 40.0)  # 39 scores: k = floor(40 rate)
    kept = thresholds(scores[::-1])
    assert kept == {rate: math.floor(40 * rate + 1e-9) for rate in KEPT_RATES if 40 * rate >= 1 - 1e-9}
    assert threshold_at(kept, 0.05) == 2.0 and threshold_at(kept, 0.0579) == 2.0
    assert threshold_at(kept, 0.9) == kept[0.5]
    assert threshold_at(kept, 0.02) is None
    found = unknown_score("gda", "energy", scores, scores - 20, scores)
    assert (found.threshold, found.false_alarms, found.detected) == (2.0, 1 / 39, 21 / 39)
    assert unknown_score("gda", "energy", scores, scores).threshold is None


def test_distances_against_loops() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 3
    train = draw.normal(size=(60, 5)) @ draw.normal(size=(5, 5)) + 3 * labels[:, None]
    new = draw.normal(size=(4, 5))
    means = [train[labels == label].mean(axis=0) for label in range(3)]

    def shrunk(residuals: Any) -> Any:
        covariance = sum(np.outer(row, row) for row in residuals) / 60
        return 0.7 * covariance + 0.3 * np.trace(covariance) / 5 * np.eye(5)

    within = shrunk([row - means[label] for row, label in zip(train, labels, strict=True)])
    overall = shrunk(train - train.mean(axis=0))
    plain, relative = fit_gaussians(train, labels, 3, 0.3).scores(new)
    for index, row in enumerate(new):
        nearest = min(float((row - mean) @ np.linalg.solve(within, row - mean)) for mean in means)
        centred = row - train.mean(axis=0)
        assert plain[index] == pytest.approx(-nearest)
        assert relative[index] == pytest.approx(float(centred @ np.linalg.solve(overall, centred)) - nearest)


def test_the_shrinkage_is_read_from_the_candidate() -> None:
    assert Gda.penalty_of("signed-sqrt, shrinkage=0.03") == 0.03
    with pytest.raises(ValueError, match="could not convert"):
        Gda.penalty_of("alpha 0.5")


# --- whole runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("five"), COLOURS, train=12)


@pytest.fixture(scope="module")
def run(five: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    folder = tmp_path_factory.mktemp("runs") / "gda"
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    return commands.train(
        TrainConfig(data=DataConfig(data=five), backbone=backbone, method="gda", hold_out=NOVEL, out=folder)
    )


def evaluated(data: Path, run: checkpoint.Run, out: Path) -> Any:
    backbone = BackboneConfig(workers=0, precision="float32")
    config = EvaluateConfig(data=DataConfig(data=data), backbone=backbone, checkpoint=run.folder, out=out)
    return commands.evaluate(config)[0]


def test_training_keeps_thresholds_from_cross_validation(run: checkpoint.Run) -> None:
    found = run.out_of_fold()
    assert found is not None and run.card.unknown is not None
    assert run.card.unknown["images"] == len(found.hashes) == 36
    expected = thresholds(found.probabilities_NC.max(dim=1).values.numpy())
    assert {float(rate): level for rate, level in run.card.unknown["max_softmax"].items()} == pytest.approx(expected)


def test_an_evaluation_measures_each_score_on_held_out_classes(five: Path, run: checkpoint.Run, tmp_path: Path) -> None:
    result = evaluated(five, run, tmp_path)
    found = result.findings.unknown
    assert isinstance(found, UnknownActions)
    assert (found.classes, found.known, found.unknown) == (NOVEL, 18, 12)
    by_name = {(score.model, score.score): score for score in found.scores}
    names = [("zero-shot", "max-softmax"), ("zero-shot", "energy"), ("gda", "max-softmax"), ("gda", "energy")]
    assert list(by_name) == [*names, ("gda", "mahalanobis"), ("gda", "relative-mahalanobis")]
    predictor = Predictor(run.folder, precision="float32")
    largest = {
        label: [item.probability or 0.0 for item in predictor.predict(sorted((five / "test" / label).iterdir()))]
        for label in COLOURS
    }
    known = [value for label, values in largest.items() if label not in NOVEL for value in values]
    unknown = [value for label in NOVEL for value in largest[label]]
    by_hand = np.mean([k > u for k in known for u in unknown])
    assert by_name["gda", "max-softmax"].auroc == pytest.approx(by_hand, abs=0.02)
    assert by_name["gda", "relative-mahalanobis"].auroc > 0.9  # other colours are far from all classes
    assert by_name["gda", "energy"].threshold is None and by_name["zero-shot", "energy"].roc[0] == (0, 0)
    written = json.loads((tmp_path / "results.json").read_text())["unknown"]
    assert written["scores"][2]["auroc"] == pytest.approx(by_name["gda", "max-softmax"].auroc)
    page = (tmp_path / "report.html").read_text()
    assert "<h3>Unknown actions</h3>" in page and "gda, relative-mahalanobis" in page
    assert (tmp_path / "unknown_actions.png").is_file()
    card = checkpoint.load_run(run.folder).card.unknown
    assert card is not None and [score["score"] for score in card["measured"]["scores"]][2] == "max-softmax"
    sealed = (run.folder / "card.json").read_bytes()
    evaluated(five, run, tmp_path)
    assert (run.folder / "card.json").read_bytes() == sealed  # the same figures are not written again
    assert "roc" not in card["measured"]["scores"][0] and card["max_softmax"] == (run.card.unknown or {})["max_softmax"]


def test_a_card_without_thresholds_gets_them_from_an_evaluation(
    five: Path, run: checkpoint.Run, tmp_path: Path
) -> None:
    before = checkpoint.load_run(run.folder).card.unknown
    add_to_card(run.folder, unknown=None)
    with pytest.raises(RunError, match="has no thresholds for unknown actions"):
        Predictor(run.folder, precision="float32").predict([], caution=AbstentionPolicy(reject_unknown=0.5))
    evaluated(five, run, tmp_path)
    after = checkpoint.load_run(run.folder).card.unknown
    assert before is not None and after is not None and after["max_softmax"] == before["max_softmax"]


# --- predict --------------------------------------------------------------------------------------------


@pytest.fixture(name="strict")
def fixture_strict(run: checkpoint.Run, five: Path) -> list[Path]:
    """Two images of which the run's card makes one unknown, whatever the arithmetic."""
    images = [five / "test" / "cycling" / "0.jpg", five / "test" / "drinking" / "0.jpg"]
    levels = [item.probability or 0.0 for item in Predictor(run.folder, precision="float32").predict(images)]
    images = images if levels[0] > levels[1] else images[::-1]
    add_to_card(run.folder, unknown={"images": 9, "max_softmax": {"0.1": float(np.mean(levels))}})
    return images


def test_predictions_of_unknown_images_have_no_label(run: checkpoint.Run, strict: list[Path]) -> None:
    predictor = Predictor(run.folder, precision="float32")
    usual = list(predictor.predict(strict))
    assert all(item.label is not None and not item.unknown for item in usual)
    known, unknown = predictor.predict(strict, caution=AbstentionPolicy(reject_unknown=0.1))
    assert known == usual[0]
    assert unknown.unknown and unknown.label is None and unknown.top == usual[1].top
    assert unknown.to_json()["unknown"] is True and "unknown" not in known.to_json()
    _, both = predictor.predict(strict, caution=AbstentionPolicy(reject_unknown=0.1, abstain_below=1.0))
    assert both.unknown and not both.unsure


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_files_mark_unknown_images(run: checkpoint.Run, strict: list[Path], tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"p.{ending}"
    argv = ["predict", str(run.folder), *map(str, strict), "--precision", "float32", "--workers", "0"]
    assert cli.main([*argv, "--reject-unknown", "0.1", "--out", str(out)]) == 0
    if ending == "csv":
        with out.open() as stream:
            rows = [(row["label"] or None, row["unknown"] == "true") for row in csv.DictReader(stream)]
    elif ending == "jsonl":
        lines = map(json.loads, out.read_text().splitlines())
        rows = [(line["label"], line.get("unknown", False)) for line in lines]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        rows = [(row["label"] or None, row["unknown"]) for row in table]
    assert [mark for _, mark in rows] == [False, True]
    assert rows[0][0] is not None and rows[1][0] is None


def test_the_terminal_says_none_of_these(
    run: checkpoint.Run, strict: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(run.folder), *map(str, strict), "--precision", "float32", "--workers", "0"]
    assert cli.main([*argv, "--reject-unknown", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] == "none of these" for line in lines] == [False, True]
    assert cli.main([*argv, "--reject-unknown", "0.01"]) == cli.EXIT_USER_INPUT
    said = capsys.readouterr().err
    assert "9 validation images are too few for --reject-unknown 0.01. Pass 0.1 or more." in said


def test_rates_outside_0_and_1_are_refused() -> None:
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match=f"--reject-unknown {rate} is not between 0 and 1"):
            AbstentionPolicy(reject_unknown=rate)
