"""Rows of a comparison over one seed and several, and their intervals and tests, against naive loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clip_har.evaluation import (
    SCALARS,
    ComparisonRow,
    EvalResult,
    baseline_row,
    comparison_row,
    evaluate,
    interval_over_seeds,
    mcnemar_p,
    sign_flip_p,
    stratified_weights,
)
from clip_har.evaluation.statistics import flip_p

Bools = npt.NDArray[np.bool_]
N_CLASSES = 4


def answers(correct: Bools, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Certain answers, right where they are to be right and the next class elsewhere."""
    scores: npt.NDArray[np.float64] = np.eye(N_CLASSES)[np.where(correct, targets, (targets + 1) % N_CLASSES)]
    return scores


def result_of(correct: Bools, before: Bools, **changes: Any) -> EvalResult:
    targets = np.arange(len(correct)) % N_CLASSES
    settings: dict[str, Any] = {
        "classes": ["a", "b", "c", "d"],
        "paths": [f"{index}.jpg" for index in range(len(correct))],
        "targets_N": targets,
        "baseline_NC": answers(before, targets),
        "finetuned_NC": answers(correct, targets),
    }
    return evaluate(**(settings | changes))


def row_of(*results: EvalResult, **changes: Any) -> ComparisonRow:
    settings: dict[str, Any] = {
        "trainable_params": 10,
        "trainable_fraction": 0.1,
        "peak_memory_bytes": [100 * (index + 1) for index in range(len(results))],
        "train_seconds": [float(2 * index + 1) for index in range(len(results))],
    }
    return comparison_row("lora-attention", "lora", dict(enumerate(results, start=5)), **(settings | changes))


def random_bools(seed: int, share: float, *shape: int) -> Bools:
    drawn: Bools = np.random.default_rng(seed).uniform(size=shape) < share
    return drawn


def test_a_row_of_one_seed_is_its_evaluation() -> None:
    before, after = random_bools(0, 0.5, 80), random_bools(1, 0.8, 80)
    result = result_of(after, before)
    row = row_of(result, note="mixed at 0.6")
    metrics = result.best.metrics
    assert (row.name, row.method, row.seeds) == ("lora-attention", "lora", (5,))
    assert row.accuracy == metrics.accuracy == after.mean()
    assert row.accuracies == (metrics.accuracy,)
    assert row.accuracy_ci95 == metrics.accuracy_ci95
    assert (row.accuracy_std, row.macro_f1_std) == (None, None)
    assert (row.macro_f1, row.ece) == (metrics.macro_f1, metrics.ece)
    assert row.mcnemar_p == mcnemar_p(before, after) == result.mcnemar_p
    assert (row.paired_test, row.collapsed, row.note) == ("mcnemar", False, "mixed at 0.6")
    assert (row.peak_memory_bytes, row.train_seconds) == (100, 1.0)


def test_a_row_of_several_seeds() -> None:
    before = np.arange(40) < 20
    seeds = [np.arange(40) < count for count in (30, 34, 38)]
    results = [result_of(correct, before) for correct in seeds]
    row = row_of(*results)
    assert row.seeds == (5, 6, 7)
    assert row.accuracies == (0.75, 0.85, 0.95)
    assert row.accuracy == pytest.approx(0.85)
    assert row.accuracy_std == pytest.approx(0.1)  # of 0.75, 0.85, 0.95 with n - 1 below the line
    f1s = [result.best.metrics.macro_f1 for result in results]
    assert row.macro_f1 == pytest.approx(sum(f1s) / 3)
    assert row.macro_f1_std == pytest.approx(np.std(f1s, ddof=1))
    assert row.ece == pytest.approx(np.mean([result.best.metrics.ece for result in results]))
    assert (row.peak_memory_bytes, row.train_seconds) == (300, 3.0)
    assert row.mcnemar_p == sign_flip_p(before, np.array(seeds))
    assert row.paired_test == "sign-flip"
    assert row.accuracy_ci95[0] < 0.75 and row.accuracy_ci95[1] > 0.9


