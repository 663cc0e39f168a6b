"""Temperature, abstaining and conformal sets against naive versions, and their promises on data made to order."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from sklearn.calibration import calibration_curve

from clip_har.errors import ModelError
from clip_har.evaluation import Calibration, calibrate, check_confidence, expected_calibration_error
from clip_har.evaluation.calibration import fit_temperature, reliability, scaled, trusted_temperature
from clip_har.evaluation.confidence import (
    SHOWN_LEVELS,
    SelectiveStep,
    conformal_threshold,
    least_accuracy,
    risk_coverage,
    selective_steps,
)
from clip_har.experiment.confidence import too_few_images

Scores = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]


def softmax(logits: Scores) -> Scores:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Scores = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def drawn(seed: int, n: int, n_classes: int, sharpness: float = 1.0) -> tuple[Scores, Targets]:
    """Scores whose truth is drawn from them, then sharpened: the right temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    honest = softmax(logits)
    targets = (honest.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1).clip(max=n_classes - 1)
    return softmax(logits * sharpness), targets


# --- temperature ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_sharpened_the_scores(sharpness: float) -> None:
    scores, targets = drawn(0, 4000, 6, sharpness)
    assert fit_temperature(scores, targets) == pytest.approx(sharpness, rel=0.06)


def test_the_temperature_is_the_best_of_a_grid() -> None:
    scores, targets = drawn(1, 300, 5, 2.0)
    rows = np.arange(300)

    def loss(temperature: float) -> float:
        logs = np.log(softmax(np.log(scores) / temperature)[rows, targets])
        return float(-logs.sum() + math.log(temperature) ** 2 / 2)

    grid = np.geomspace(0.1, 10, 2000)
    assert fit_temperature(scores, targets) == pytest.approx(min(grid, key=loss), rel=0.003)


def test_a_model_without_mistakes_on_few_images_does_not_become_certain() -> None:
    scores = np.array([[0.7, 0.3], [0.4, 0.6]])
    assert 0.3 < fit_temperature(scores, np.array([0, 1])) < 1
    many = fit_temperature(np.repeat(scores, 500, axis=0), np.repeat([0, 1], 500))
    assert many < 0.2


def test_scaling_keeps_the_order_and_takes_zeros() -> None:
    scores = np.array([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    flatter = scaled(scores, 2.0)
    assert flatter.sum(axis=1) == pytest.approx([1, 1])
    assert flatter[0, 2] == pytest.approx(0.8**0.5 / (0.2**0.5 + 0.8**0.5))
    assert (flatter.argsort(axis=1)[:, -1] == [2, 0]).all() and np.isfinite(flatter).all()
    np.testing.assert_allclose(scaled(scores, 1.0), scores, atol=1e-12)


def test_temperature_scaling_lowers_the_calibration_error_of_an_overconfident_model() -> None:
    val, test = drawn(2, 1500, 8, 2.5), drawn(3, 1500, 8, 2.5)
    found = check_confidence(calibrate(*val), *test)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.ece_before > 0.15 and found.ece_after < 0.05


def test_a_temperature_that_only_the_unlikely_classes_want_is_not_used() -> None:
    """The answer's confidence is true, but what is no answer comes true more evenly than the scores say."""
    rng = np.random.default_rng(4)
    n, n_classes = 2000, 10
    scores = np.full((n, n_classes), 0.3 * 0.01 / 8)
    scores[:, 0], scores[:, 1] = 0.7, 0.3 * 0.99
    right = rng.uniform(size=n) < 0.7
    targets = np.where(right, 0, rng.integers(1, n_classes, n))
    assert fit_temperature(scores, targets) > 1.2
    assert trusted_temperature(scores, targets) == 1.0
    sure = scaled(scores, 0.4)  # now the confidence is wrong as well
    assert trusted_temperature(sure, targets) == fit_temperature(sure, targets) > 1.5


def test_a_temperature_within_chance_is_not_used() -> None:
    honest = [drawn(seed, 200, 5) for seed in range(40)]
    used = [trusted_temperature(*scores) != 1.0 for scores in honest]
    assert sum(used) <= 6  # 2 of 40 in the mean
    assert all(trusted_temperature(*drawn(seed, 200, 5, 2.5)) > 1.5 for seed in range(10))


def test_reliability_bins_are_scikit_learns_and_give_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 400)
    correct = rng.uniform(size=400) < confidence**2
    bins = reliability(confidence, correct)
    assert [(b.lower, b.upper) for b in bins] == [(i / 15, (i + 1) / 15) for i in range(15)]
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=15)
    filled = [b for b in bins if b.count]
    assert [b.accuracy for b in filled] == pytest.approx(accuracies)
    assert [b.confidence for b in filled] == pytest.approx(confidences)
    error = sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / 400
    assert error == pytest.approx(expected_calibration_error(confidence, correct))
    assert [(b.confidence, b.accuracy) for b in bins if not b.count] == [(0, 0)] * sum(not b.count for b in bins)


