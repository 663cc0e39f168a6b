"""Whether a run's predictions look like those for its validation images: mean confidence and fraction unsure.

The test is simple and needs no labels: it notices a change of the images, not which answers are wrong.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from clip_har.evaluation.confidence import Calibration
from clip_har.predict import Prediction

WINDOW = 1000
"""Last predictions that are looked at."""
FEWEST = 100
"""Predictions before which nothing is said."""
SIGMAS = 4.0
LEAST_DIFFERENCE = 0.05
"""A smaller difference is no drift, however certain: the validation values are only known from twenty quantiles."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the validation images gave."""

    images: int
    confidence: float
    """Mean calibrated confidence."""
    deviation: float
    """Standard deviation of the confidence."""
    unsure: float
    """Fraction below the confidence from which labels are given."""

    @classmethod
    def of(cls, calibration: Calibration, answers_from: float) -> Expected:
        """From the quantiles that the run's card keeps: between two of them confidence counts as evenly spread."""
        parts: list[tuple[float, float, float]] = []  # fraction, lower and upper confidence; most confident first
        images = calibration.images
        levels = [(0, 1.0), *((step.answered, step.threshold) for step in calibration.selective)]
        for (before, upper), (answered, lower) in pairwise(levels):
            # The last step answers everything, so its threshold is 0, which is nobody's confidence.
            low = lower if lower > 0 else max(0.0, upper - 0.05)
            parts.append(((answered - before) / images, low, upper))
        mean = sum(share * (low + high) / 2 for share, low, high in parts)
        square = sum(share * (low * low + low * high + high * high) / 3 for share, low, high in parts)
        answered = max((step.answered for step in calibration.selective if step.threshold >= answers_from), default=0)
        if answers_from <= 0:
            answered = images
        return cls(
            images=images,
            confidence=mean,
            deviation=math.sqrt(max(0.0, square - mean * mean)),
            unsure=1 - answered / images,
        )


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the last predictions gave."""

    predictions: int
    confidence: float
    """Mean calibrated confidence; NaN before the first prediction."""
    unsure: float
    """Fraction without a label; NaN before the first prediction."""


class DriftWatch:
    """Compares the last predictions with the validation images; any number of threads may add to it."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self._last: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._adding = threading.Lock()

    def add(self, prediction: Prediction) -> None:
        """Count a prediction among the run's own classes."""
        if prediction.confidence is not None:
            with self._adding:
                self._last.append((prediction.confidence, prediction.label is None))

    def observed(self) -> Observed:
        """The last predictions."""
        with self._adding:
            last = list(self._last)
        count = len(last)
        if not count:
            return Observed(predictions=0, confidence=math.nan, unsure=math.nan)
        return Observed(
            predictions=count,
            confidence=sum(confidence for confidence, _ in last) / count,
            unsure=sum(unsure for _, unsure in last) / count,
        )

    def drifted(self) -> bool:
        """Whether mean confidence or the fraction unsure is further from validation than chance explains.

        Two-sample z tests: |difference| > 4 standard errors, and more than 0.05, over at least 100 predictions.
        """
        found, expected = self.observed(), self.expected
        if found.predictions < FEWEST:
            return False
        both = 1 / found.predictions + 1 / expected.images
        pooled = (found.unsure * found.predictions + expected.unsure * expected.images) / (
            found.predictions + expected.images
        )
        errors = (expected.deviation * math.sqrt(both), math.sqrt(pooled * (1 - pooled) * both))
        differences = (found.confidence - expected.confidence, found.unsure - expected.unsure)
        return any(
            abs(difference) > max(LEAST_DIFFERENCE, SIGMAS * error)
            for difference, error in zip(differences, errors, strict=True)
        )
