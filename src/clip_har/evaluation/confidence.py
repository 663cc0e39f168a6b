"""What may be done with a model's confidence: sets that hold the truth, and silence where it would be a guess.

Fitted on validation images as a `Calibration`, which a run keeps on its card, and checked on test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.calibration import reliability, scaled, trusted_temperature
from clip_har.evaluation.findings import Confidence, ConformalLevel, SelectivePoint
from clip_har.evaluation.metrics import expected_calibration_error
from clip_har.evaluation.records import BoolArray, FloatArray, IntArray
from clip_har.evaluation.scoring import read_scores

SHOWN_LEVELS = (0.8, 0.9, 0.95, 0.99)
"""Coverages and accuracies that an evaluation checks on test."""
KEPT_LEVELS = (*(round(0.5 + step / 100, 2) for step in range(50)), 0.995, 0.999)
"""Coverages whose threshold a card keeps; one between them takes that of the next higher."""
STEPS = 20
"""Shares of the validation images, the most confident first, at which abstaining is tried: 5 %, 10 %, ..., 100 %."""
DOUBT = 0.1
"""Chance that a promised accuracy is missed, over the draw of the validation images."""
CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class SelectiveStep:
    """How the model did on the validation images with the highest confidence."""

    threshold: float
    """Least calibrated confidence that is still answered, in [0, 1]."""
    answered: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What validation images told of one model's confidence; enough to use it on new images."""

    images: int
    """Validation images that it was fitted on."""
    temperature: float
    """Divides the logits."""
    conformal: Mapping[float, float]
    """Stated coverage -> largest nonconformity score that still enters the set."""
    selective: tuple[SelectiveStep, ...]
    """Fewest images answered first."""

    def confidence(self, probabilities_NC: npt.ArrayLike) -> FloatArray:
        """Calibrated probabilities."""
        return scaled(probabilities_NC, self.temperature)

    def set_threshold(self, level: float) -> float:
        """Largest nonconformity score, 1 minus calibrated probability, in sets of at least this coverage.

        1 holds every class: the validation images are too few for such a level, or it is above all that are kept.
        """
        return next((self.conformal[kept] for kept in sorted(self.conformal) if kept >= level - 1e-12), 1.0)

    def abstain_threshold(self, target: float) -> float | None:
        """Calibrated confidence from which answers are right as often as the target; None where none promises that.

        Goes from the most confident validation images to all of them and stops before the first fraction whose accuracy
        could be below the target: the bound is Clopper & Pearson's at 90 % (doi 10.1093/biomet/26.4.404), and stopping
        there controls the error though many fractions are tried (fixed-sequence testing: Angelopoulos et al. 2021,
        arXiv 2110.01052, section 2.2; the bound for selective answers: Geifman & El-Yaniv 2017, arXiv 1705.08500).
        Shares too small to promise it even without a mistake are passed over. It holds for images like the
        validation images, and a little less where weights and temperature were chosen on the same.
        """
        found = None
        for step in self.selective:
            if least_accuracy(step.answered, step.answered) < target:
                continue
            if least_accuracy(step.right, step.answered) < target:
                break
            found = step.threshold
        return found

    def to_json(self) -> dict[str, Any]:
        """The card's "confidence"."""
        return {
            "images": self.images,
            "temperature": self.temperature,
            "conformal": {str(level): threshold for level, threshold in self.conformal.items()},
            "selective": {
                "threshold": [step.threshold for step in self.selective],
                "answered": [step.answered for step in self.selective],
                "right": [step.right for step in self.selective],
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        columns = content["selective"]
        steps = zip(columns["threshold"], columns["answered"], columns["right"], strict=True)
        return cls(
            images=int(content["images"]),
            temperature=float(content["temperature"]),
            conformal={float(level): float(threshold) for level, threshold in dict(content["conformal"]).items()},
            selective=tuple(
                SelectiveStep(threshold=float(threshold), answered=int(answered), right=int(right))
                for threshold, answered, right in steps
            ),
        )


def calibrate(probabilities_NC: npt.ArrayLike, targets_N: IntArray) -> Calibration:
    """Fit everything on validation images.

    Args:
        probabilities_NC: the model's, on images that it was not trained on.
        targets_N: index of each image's true class; at least one image.

    Raises:
        ModelError: scores that are not finite.
    """
    scores_NC = np.asarray(probabilities_NC)
    read_scores(scores_NC, targets_N, scores_NC.shape[1])
    temperature = trusted_temperature(probabilities_NC, targets_N)
    scaled_NC = scaled(probabilities_NC, temperature)
    scores_N = 1 - scaled_NC[np.arange(len(targets_N)), targets_N]
    correct_N = scaled_NC.argmax(axis=1) == targets_N
    return Calibration(
        images=len(targets_N),
        temperature=temperature,
        conformal={level: conformal_threshold(scores_N, level) for level in KEPT_LEVELS},
        selective=selective_steps(scaled_NC.max(axis=1), correct_N),
    )


def conformal_threshold(scores_N: FloatArray, level: float) -> float:
    """The quantile of validation scores that a new image's score exceeds with probability at most 1 - level.

    The ceil((n + 1) level)-th smallest of n, so that the coverage holds for any n and any model, on average over the
    draw of the validation images, as far as these had no part in training; a temperature and an epoch chosen on them
    make it a little too good (split conformal prediction: Papadopoulos et al. 2002, doi 10.1007/3-540-36755-1_29;
    with these scores: Sadinle, Lei & Wasserman 2019, arXiv 1609.00451). Where n is too small, 1: every class.
    """
    rank = math.ceil((len(scores_N) + 1) * level - 1e-9)
    return float(np.partition(scores_N, rank - 1)[rank - 1]) if rank <= len(scores_N) else 1.0


def selective_steps(confidence_N: FloatArray, correct_N: BoolArray) -> tuple[SelectiveStep, ...]:
    """How the most confident 5 %, 10 %, ... of the images were answered.

    Each threshold lies just above the confidence of the most confident omitted image: given that one, the surer ones
    are a random sample of all images surer than it, which is what the bound of `abstain_threshold` asks for.
    """
    order_N = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order_N]
    right_N = np.cumsum(correct_N[order_N])
    steps: dict[int, SelectiveStep] = {}
    for number in range(1, STEPS + 1):
        count = math.ceil(len(sorted_N) * number / STEPS)
        threshold = float(np.nextafter(sorted_N[count], 2.0)) if count < len(sorted_N) else 0.0
        answered = int((sorted_N >= threshold).sum())  # fewer where confidences are equal
        if answered:
            right = int(right_N[answered - 1])
            steps[answered] = SelectiveStep(threshold=threshold, answered=answered, right=right)
    return tuple(steps.values())


def least_accuracy(right: int, answered: int, doubt: float = DOUBT) -> float:
    """One-sided lower bound of an accuracy, from `right` of `answered` images, with a chance of `doubt` to be wrong."""
    from scipy.stats import beta  # slow to import, and predicting needs none of it

    return float(beta.ppf(doubt, right, answered - right + 1)) if right else 0.0


def risk_coverage(confidence_N: FloatArray, correct_N: BoolArray) -> tuple[tuple[tuple[float, float], ...], float]:
    """The risk-coverage curve and its area.

    Geifman, Uziel & El-Yaniv 2019 (arXiv 1805.08206): the error rate among the k most confident images, for k = 1 to n;
    the area is its mean. Equal confidences are answered together; in the area their errors count as evenly spread.

    Returns:
        Points (coverage, error rate) by rising coverage, at most 200, and the area.
    """
    n = len(confidence_N)
    order_N = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order_N]
    ends_G = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]) + 1, n)
    wrong_G = np.cumsum(~correct_N[order_N])[ends_G - 1]
    counts_N = np.arange(1, n + 1)
    wrong_N = np.interp(counts_N, np.append(0, ends_G), np.append(0, wrong_G))
    chosen = np.unique(np.linspace(0, len(ends_G) - 1, CURVE_POINTS).round().astype(np.int64))
    points = tuple((float(ends_G[i] / n), float(wrong_G[i] / ends_G[i])) for i in chosen)
    return points, float((wrong_N / counts_N).mean())


