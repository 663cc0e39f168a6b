"""Tests between any two entries of a comparison, and Holm's correction, against naive versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from clip_har.evaluation import EvalResult, evaluate, mcnemar_p, pairwise_tests, sign_flip_p
from clip_har.evaluation.pairwise import holm
from clip_har.report.comparison_tables import pairwise_csv

Bools = npt.NDArray[np.bool_]


def result_of(correct: Bools, **changes: Any) -> EvalResult:
    targets = np.arange(len(correct)) % 3
    answers = np.eye(3)[np.where(correct, targets, (targets + 1) % 3)]
    settings: dict[str, Any] = {
        "classes": ["a", "b", "c"],
        "paths": [f"{index}.jpg" for index in range(len(correct))],
        "targets_N": targets,
        "baseline_NC": np.eye(3)[targets],
        "finetuned_NC": answers,
    }
    return evaluate(**(settings | changes))


def random_bools(seed: int, share: float, n: int = 60) -> Bools:
    drawn: Bools = np.random.default_rng(seed).uniform(size=n) < share
    return drawn


def naive_holm(p_values: list[float]) -> list[float]:
    """Holm's steps: each level is rejected while all smaller p-values are."""
    corrected = []
    for p in p_values:
        smaller = sorted(other for other in p_values if other <= p)
        steps = [value * (len(p_values) - i) for i, value in enumerate(sorted(p_values)) if value <= smaller[-1]]
        corrected.append(min(1.0, max(steps)))
    return corrected


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.01, 0.03], [0.5, 0.5, 0.001], [1.0, 0.9, 0.8], []])
def test_holm_against_its_steps(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(naive_holm(p_values))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_every_pair_is_tested_once() -> None:
    answers = {"x": random_bools(0, 0.5), "y": random_bools(1, 0.7), "z": random_bools(2, 0.9)}
    tests = pairwise_tests({name: {0: result_of(correct)} for name, correct in answers.items()})
    assert [(test.first, test.second) for test in tests] == [("x", "y"), ("x", "z"), ("y", "z")]
    for test in tests:
        first, second = answers[test.first], answers[test.second]
        assert test.p == mcnemar_p(first, second) and test.test == "mcnemar"
        assert test.difference == pytest.approx(second.mean() - first.mean())
    assert [test.p_holm for test in tests] == pytest.approx(holm([test.p for test in tests]))
    lines = pairwise_csv(tests).splitlines()
    assert lines[0] == "first,second,difference,p,p_holm,test" and len(lines) == 4
    assert lines[1].startswith("x,y,") and lines[1].endswith(",mcnemar")


def test_seeds_are_tested_together_and_alike_ones_count_once() -> None:
    steady, seeds = random_bools(0, 0.5), [random_bools(seed, 0.7) for seed in (1, 2, 3)]
    results = {
        "zero-shot": {seed: result_of(steady) for seed in (0, 1, 2)},
        "lora": {seed: result_of(correct) for seed, correct in enumerate(seeds)},
    }
    (test,) = pairwise_tests(results)
    assert test.test == "sign-flip"
    assert test.p == pytest.approx(sign_flip_p(steady, np.array(seeds)))
    (backwards,) = pairwise_tests(dict(reversed(results.items())))
    assert backwards.p == pytest.approx(test.p) and backwards.difference == pytest.approx(-test.difference)


def test_two_entries_of_several_seeds_against_all_flips() -> None:
    first = np.array([random_bools(seed, 0.5, 9) for seed in (0, 1)])
    second = np.array([random_bools(seed, 0.8, 9) for seed in (2, 3, 4)])
    results = {
        "first": {seed: result_of(row) for seed, row in enumerate(first)},
        "second": {seed: result_of(row) for seed, row in enumerate(second)},
    }
    differences = 2 * second.sum(axis=0) - 3 * first.sum(axis=0)
    signs = 1 - 2 * ((np.arange(2**9)[:, None] >> np.arange(9)) & 1)
    expected = (np.abs(signs @ differences) >= abs(differences.sum())).mean()
    assert pairwise_tests(results)[0].p == pytest.approx(expected)


def test_other_images_are_refused() -> None:
    one, other = result_of(random_bools(0, 0.5)), result_of(random_bools(0, 0.5), paths=["x"] * 60)
    with pytest.raises(ValueError, match="same images"):
        pairwise_tests({"one": {0: one}, "other": {0: other}})


def test_a_single_entry_has_no_pairs() -> None:
    assert pairwise_tests({"one": {0: result_of(random_bools(0, 0.5))}}) == ()