def test_costs_that_were_not_measured() -> None:
    result = result_of(random_bools(0, 0.5, 20), random_bools(1, 0.5, 20))
    row = row_of(result, result, peak_memory_bytes=[None, 70], train_seconds=[None, None])
    assert (row.peak_memory_bytes, row.train_seconds) == (70, None)


def test_zero_shot_has_no_p_and_no_spread() -> None:
    before = random_bools(0, 0.5, 60)
    result = result_of(before, before, finetuned_NC=None)
    row = row_of(result, result)
    assert row.mcnemar_p is None and row.paired_test is None
    assert row.accuracy_std == 0.0
    assert row.accuracy_ci95 == result.baseline.metrics.accuracy_ci95


def test_a_collapse_of_any_seed_is_in_the_row() -> None:
    before = random_bools(0, 0.5, 100)
    sound = result_of(random_bools(1, 0.8, 100), before)
    collapsed = result_of(before, before, finetuned_NC=np.eye(N_CLASSES)[[2] * 95 + [1] * 5])
    assert row_of(collapsed).collapsed
    assert row_of(collapsed).note == "predicts c for 95% of the images"
    both = row_of(sound, collapsed)
    assert both.collapsed
    assert both.note.startswith("1 of 2 seeds predict one class for over 90% of the images (c)")
    assert not row_of(sound, sound).collapsed


def test_a_mean_above_zero_shot_does_not_hide_a_seed_below() -> None:
    before = np.arange(40) < 20
    results = [result_of(np.arange(40) < count, before) for count in (18, 39, 39)]
    assert row_of(*results).note == "1 of 3 seeds is below zero-shot"
    assert row_of(*results[1:]).note == ""
    assert row_of(results[0], results[0]).note == ""  # the mean itself says it


def test_seeds_of_other_images_or_another_baseline_are_refused() -> None:
    first = result_of(random_bools(0, 0.5, 20), random_bools(1, 0.5, 20))
    renamed = result_of(random_bools(0, 0.5, 20), random_bools(1, 0.5, 20), paths=["x.jpg"] * 20)
    rebased = result_of(random_bools(0, 0.5, 20), random_bools(2, 0.5, 20))
    with pytest.raises(ValueError, match="same images"):
        row_of(first, renamed)
    with pytest.raises(ValueError, match="same zero-shot"):
        row_of(first, rebased)
    with pytest.raises(ValueError, match="at least one"):
        row_of()
    with pytest.raises(ValueError, match="1 evaluations, 2 peak memories"):
        row_of(first, peak_memory_bytes=[1, 2])


def naive_sign_flip_p(before: Bools, after: Bools) -> float:
    """All flips of the differences' signs, one by one."""
    differences = after.sum(axis=0) - len(after) * before.astype(int)
    observed = abs(differences.sum())
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    return sum(bool(abs(np.dot(signs, differences)) >= observed) for signs in flips) / len(flips)


@pytest.mark.parametrize("seed", range(6))
def test_sign_flips_against_all_flips_one_by_one(seed: int) -> None:
    before = random_bools(seed, 0.4, 11)
    after = random_bools(seed + 100, 0.7, 1 + seed % 4, 11)
    assert sign_flip_p(before, after) == pytest.approx(naive_sign_flip_p(before, after))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (6, 0), (5, 1), (3, 9), (12, 12)])
def test_sign_flips_of_one_training_are_the_exact_mcnemar_test(gained: int, lost: int) -> None:
    before = np.array([False] * gained + [True] * lost + [True] * 10)
    after = np.array([True] * gained + [False] * lost + [True] * 10)
    assert sign_flip_p(before, after[None]) == pytest.approx(mcnemar_p(before, after))


