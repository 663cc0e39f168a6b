"""Unknown actions: is an image one of the classes at all? Measures of scores that should tell, and their thresholds.

A score is high for images of the known classes. What the scores are computed from is experiment/unknown.py's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
KNOWN_KEPT = 0.95
"""True-positive rate at which the false-positive rate is measured, as in the literature."""
FALSE_ALARMS = 0.05
"""Fraction of the images of known classes that are called unknown by default."""
KEPT_RATES = (0.001, 0.002, 0.005, *(round(step / 100, 2) for step in range(1, 51)))
"""False-alarm rates whose threshold a card keeps; one between them takes that of the next lower."""
CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class UnknownScore:
    """How well one score of one model tells images of the classes from images of other actions."""

    model: str
    """zero-shot, or the run's method."""
    score: str
    """max-softmax, energy, mahalanobis or relative-mahalanobis."""
    auroc: float
    """Probability that an image of the classes scores higher than one of other actions; 0.5 is chance."""
    fpr95: float
    """Fraction of the images of other actions that are accepted where 95 % of the images of the classes are."""
    roc: tuple[tuple[float, float], ...]
    """Points (accepted images of other actions, accepted images of the classes), each in [0, 1]; at most 200."""
    threshold: float | None = None
    """The score below which an image is called unknown, from validation images at `UnknownActions.rate`; None if no
    predictions for images outside the training set give one."""
    false_alarms: float | None = None
    """Fraction of the test images of the classes below the threshold."""
    detected: float | None = None
    """Fraction of the test images of other actions below the threshold."""


@dataclass(frozen=True, kw_only=True)
class UnknownActions:
    """Test images of the held-out classes as unknown actions."""

    classes: tuple[str, ...]
    """The classes held out of training."""
    known: int
    """Test images of the classes trained on."""
    unknown: int
    """Test images of the held-out classes."""
    rate: float
    """False-alarm rate that the thresholds are chosen for, in (0, 1)."""
    scores: tuple[UnknownScore, ...]


def max_softmax(probabilities_NC: npt.ArrayLike) -> Scores:
    """The largest probability (Hendrycks & Gimpel 2017, arXiv 1610.02136): [N]."""
    largest_N: Scores = np.asarray(probabilities_NC, dtype=np.float64).max(axis=1)
    return largest_N


def negative_energy(logits_NC: npt.ArrayLike) -> Scores:
    """log sum_c exp(logit_c) (Liu et al. 2020, arXiv 2010.03759, equation 4 at temperature 1, negated): [N]."""
    logits = np.asarray(logits_NC, dtype=np.float64)
    top_N = logits.max(axis=1)
    energy_N: Scores = top_N + np.log(np.exp(logits - top_N[:, None]).sum(axis=1))
    return energy_N


def unknown_score(
    model: str, score: str, known_N: Scores, unknown_M: Scores, validation_K: Scores | None = None
) -> UnknownScore:
    """Measure a score on test images.

    Args:
        known_N: of images of the classes.
        unknown_M: of images of other actions.
        validation_K: of other images of the classes, not trained on, for the threshold.
    """
    threshold = None if validation_K is None else threshold_at(thresholds(validation_K), FALSE_ALARMS)
    return UnknownScore(
        model=model,
        score=score,
        auroc=auroc(known_N, unknown_M),
        fpr95=false_positive_rate(known_N, unknown_M),
        roc=roc_curve(known_N, unknown_M),
        threshold=threshold,
        false_alarms=None if threshold is None else float((known_N < threshold).mean()),
        detected=None if threshold is None else float((unknown_M < threshold).mean()),
    )


def auroc(known_N: Scores, unknown_M: Scores) -> float:
    """Area under the ROC curve: the fraction of pairs in which the known image scores higher; ties count half."""
    sorted_M = np.sort(unknown_M)
    below_N = np.searchsorted(sorted_M, known_N, side="left")
    not_above_N = np.searchsorted(sorted_M, known_N, side="right")
    return float((below_N + not_above_N).mean() / (2 * len(unknown_M)))


def false_positive_rate(known_N: Scores, unknown_M: Scores, kept: float = KNOWN_KEPT) -> float:
    """Fraction of unknown images accepted by the highest threshold that accepts a fraction `kept` of known images."""
    needed = math.ceil(kept * len(known_N) - 1e-9)
    threshold = np.sort(known_N)[len(known_N) - needed]
    return float((unknown_M >= threshold).mean())


def roc_curve(known_N: Scores, unknown_M: Scores) -> tuple[tuple[float, float], ...]:
    """Accepted fractions (unknown, known) as the threshold falls, from (0, 0) to (1, 1); at most 200 points."""
    levels = np.unique(np.concatenate([known_N, unknown_M]))[::-1]
    levels = levels[np.unique(np.linspace(0, len(levels) - 1, CURVE_POINTS - 1).round().astype(np.int64))]
    points = [
        1 - np.searchsorted(np.sort(scores), levels, side="left") / len(scores) for scores in (unknown_M, known_N)
    ]
    return ((0.0, 0.0), *((float(x), float(y)) for x, y in zip(*points, strict=True)))


def thresholds(known_K: Scores) -> dict[float, float]:
    """False-alarm rate -> the score below which an image is called unknown.

    The k-th smallest of K validation scores with k = floor((K + 1) rate): a new image of the classes is below it with a
    probability of at most the rate (the rank argument of split conformal prediction; as a test for outliers: Bates et
    al. 2023, arXiv 2104.08279). A rate for which k is 0 is missing: the images are too few.
    """
    sorted_K = np.sort(known_K)
    ranks = {rate: math.floor((len(sorted_K) + 1) * rate + 1e-9) for rate in KEPT_RATES}
    return {rate: float(sorted_K[rank - 1]) for rate, rank in ranks.items() if 1 <= rank <= len(sorted_K)}


def threshold_at(kept: Mapping[float, float], rate: float) -> float | None:
    """The threshold for a false-alarm rate: of the largest kept rate that is not above it; None if there is none."""
    below = [known for known in kept if known <= rate + 1e-12]
    return kept[max(below)] if below else None