# --- conformal sets -------------------------------------------------------------------------------------


def test_the_conformal_threshold_is_the_finite_sample_quantile() -> None:
    scores = np.array([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6])  # of 9: 0.9 asks for the 9th, 0.8 for the 8th
    assert conformal_threshold(scores, 0.9) == 0.9
    assert conformal_threshold(scores, 0.8) == 0.8
    assert conformal_threshold(scores, 0.81) == 0.9
    assert conformal_threshold(scores, 0.91) == 1.0  # nine images cannot say more than 0.9
    assert conformal_threshold(scores[:1], 0.5) == 0.5


@pytest.mark.parametrize("n", [19, 60])
def test_conformal_sets_cover_as_often_as_stated_whatever_the_model(n: int) -> None:
    covered = []
    for seed in range(400):
        scores, targets = drawn(seed, n + 200, 5, 3.0)
        calibration = calibrate(scores[:n], targets[:n])
        level = next(e for e in check_confidence(calibration, scores[n:], targets[n:]).conformal if e.level == 0.9)
        covered.append(level.coverage)
    assert 0.89 <= np.mean(covered) <= 0.9 + 1 / (n + 1) + 0.015


def test_sets_against_a_loop() -> None:
    val, test = drawn(0, 80, 4), drawn(1, 60, 4)
    calibration = calibrate(*val)
    found = check_confidence(calibration, *test)
    assert [entry.level for entry in found.conformal] == list(SHOWN_LEVELS)
    for entry in found.conformal:
        honest = scaled(test[0], calibration.temperature)
        sets = [{k for k in range(4) if 1 - row[k] <= entry.threshold} for row in honest]
        assert entry.coverage == pytest.approx(np.mean([t in s for t, s in zip(test[1], sets, strict=True)]))
        assert entry.mean_size == pytest.approx(np.mean([len(s) for s in sets]))
        assert entry.empty == pytest.approx(np.mean([not s for s in sets]))


def test_levels_between_those_kept_take_the_next_higher() -> None:
    calibration = calibrate(*drawn(0, 2000, 4))
    assert calibration.set_threshold(0.9) == calibration.conformal[0.9] < calibration.conformal[0.91]
    assert calibration.set_threshold(0.901) == calibration.conformal[0.91]
    assert calibration.set_threshold(0.3) == calibration.conformal[0.5]
    assert calibration.set_threshold(0.9999) == 1.0


# --- abstaining -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "answered"), [(0, 5), (3, 5), (50, 50), (180, 200)])
def test_the_bound_is_the_accuracy_at_which_so_many_right_answers_are_a_one_in_ten_surprise(
    right: int, answered: int
) -> None:
    bound = least_accuracy(right, answered)
    if right == 0:
        assert bound == 0
    else:
        assert binom.sf(right - 1, answered, bound) == pytest.approx(0.1)


def test_steps_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=73)
    correct = rng.uniform(size=73) < confidence
    ranked = sorted(range(73), key=lambda index: -confidence[index])
    steps = selective_steps(confidence, correct)
    assert [step.answered for step in steps] == [math.ceil(73 * number / 20) for number in range(1, 21)]
    for step in steps:
        assert step.right == sum(correct[i] for i in ranked[: step.answered])
        assert step.answered == sum(value >= step.threshold for value in confidence)
    assert steps[-1].threshold == 0.0


def test_equal_confidences_are_answered_together_or_not_at_all() -> None:
    confidence = np.array([0.9] * 5 + [0.5] * 15)
    correct = np.array([True] * 5 + [False] * 15)
    steps = selective_steps(confidence, correct)
    assert [(step.answered, step.right) for step in steps] == [(5, 5), (20, 5)]
    assert 0.5 < steps[0].threshold <= 0.9
    (only,) = selective_steps(np.array([0.7]), np.array([True]))
    assert (only.threshold, only.answered) == (0.0, 1)


def calibration_with(*steps: tuple[float, int, int]) -> Calibration:
    made = tuple(SelectiveStep(threshold=t, answered=answered, right=right) for t, answered, right in steps)
    return Calibration(images=1000, temperature=1.0, conformal={}, selective=made)