def test_sign_flips_of_many_images_neither_overflow_nor_vanish() -> None:
    before, after = random_bools(0, 0.6, 5400), random_bools(1, 0.62, 5, 5400)
    p = sign_flip_p(before, after)
    assert 0.0 < p <= 1.0
    assert sign_flip_p(before, np.stack([before] * 5)) == 1.0
    with pytest.raises(ValueError, match="shape"):
        sign_flip_p(before, after[:, 1:])


@pytest.mark.parametrize("skill", [0.6, 0.62, 0.75])
def test_sign_flips_of_some_thousand_images_against_the_whole_distribution(skill: float) -> None:
    before, after = random_bools(0, 0.6, 4000), random_bools(1, skill, 3, 4000)
    differences = after.sum(axis=0) - 3 * before.astype(int)
    chances = np.ones(1)  # of every sum, with nothing left out
    for size in np.abs(differences)[differences != 0]:
        chances = np.concatenate([chances, np.zeros(size)]) / 2 + np.concatenate([np.zeros(size), chances]) / 2
    sums = 2 * np.arange(len(chances)) - (len(chances) - 1)
    expected = chances[np.abs(sums) >= abs(differences.sum())].sum()
    assert sign_flip_p(before, after) == pytest.approx(expected, rel=1e-8)


