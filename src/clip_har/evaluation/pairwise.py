"""Paired tests between any two entries of a comparison, corrected for their number.

The tests themselves are in `statistics`; a row's own test against zero-shot is in `comparison`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clip_har.evaluation.records import BoolArray, EvalResult
from clip_har.evaluation.statistics import flip_p, mcnemar_p


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Whether two entries are right equally often on the same images."""

    first: str
    second: str
    difference: float
    """Accuracy of the second minus that of the first, means over seeds."""
    p: float
    """Two-sided, not corrected."""
    p_holm: float
    """Corrected for all pairs of the comparison."""
    test: str
    """mcnemar, or sign-flip where an entry has several seeds."""


def pairwise_tests(results: Mapping[str, Mapping[int, EvalResult]]) -> tuple[PairedTest, ...]:
    """Every pair of entries, the rows of the upper triangle of their matrix one after the other.

    One training each: McNemar's test. Several: the sign-flip test on the images' mean answers (`sign_flip_p`), whose
    statement is about these trainings on other images.

    Args:
        results: entry -> training seed -> its evaluation, all on the same images.
    """
    correct = {name: _correct(list(by_seed.values())) for name, by_seed in results.items()}
    _check_same_images([result for by_seed in results.values() for result in by_seed.values()])
    pairs = list(itertools.combinations(correct, 2))
    raw = [_p(correct[first], correct[second]) for first, second in pairs]
    return tuple(
        PairedTest(
            first=first,
            second=second,
            difference=float(correct[second].mean() - correct[first].mean()),
            p=p,
            p_holm=p_holm,
            test=test,
        )
        for (first, second), (p, test), p_holm in zip(pairs, raw, holm([p for p, _ in raw]), strict=True)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false rejection among them stays below the level.

    The i-th smallest of m counts m - i + 1 times, and none falls below a smaller one (Holm 1979, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6).
    """
    order = np.argsort(p_values, kind="stable")
    counted = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(counted), 1.0)
    return [float(p) for p in corrected]


def _correct(evaluations: Sequence[EvalResult]) -> BoolArray:
    """Rightness [S, N]; one row where all trainings answer alike, as zero-shot does whatever the seed."""
    correct_SN = np.array([result.best.predictions == result.targets_N for result in evaluations])
    return correct_SN[:1] if (correct_SN == correct_SN[0]).all() else correct_SN


def _p(first_SN: BoolArray, second_SN: BoolArray) -> tuple[float, str]:
    if len(first_SN) == len(second_SN) == 1:
        return mcnemar_p(first_SN[0], second_SN[0]), "mcnemar"
    seeds = math.lcm(len(first_SN), len(second_SN))
    sums = [rows.sum(axis=0, dtype=np.int64) * (seeds // len(rows)) for rows in (first_SN, second_SN)]
    return flip_p(sums[1] - sums[0]), "sign-flip"


def _check_same_images(evaluations: Sequence[EvalResult]) -> None:
    for other in evaluations[1:]:
        if other.paths != evaluations[0].paths or not np.array_equal(other.targets_N, evaluations[0].targets_N):
            raise ValueError("entries can only be tested against one another on the same images")