def test_the_threshold_is_the_last_before_the_promise_fails() -> None:
    calibration = calibration_with((0.9, 10, 10), (0.8, 100, 99), (0.7, 200, 197), (0.6, 300, 270), (0.0, 400, 399))
    # Ten right answers of ten promise 79 %: too few images for 95 %, which is no failure. 270 of 300 is one, and what
    # comes after it does not count.
    assert calibration.abstain_threshold(0.95) == 0.7
    assert calibration.abstain_threshold(0.75) == 0.0
    assert calibration.abstain_threshold(0.999) is None
    assert calibration_with((0.9, 100, 60), (0.0, 200, 200)).abstain_threshold(0.9) is None


def test_the_promised_accuracy_is_missed_at_most_one_time_in_ten() -> None:
    missed, promised = 0, 0
    for seed in range(300):
        scores, targets = drawn(seed, 4300, 4)
        threshold = calibrate(scores[:300], targets[:300]).abstain_threshold(0.85)
        if threshold is None:
            continue
        promised += 1
        confidence = calibrate(scores[:300], targets[:300]).confidence(scores[300:])
        answered = confidence.max(axis=1) >= threshold
        right = confidence.argmax(axis=1) == targets[300:]
        missed += right[answered].mean() < 0.85
    assert promised > 200
    assert missed / 300 <= 0.12


@pytest.mark.parametrize("count", [1, 6, 9, 10, 11, 19, 22, 45, 98, 99, 229, 230])
def test_the_levels_warned_of_are_those_that_perfect_predictions_of_as_many_images_do_not_give(count: int) -> None:
    targets = np.arange(count) % 2
    perfect = calibrate(np.eye(2)[targets], targets)
    said = too_few_images(count) or ""
    sets = said.partition("--coverage")[2].partition("--accuracy")[0]
    accuracies = said.partition("--accuracy")[2]
    for level in SHOWN_LEVELS:
        assert (f" {level} (requires" in sets) == (perfect.conformal[level] == 1)
        assert (f" {level} (requires" in accuracies) == (least_accuracy(count, count) < level)
    assert bool(said) == (count < 230)


def naive_area(confidence: Scores, correct: npt.NDArray[np.bool_]) -> float:
    order = sorted(range(len(confidence)), key=lambda index: -confidence[index])
    rates = [np.mean([not correct[i] for i in order[:k]]) for k in range(1, len(order) + 1)]
    return float(np.mean(rates))


def test_the_risk_coverage_curve_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=120)
    correct = rng.uniform(size=120) < confidence
    points, area = risk_coverage(confidence, correct)
    assert area == pytest.approx(naive_area(confidence, correct))
    assert points[-1] == pytest.approx((1.0, 1 - correct.mean()))
    for coverage, error in points:
        surest = np.argsort(-confidence)[: round(coverage * 120)]
        assert error == pytest.approx(1 - correct[surest].mean())
    many, _ = risk_coverage(rng.uniform(size=5000), rng.uniform(size=5000) < 0.5)
    assert len(many) == 200 and many[0][0] == 1 / 5000 and many[-1][0] == 1.0


def test_the_area_of_ties_is_the_mean_over_their_orders() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    correct = np.array([True, True, False, False])
    points, area = risk_coverage(confidence, correct)
    assert points == ((0.25, 0.0), (1.0, 0.5))
    by_hand = [[0, 0, 1 / 3, 2 / 4], [0, 1 / 2, 1 / 3, 2 / 4], [0, 1 / 2, 2 / 3, 2 / 4]]  # the right one 1st, 2nd, 3rd
    assert area == pytest.approx(np.mean(by_hand))


# --- the whole ------------------------------------------------------------------------------------------


def test_a_calibration_comes_back_from_json_with_the_same_answers() -> None:
    calibration = calibrate(*drawn(0, 200, 5))
    again = Calibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert again == calibration


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_images_promises_nothing_and_sets_hold_every_class(n: int) -> None:
    scores, targets = drawn(0, n, 4)
    calibration = calibrate(scores, targets)
    assert calibration.images == n
    assert calibration.set_threshold(0.9) == 1.0
    assert calibration.abstain_threshold(0.9) is None
    found = check_confidence(calibration, scores, targets)
    assert {entry.coverage for entry in found.conformal} == {1.0}
    assert {(point.threshold, point.coverage, point.accuracy) for point in found.selective} == {(None, 0.0, 0.0)}


def test_scores_that_are_not_finite_are_refused() -> None:
    scores, targets = drawn(0, 10, 4)
    scores[3, 1] = np.nan
    with pytest.raises(ModelError, match="not finite for 1 of 10 images"):
        calibrate(scores, targets)