def test_sign_flips_take_time_by_the_images_and_not_by_their_square() -> None:
    counted = 0

    def convolve(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        nonlocal counted
        counted += len(a) * len(b)
        return original(a, b)

    original = np.convolve
    differences = np.random.default_rng(0).integers(-5, 6, 100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "convolve", convolve)
        p = flip_p(differences)
    # As good as normal with so many: P(|Z| >= the sum in units of its deviation).
    deviation = math.sqrt((differences**2).sum())
    assert p == pytest.approx(math.erfc(abs(differences.sum()) / deviation / math.sqrt(2)), rel=0.02)
    assert counted < 3e8  # all of them would be above 1e10


def test_sign_flips_reject_about_one_true_null_in_twenty() -> None:
    rejected = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        ease = generator.uniform(size=200)
        before, first, second = (generator.uniform(size=200) < ease for _ in range(3))
        # With two trainings and a baseline of the same skill the means differ by chance alone.
        rejected += sign_flip_p(before, np.array([first, second])) < 0.05
    assert 0.02 <= rejected / 400 <= 0.085


def accuracies_of(correct: Bools, resamples: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Accuracy of each training in resamples of the images: [S, R]."""
    n = correct.shape[1]
    blocks = list(stratified_weights(np.array([n]), seed=seed, resamples=resamples))
    accuracies: npt.NDArray[np.float64] = correct @ np.concatenate(blocks, axis=1) / n
    return accuracies


def over_seeds(correct: Bools, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    samples = accuracies_of(correct, resamples, seed)
    return interval_over_seeds("accuracy", correct.mean(axis=1).tolist(), samples, seed=seed)


def test_the_interval_of_seeds_that_answer_alike_is_that_of_one() -> None:
    correct = random_bools(0, 0.7, 150)
    expected = np.percentile(accuracies_of(correct[None], 2000), [2.5, 97.5])
    assert over_seeds(correct[None]) == pytest.approx(expected)
    assert over_seeds(np.stack([correct] * 4)) == over_seeds(correct[None])


@pytest.mark.parametrize("n_seeds", [2, 3, 6])
def test_the_interval_covers_new_images_and_new_seeds(n_seeds: int) -> None:
    covered, images_alone = 0, 0
    for trial in range(400):
        generator = np.random.default_rng(trial)
        skills = 0.7 + generator.normal(0, 0.05, size=(n_seeds, 1))
        correct = generator.uniform(size=(n_seeds, 400)) < skills
        low, high = over_seeds(correct, 400, seed=trial)
        covered += low <= 0.7 <= high
        half = 1.96 * correct.mean(axis=0).std() / 20
        images_alone += abs(correct.mean() - 0.7) <= half
    # In 400 trials 0.95 is 0.93 to 0.97 by chance; the interval may be a little wide.
    assert 0.93 <= covered / 400 <= 0.99
    assert images_alone / 400 < 0.75


def test_where_seeds_alone_vary_the_interval_is_students() -> None:
    accuracies = [0.6, 0.7, 0.8]
    same_in_all = np.repeat(np.array(accuracies)[:, None], 2000, axis=1)
    low, high = interval_over_seeds("accuracy", accuracies, same_in_all, seed=0)
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), rel=0.01)


def test_the_variance_of_the_interval_is_that_of_images_and_of_seeds() -> None:
    """With many trainings t is close to the normal distribution, and both add up as variances."""
    correct = np.array([np.arange(400) < count for count in np.repeat((270, 280, 290), 20)])
    low, high = over_seeds(correct, 20_000)
    of_images = correct.mean(axis=0).var() / 400
    of_seeds = correct.mean(axis=1).var(ddof=1) / 60
    expected = 2 * 1.96 * float(np.sqrt(of_images + of_seeds))
    assert high - low == pytest.approx(expected, rel=0.03)


def test_every_metric_is_summed_up_over_the_seeds() -> None:
    before = random_bools(0, 0.5, 80)
    results = [result_of(random_bools(seed, 0.8, 80), before) for seed in (1, 2, 3)]
    row = row_of(*results)
    assert list(row.summaries) == list(SCALARS)
    for name, summary in row.summaries.items():
        values = [getattr(result.best.metrics, name) for result in results]
        assert summary.mean == pytest.approx(np.mean(values)), name
        assert summary.std == pytest.approx(np.std(values, ddof=1)), name
        assert summary.ci95[0] <= summary.mean <= summary.ci95[1], name
        one = results[0].best.metrics.intervals[name]
        assert summary.ci95[1] - summary.ci95[0] >= 0.4 * (one[1] - one[0]), name
    (single,) = {name: row_of(results[0]).summaries[name] for name in ["brier"]}.values()
    assert (single.std, single.ci95) == (None, results[0].best.metrics.intervals["brier"])
    assert row.to_json()["metrics"]["brier"]["mean"] == row.summaries["brier"].mean


def test_seeds_of_other_resamples_are_refused() -> None:
    before = random_bools(0, 0.5, 20)
    with pytest.raises(ValueError, match="seed of the bootstrap"):
        row_of(result_of(before, before), result_of(before, before, seed=1))


def test_the_row_of_zero_shot_is_found_by_name_then_by_method() -> None:
    result = result_of(random_bools(0, 0.5, 20), random_bools(1, 0.5, 20))
    settings: dict[str, Any] = {
        "trainable_params": 0,
        "trainable_fraction": 0.0,
        "peak_memory_bytes": [None],
        "train_seconds": [None],
    }
    other = comparison_row("lora", "lora", {0: result}, **settings)
    preset = comparison_row("plain", "zero-shot", {0: result}, **settings)
    named = comparison_row("zero-shot", "zero-shot", {0: result}, **settings)
    assert baseline_row([other, preset, named]) is named
    assert baseline_row([other, preset]) is preset
    assert baseline_row([other]) is None


def test_the_json_of_a_row() -> None:
    before = np.arange(40) < 20
    content = row_of(*(result_of(np.arange(40) < count, before) for count in (30, 34))).to_json()
    assert content["method"] == "lora-attention" and content["base_method"] == "lora"
    assert content["seeds"] == [5, 6] and content["accuracies"] == [0.75, 0.85]
    assert content["accuracy_std"] == pytest.approx(0.1 / 2**0.5)
    assert (
        content["p"] == content["mcnemar_p"] == sign_flip_p(before, np.array([np.arange(40) < 30, np.arange(40) < 34]))
    )
    assert content["paired_test"] == "sign-flip" and content["collapsed"] is False
    assert isinstance(content["accuracy_ci95"], list) and len(content["accuracy_ci95"]) == 2
