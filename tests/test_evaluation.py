"""Metrics, intervals and paired tests against scikit-learn, closed forms and naive loops.

Rows of a comparison are tested in test_evaluation_rows.py, what the report makes of them in tests/report.
"""

from __future__ import annotations

import ast
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from clip_har import evaluation
from clip_har.errors import DataError, ModelError
from clip_har.evaluation import compute_metrics, evaluate, mcnemar_p
from scores import Scores, random_case


def names(n_classes: int) -> list[str]:
    return [f"class {index}" for index in range(n_classes)]


def one_hot(answers: list[int], n_classes: int) -> Scores:
    scores: Scores = np.eye(n_classes)[answers]
    return scores


@pytest.mark.parametrize(("n", "n_classes"), [(400, 15), (50, 2), (300, 60), (1, 3)])
def test_metrics_agree_with_scikit_learn(n: int, n_classes: int) -> None:
    scores, targets = random_case(n, n, n_classes)
    metrics = compute_metrics(scores, targets, classes=names(n_classes))
    predictions = scores.argmax(axis=1)
    labels = np.unique(targets)
    assert metrics.accuracy == pytest.approx(accuracy_score(targets, predictions))
    for average in ("macro", "weighted"):
        options: dict[str, Any] = {"labels": labels, "average": average, "zero_division": 0}
        for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            expected = function(targets, predictions, **options)
            assert getattr(metrics, f"{average}_{name}") == pytest.approx(expected), (average, name)
    np.testing.assert_array_equal(
        metrics.confusion, confusion_matrix(targets, predictions, labels=np.arange(n_classes))
    )
    for index, entry in enumerate(metrics.per_class):
        assert entry.support == (targets == index).sum()
        right = ((targets == index) & (predictions == index)).sum()
        answered = (predictions == index).sum()
        assert entry.precision == pytest.approx(right / answered if answered else 0)
        assert entry.recall == pytest.approx(right / entry.support if entry.support else 0)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_against_a_sorted_list(k: int) -> None:
    # Coarse scores make ties frequent.
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 4, size=(300, 8)) / 4
    targets = rng.integers(0, 8, 300)
    hits = 0
    for row, target in zip(scores, targets, strict=True):
        ranking = sorted(range(8), key=lambda index: (-row[index], index))
        hits += target in ranking[:k]
    metrics = compute_metrics(scores, targets, classes=names(8))
    of_k = {1: metrics.accuracy, 3: metrics.top3_accuracy, 5: metrics.top5_accuracy}
    assert of_k[k] == pytest.approx(hits / 300)
    if k == 1:
        assert hits / 300 == (scores.argmax(axis=1) == targets).mean()


def test_top_k_is_one_where_there_are_no_more_classes() -> None:
    scores, targets = random_case(0, 40, 3, skill=0.0)
    metrics = compute_metrics(scores, targets, classes=names(3))
    assert metrics.accuracy < 1
    assert (metrics.top3_accuracy, metrics.top5_accuracy) == (1.0, 1.0)


def naive_calibration_error(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    total = 0.0
    for low, high in pairwise(np.linspace(0, 1, 16)):
        inside = [i for i, value in enumerate(confidence) if low < value <= high]
        if inside:
            gap = abs(np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside]))
            total += gap * len(inside) / len(confidence)
    return float(total)


@pytest.mark.parametrize("seed", range(4))
def test_calibration_error_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 1, 500)
    confidence[:16] = np.linspace(0, 1, 16).clip(0.01)  # the edges themselves
    correct = rng.uniform(size=500) < confidence**2
    expected = naive_calibration_error(confidence, correct)
    assert evaluation.expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_calibration_error_of_a_sure_model_is_its_error_rate() -> None:
    metrics = compute_metrics(one_hot([0, 0, 0, 1], 2), [0, 1, 1, 1], classes=names(2))
    assert metrics.ece == pytest.approx(0.5)


def test_one_answer_for_everything() -> None:
    targets = np.arange(15).repeat(4)
    metrics = compute_metrics(one_hot([6] * 60, 15), targets, classes=names(15))
    assert metrics.accuracy == pytest.approx(1 / 15)
    assert metrics.macro_recall == pytest.approx(1 / 15)
    assert metrics.macro_precision == pytest.approx(1 / 15 / 15)
    assert metrics.per_class[6].recall == 1.0