def check_confidence(calibration: Calibration, probabilities_NC: npt.ArrayLike, targets_N: IntArray) -> Confidence:
    """How a calibration holds on test images.

    Args:
        calibration: fitted on other images.
        probabilities_NC: the model's, as it is.
        targets_N: index of each image's true class.
    """
    before_NC = np.asarray(probabilities_NC, dtype=np.float64)
    after_NC = calibration.confidence(before_NC)
    correct_N = before_NC.argmax(axis=1) == targets_N
    before_N, after_N = before_NC.max(axis=1), after_NC.max(axis=1)
    curve, area = risk_coverage(after_N, correct_N)
    return Confidence(
        images=calibration.images,
        temperature=calibration.temperature,
        ece_before=expected_calibration_error(before_N, correct_N),
        ece_after=expected_calibration_error(after_N, correct_N),
        reliability_before=reliability(before_N, correct_N),
        reliability_after=reliability(after_N, correct_N),
        risk_coverage=curve,
        aurc=area,
        selective=tuple(_selective_point(calibration, wish, after_N, correct_N) for wish in SHOWN_LEVELS),
        conformal=tuple(_conformal_level(calibration, level, after_NC, targets_N) for level in SHOWN_LEVELS),
    )


def _selective_point(
    calibration: Calibration, target: float, confidence_N: FloatArray, correct_N: BoolArray
) -> SelectivePoint:
    threshold = calibration.abstain_threshold(target)
    answered_N = np.zeros(len(correct_N), dtype=bool) if threshold is None else confidence_N >= threshold
    return SelectivePoint(
        wished_accuracy=target,
        threshold=threshold,
        coverage=float(answered_N.mean()),
        accuracy=float(correct_N[answered_N].mean()) if answered_N.any() else 0.0,
    )


def _conformal_level(
    calibration: Calibration, level: float, scaled_NC: FloatArray, targets_N: IntArray
) -> ConformalLevel:
    threshold = calibration.set_threshold(level)
    sets_NC = 1 - scaled_NC <= threshold
    return ConformalLevel(
        level=level,
        threshold=threshold,
        coverage=float(sets_NC[np.arange(len(targets_N)), targets_N].mean()),
        mean_size=float(sets_NC.sum(axis=1).mean()),
        empty=float((~sets_NC.any(axis=1)).mean()),
    )
