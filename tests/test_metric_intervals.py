"""Every metric and its interval against scikit-learn and naive loops, on random and on degenerate inputs."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss

from clip_har.evaluation import (
    LOWER_IS_BETTER,
    SCALARS,
    Metrics,
    adaptive_calibration_error,
    compute_metrics,
    evaluate,
    stratified_weights,
)
from clip_har.evaluation import metrics as metrics_module
from clip_har.evaluation import scoring as scoring_module
from clip_har.evaluation.ranking import average_precision, influence, rank, resampled_average_precision
from clip_har.evaluation.scoring import read_scores
from scores import Scores, Targets, random_case


def coarse_case(seed: int, n: int, n_classes: int) -> tuple[Scores, Targets]:
    """Probabilities in steps of a quarter or so: ties are everywhere."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, size=(n, n_classes)) + np.eye(n_classes)[rng.integers(0, n_classes, n)]
    return counts / counts.sum(axis=1, keepdims=True), rng.integers(0, n_classes, n)


def one_answer_case(n: int, n_classes: int) -> tuple[Scores, Targets]:
    return np.eye(n_classes)[np.zeros(n, dtype=int)], np.arange(n) % n_classes


CASES = {
    "random": random_case(0, 300, 12),
    "two classes": random_case(1, 60, 2),
    "ties": coarse_case(2, 200, 5),
    "one answer": one_answer_case(60, 6),
    "absent class": (random_case(3, 90, 4)[0], np.arange(90) % 3),
    "one true class": (random_case(4, 30, 4)[0], np.full(30, 2)),
    "one image": (np.array([[0.3, 0.7, 0.0]]), np.array([1])),
    "certain and wrong": (np.eye(3)[[1, 2, 0, 1]], np.array([0, 1, 2, 0])),
}


def measure(scores: npt.ArrayLike, targets: npt.ArrayLike, seed: int = 0, resamples: int = 200) -> Metrics:
    classes = [f"class {index}" for index in range(np.asarray(scores).shape[1])]
    return compute_metrics(scores, targets, classes=classes, seed=seed, resamples=resamples)


@pytest.mark.parametrize("name", CASES)
def test_metrics_agree_with_scikit_learn_and_their_definitions(name: str) -> None:
    scores, targets = CASES[name]
    metrics = measure(scores, targets)
    n_classes = scores.shape[1]
    predictions, present = scores.argmax(axis=1), np.unique(targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of answers whose class has no images
        assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(targets, predictions))
        assert metrics.log_loss == pytest.approx(log_loss(targets, scores, labels=np.arange(n_classes)))
    truth = np.eye(n_classes)[targets]
    assert metrics.brier == pytest.approx(np.mean([((p - t) ** 2).sum() for p, t in zip(scores, truth, strict=True)]))
    expected = [average_precision_score(targets == index, scores[:, index]) for index in present]
    assert [metrics.per_class[i].average_precision for i in present] == pytest.approx(expected)
    assert metrics.mean_average_precision == pytest.approx(np.mean(expected))
    for index in range(n_classes):
        if index not in present:
            assert metrics.per_class[index].average_precision == 0.0


@pytest.mark.parametrize("name", CASES)
def test_every_interval_holds_its_value_within_its_range(name: str) -> None:
    metrics = measure(*CASES[name])
    assert list(metrics.intervals) == list(SCALARS)
    for key, (low, high) in metrics.intervals.items():
        assert 0 <= low <= high, key
        assert high <= (2 if key == "brier" else 1) or key == "log_loss"
        if key not in ("macro_precision", "weighted_precision", "mean_average_precision"):  # not means over images
            assert low - 1e-9 <= getattr(metrics, key) <= high + 1e-9, key
    for entry in metrics.per_class:
        for low, high in (entry.recall_ci95, entry.precision_ci95, entry.f1_ci95, entry.average_precision_ci95):
            assert 0 <= low <= high <= 1


def naive_adaptive_error(confidence: Scores, correct: npt.NDArray[np.bool_], bins: int) -> float:
    """Images sorted into bins one by one; one as sure as the image before it joins its bin."""
    order = sorted(range(len(confidence)), key=lambda index: confidence[index])
    members: dict[int, list[int]] = {}
    bin_of = 0
    for place, index in enumerate(order):
        if place == 0 or confidence[index] != confidence[order[place - 1]]:
            bin_of = place * bins // len(order)
        members.setdefault(bin_of, []).append(index)
    gaps = [abs(sum(correct[i] - confidence[i] for i in inside)) for inside in members.values()]
    return float(sum(gaps) / len(order))


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("n", [1, 7, 200])
def test_the_adaptive_calibration_error_against_a_loop(n: int, bins: int) -> None:
    rng = np.random.default_rng(n)
    for confidence in (rng.uniform(0.1, 1, n), rng.integers(1, 5, n) / 4):
        correct = rng.uniform(size=n) < confidence
        expected = naive_adaptive_error(confidence, correct, bins)
        assert adaptive_calibration_error(confidence, correct, bins=bins) == pytest.approx(expected)