def test_a_class_without_images_is_a_possible_answer_but_not_in_the_averages() -> None:
    # Classes 0 and 1 have images, class 2 has none and is answered once.
    metrics = compute_metrics(one_hot([0, 0, 1, 2], 3), [0, 0, 1, 1], classes=names(3))
    assert metrics.per_class[2].support == 0
    assert metrics.macro_recall == pytest.approx((1.0 + 0.5) / 2)
    assert metrics.macro_precision == pytest.approx((1.0 + 1.0) / 2)
    assert metrics.confusion.tolist() == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_one_image() -> None:
    metrics = compute_metrics([[0.3, 0.7]], [1], classes=names(2))
    assert metrics.accuracy == 1.0
    assert metrics.accuracy_ci95 == (1.0, 1.0)
    assert metrics.ece == pytest.approx(0.3)


def test_bootstrap_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(1)
    correct = rng.uniform(size=200) < 0.7
    naive = [rng.choice(correct, size=200).mean() for _ in range(4000)]
    expected = np.percentile(naive, [2.5, 97.5])
    assert evaluation.bootstrap_accuracy(correct, seed=0, resamples=4000) == pytest.approx(expected, abs=0.011)


def test_interval_covers_the_true_accuracy_about_19_times_in_20() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(400):
        low, high = evaluation.bootstrap_accuracy(rng.uniform(size=300) < 0.6, seed=seed, resamples=500)
        covered += low <= 0.6 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    correct = np.arange(100) % 3 > 0
    first, again, other = (evaluation.bootstrap_accuracy(correct, seed=seed, resamples=301) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def pairs(gained: int, lost: int, same: int = 10) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    a = np.array([False] * gained + [True] * lost + [True] * same)
    b = np.array([True] * gained + [False] * lost + [True] * same)
    return a, b


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (6, 0, 2 / 2**6),
        (0, 6, 2 / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (12, 12, 1.0),
        # From 25 pairs on: scipy.stats.chi2.sf((|b - c| - 1)^2 / (b + c), 1), so of 7.84 and 0.64.
        (20, 5, 0.005110260660855),
        (15, 10, 0.423710797166793),
    ],
)
def test_mcnemar(gained: int, lost: int, expected: float) -> None:
    assert mcnemar_p(*pairs(gained, lost)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_exact_against_a_loop_over_outcomes() -> None:
    for gained, lost in [(3, 9), (11, 2), (7, 7), (0, 24), (10, 14)]:
        n = gained + lost
        chances = [math.comb(n, i) / 2**n for i in range(n + 1)]
        as_extreme = sum(c for i, c in enumerate(chances) if abs(i - n / 2) >= abs(gained - n / 2))
        assert mcnemar_p(*pairs(gained, lost)) == pytest.approx(as_extreme)


def test_mcnemar_of_equal_halves_does_not_correct_below_zero() -> None:
    assert mcnemar_p(*pairs(20, 20)) == 1.0


def test_mcnemar_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="shape"):
        mcnemar_p(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores, targets = random_case(0, 10, 4)
    scores[3, 2] = bad
    with pytest.raises(ModelError, match="1 of 10 images") as caught:
        compute_metrics(scores, targets, classes=names(4))
    assert caught.value.remedy


@pytest.mark.parametrize("target", [-1, 4])
def test_targets_that_are_no_class_are_refused(target: int) -> None:
    scores, targets = random_case(0, 10, 4)
    targets[7] = target
    with pytest.raises(DataError, match=f"Image 7 has class index {target}"):
        compute_metrics(scores, targets, classes=names(4))


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        compute_metrics(np.empty((0, 4)), [], classes=names(4))


def test_shapes_and_logits_are_our_own_mistakes() -> None:
    scores, targets = random_case(0, 10, 4)
    with pytest.raises(ValueError, match="do not fit"):
        compute_metrics(scores, targets, classes=names(5))
    with pytest.raises(ValueError, match="softmax"):
        compute_metrics(scores * 20, targets, classes=names(4))
    with pytest.raises(ValueError, match="paths"):
        evaluate(classes=names(4), paths=["a.jpg"], targets_N=targets, baseline_NC=scores)


def test_half_precision_scores_give_the_same_answers() -> None:
    scores, targets = random_case(0, 200, 15)
    single = compute_metrics(scores.astype(np.float32), targets, classes=names(15))
    double = compute_metrics(scores, targets, classes=names(15))
    assert single.accuracy == double.accuracy
    assert single.ece == pytest.approx(double.ece, abs=1e-5)


def test_confused_pairs() -> None:
    answers = [0, 1, 1, 1, 2, 2, 0, 2]
    truth = [0, 0, 0, 1, 1, 1, 2, 2]
    metrics = compute_metrics(one_hot(answers, 3), truth, classes=["a", "b", "c"])
    found = [(p.true, p.predicted, p.count, p.support) for p in evaluation.confused_pairs(metrics)]
    assert found == [("a", "b", 2, 3), ("b", "c", 2, 3), ("c", "a", 1, 2)]
    assert len(evaluation.confused_pairs(metrics, limit=1)) == 1


HISTORIC_KEYS = {
    "accuracy",
    "accuracy_ci95",
    "top3_accuracy",
    "top5_accuracy",
    *(f"{average}_{name}" for average in ("macro", "weighted") for name in ("precision", "recall", "f1")),
    "ece",
}
METRIC_KEYS = HISTORIC_KEYS | {*evaluation.SCALARS, "intervals", "per_class"}


def test_evaluate_compares_both_models_on_the_same_images() -> None:
    baseline, targets = random_case(0, 200, 6, skill=0.5)
    finetuned, _ = random_case(0, 200, 6, skill=3.0)
    paths = [f"{index}.jpg" for index in range(200)]
    result = evaluate(classes=names(6), paths=paths, targets_N=targets, baseline_NC=baseline, finetuned_NC=finetuned)
    assert result.finetuned is not None and result.best is result.finetuned
    assert result.finetuned.name == "lora" and result.baseline.name == "zero-shot"
    before, after = baseline.argmax(axis=1) == targets, finetuned.argmax(axis=1) == targets
    assert result.mcnemar_p == mcnemar_p(before, after)
    assert result.difference_ci95 is not None
    assert result.difference_ci95[0] < after.mean() - before.mean() < result.difference_ci95[1]
    np.testing.assert_array_equal(result.finetuned.predictions, finetuned.argmax(axis=1))
    np.testing.assert_array_equal(result.finetuned.confidence, finetuned.max(axis=1))
    content = result.to_json()
    keys = ["n", "classes", "baseline", "finetuned", "mcnemar_p", "differences", "confidence", "warnings"]
    assert list(content) == keys
    assert content["confidence"] == {"baseline": None, "finetuned": None}
    assert set(content["baseline"]) == set(content["finetuned"]) == METRIC_KEYS
    assert content["warnings"] == []


def test_evaluate_of_the_baseline_alone() -> None:
    scores, targets = random_case(0, 50, 4)
    result = evaluate(classes=names(4), paths=["x"] * 50, targets_N=targets, baseline_NC=scores, split="val")
    assert result.best is result.baseline
    assert result.split == "val"
    assert result.to_json()["finetuned"] is None and result.to_json()["mcnemar_p"] is None


def test_a_collapse_is_said_with_model_and_class() -> None:
    scores, targets = random_case(0, 100, 5)
    result = evaluate(
        classes=["calling", "clapping", "cycling", "dancing", "drinking"],
        paths=["x"] * 100,
        targets_N=targets,
        baseline_NC=scores,
        finetuned_NC=one_hot([2] * 95 + [1] * 5, 5),
        finetuned_name="full",
        warnings=["2 images were left out."],
    )
    assert len(result.warnings) == 2 and result.warnings[0] == "2 images were left out."
    assert result.warnings[1].startswith("full predicts cycling for 95% of the images")


@pytest.mark.parametrize(("answers", "truth"), [([0] * 90 + [1] * 10, [0, 1] * 50), ([0] * 100, [0] * 95 + [1] * 5)])
def test_no_collapse_at_90_percent_or_where_the_images_are_so(answers: list[int], truth: list[int]) -> None:
    result = evaluate(classes=names(2), paths=["x"] * 100, targets_N=truth, baseline_NC=one_hot(answers, 2))
    assert result.warnings == ()


def test_classes_without_images_are_said() -> None:
    result = evaluate(
        classes=["a", "b", "c"], paths=["x"] * 4, targets_N=[0, 0, 1, 1], baseline_NC=one_hot([0, 0, 1, 2], 3)
    )
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("c has no images in the test split")


@pytest.mark.parametrize("share", [90, 91])
def test_collapse_begins_above_90_percent_of_the_answers(share: int) -> None:
    metrics = compute_metrics(one_hot([1] * share + [0] * (100 - share), 2), [0, 1] * 50, classes=["a", "b"])
    assert evaluation.collapse_of(metrics) == (None if share == 90 else ("b", 0.91))


def test_evaluation_does_without_torch() -> None:
    modules: set[str] = set()
    for path in Path(evaluation.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "numpy" in modules
    assert not [name for name in modules if name.split(".")[0] in {"torch", "matplotlib", "pathlib"}]