def test_adaptive_bins_hold_equally_many() -> None:
    confidence = np.random.default_rng(0).uniform(size=150)
    assert np.bincount(metrics_module.equal_mass_bins(confidence)).tolist() == [10] * 15


# --- the bootstrap --------------------------------------------------------------------------------------


def test_every_resample_has_the_classes_in_their_sizes() -> None:
    sizes = np.array([3, 0, 5, 1])
    (weights,) = stratified_weights(sizes, seed=0, resamples=4000)
    starts = [0, 3, 3, 8]
    for start, size in zip(starts, sizes, strict=True):
        assert (weights[start : start + size].sum(axis=0) == size).all()
    assert weights.mean(axis=1) == pytest.approx(np.ones(9), abs=0.06)
    # The weight of one of five drawn five times is binomial (5, 1/5): its variance is 0.8.
    assert weights[3:8].var(axis=1) == pytest.approx(np.full(5, 0.8), abs=0.08)


def test_many_images_are_resampled_a_few_resamples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_har.evaluation.resampling.BLOCK_CELLS", 1)
    blocks = list(stratified_weights(np.array([4, 4]), seed=0, resamples=20))
    assert [block.shape for block in blocks] == [(8, 8), (8, 8), (8, 4)]


@pytest.mark.parametrize("cells", [0, 10**6], ids=["linearised", "ranked"])
@pytest.mark.parametrize("name", CASES)
def test_a_resample_that_draws_each_image_once_gives_every_metric_itself(
    name: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "RANKED_CELLS", cells)
    monkeypatch.setattr(
        "clip_har.evaluation.resampling.stratified_weights", lambda sizes_C, **_: iter([np.ones((sizes_C.sum(), 1))])
    )
    scores, targets = CASES[name]
    classes = [f"class {index}" for index in range(scores.shape[1])]
    found = metrics_module.measured(scores, targets, classes=classes, resamples=1)
    assert {key: sample.item() for key, sample in found.samples.items()} == pytest.approx(found.metrics.scalars())


def naive_resamples(scores: Scores, targets: Targets, resamples: int) -> dict[str, npt.NDArray[np.float64]]:
    """Images drawn within their classes, and every metric computed anew, one resample after the other."""
    rng = np.random.default_rng(99)
    groups = [np.flatnonzero(targets == index) for index in np.unique(targets)]
    found: dict[str, list[float]] = {name: [] for name in ("accuracy", "macro_f1", "precision of 1", "map", "log_loss")}
    for _ in range(resamples):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        s, t = scores[drawn], targets[drawn]
        p = s.argmax(axis=1)
        found["accuracy"].append((p == t).mean())
        counts = [(((p == c) & (t == c)).sum(), (p == c).sum(), (t == c).sum()) for c in np.unique(t)]
        found["macro_f1"].append(np.mean([2 * right / (answered + true) for right, answered, true in counts]))
        found["precision of 1"].append(((p == 1) & (t == 1)).sum() / max((p == 1).sum(), 1))
        found["map"].append(np.mean([average_precision_score(t == index, s[:, index]) for index in np.unique(t)]))
        found["log_loss"].append(-np.log(s[np.arange(len(t)), t]).mean())
    return {name: np.array(values) for name, values in found.items()}


def test_intervals_are_those_of_naive_stratified_resamples() -> None:
    scores, targets = random_case(7, 150, 4)
    metrics = measure(scores, targets, resamples=4000)
    naive = {name: np.percentile(values, [2.5, 97.5]) for name, values in naive_resamples(scores, targets, 800).items()}
    assert metrics.intervals["accuracy"] == pytest.approx(naive["accuracy"], abs=0.015)
    assert metrics.intervals["macro_f1"] == pytest.approx(naive["macro_f1"], abs=0.015)
    assert metrics.per_class[1].precision_ci95 == pytest.approx(naive["precision of 1"], abs=0.025)
    assert metrics.intervals["mean_average_precision"] == pytest.approx(naive["map"], abs=0.015)
    assert metrics.intervals["log_loss"] == pytest.approx(naive["log_loss"], abs=0.03)


def test_resampled_average_precision_is_that_of_the_images_drawn() -> None:
    for scores, targets in (random_case(1, 40, 3), coarse_case(2, 40, 3)):
        own = targets == 1
        sizes = np.array([int((~own).sum()), int(own.sum())])
        order = np.argsort(own, kind="stable")  # the class's images last
        (weights,) = stratified_weights(sizes, seed=0, resamples=25)
        found = resampled_average_precision(rank(scores[order, 1], own[order]), weights)
        for resample in range(25):
            drawn = np.repeat(order, weights[:, resample].astype(int))
            expected = average_precision_score(own[drawn], scores[drawn, 1])
            assert found[resample] == pytest.approx(expected)


def test_slopes_of_average_precision_are_its_derivatives() -> None:
    for scores, targets in (random_case(1, 30, 3), coarse_case(2, 30, 3)):
        own = targets == 1
        ranking = rank(scores[:, 1], own)
        slopes = influence(ranking, 30)
        step = 1e-6
        for image in range(30):
            # Own images are moved against one another: their total weight is fixed.
            weights = np.ones((30, 2))
            weights[image] += (step, -step)
            other = np.flatnonzero(own)[0]
            if own[image]:
                weights[other] -= (step, -step)
            up, down = resampled_average_precision(ranking, weights)
            expected = slopes[image] - (slopes[other] if own[image] else 0.0)
            assert (up - down) / (2 * step) == pytest.approx(expected, abs=1e-6)


def test_where_rankings_cost_too_much_their_slopes_give_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = random_case(8, 1500, 5)
    exact = measure(scores, targets, resamples=2000)
    monkeypatch.setattr(metrics_module, "RANKED_CELLS", 0)
    linear = measure(scores, targets, resamples=2000)
    assert linear.mean_average_precision == exact.mean_average_precision
    low, high = exact.intervals["mean_average_precision"]
    assert linear.intervals["mean_average_precision"] == pytest.approx((low, high), abs=0.1 * (high - low))
    for one, other in zip(linear.per_class, exact.per_class, strict=True):
        width = np.ptp(other.average_precision_ci95)
        assert one.average_precision_ci95 == pytest.approx(other.average_precision_ci95, abs=0.12 * width)


@pytest.mark.parametrize("metric", ["ece", "ece_adaptive"])
def test_the_interval_of_a_calibration_error_is_not_pushed_up_by_its_own_noise(metric: str) -> None:
    """Of a calibrated model, resamples show more error than the images do; the interval lies around the value."""
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, 300)
    targets = (rng.uniform(size=300) > top).astype(np.int64)
    found = measure(np.stack([top, 1 - top], axis=1), targets, resamples=1000)
    low, high = found.intervals[metric]
    middle = (low + high) / 2
    assert abs(middle - getattr(found, metric)) < 0.25 * (high - low)


def test_differences_are_drawn_in_pairs() -> None:
    scores, targets = random_case(5, 300, 6)
    sharper = scores**1.2 / (scores**1.2).sum(axis=1, keepdims=True)
    result = evaluate(
        classes=[str(index) for index in range(6)],
        paths=["x"] * 300,
        targets_N=targets,
        baseline_NC=scores,
        finetuned_NC=sharper,
    )
    assert result.finetuned is not None
    assert list(result.differences) == list(SCALARS)
    # The answers are the same, so accuracy cannot differ; the log loss differs by far less than it varies.
    assert result.differences["accuracy"] == result.difference_ci95 == (0.0, 0.0)
    low, high = result.differences["log_loss"]
    gain = result.finetuned.metrics.log_loss - result.baseline.metrics.log_loss
    assert low < gain < high
    own_low, own_high = result.baseline.metrics.intervals["log_loss"]
    assert high - low < 0.5 * (own_high - own_low)
    per_image = -np.log(sharper[np.arange(300), targets]) + np.log(scores[np.arange(300), targets])
    within = sum(per_image[targets == index].var() * (targets == index).sum() for index in range(6)) / 300**2
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(within), rel=0.1)


def test_the_metrics_where_less_is_better_are_among_the_metrics() -> None:
    assert set(SCALARS) > LOWER_IS_BETTER


# --- what is read ---------------------------------------------------------------------------------------


def test_a_memory_map_is_read_in_chunks_to_the_same_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = random_case(6, 90, 7)
    single = scores.astype(np.float32)
    np.save(tmp_path / "scores.npy", single)
    whole = measure(single, targets)
    monkeypatch.setattr(scoring_module, "CHUNK_CELLS", 40)
    monkeypatch.setattr("clip_har.evaluation.ranking.COLUMN_BYTES", 800)
    mapped = measure(np.load(tmp_path / "scores.npy", mmap_mode="r"), targets)
    assert mapped.to_json() == whole.to_json()


def test_bad_rows_are_counted_over_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_module, "CHUNK_CELLS", 12)
    scores, targets = random_case(0, 20, 4)
    scores[[1, 2, 17], 0] = np.nan
    with pytest.raises(Exception, match="not finite for 3 of 20 images"):
        read_scores(scores, targets, 4)


def test_average_precision_of_a_perfect_and_of_a_reversed_ranking() -> None:
    own = np.array([True, True, False, False])
    assert average_precision(rank(np.array([4.0, 3.0, 2.0, 1.0]), own)) == 1.0
    assert average_precision(rank(np.array([1.0, 2.0, 3.0, 4.0]), own)) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(rank(np.ones(4), own)) == 0.5
