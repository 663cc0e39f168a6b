"""Temperature scaling on validation images, and the bins of a reliability diagram.

What may be done with calibrated confidence is in `certainty`; calibration errors are in `metrics`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.findings import ReliabilityBin
from clip_har.evaluation.metrics import CALIBRATION_BINS, equal_width_bins
from clip_har.evaluation.records import BoolArray, FloatArray, IntArray

LEAST_LOGARITHM = math.log(1e-38)
"""Probabilities that single precision has rounded to nothing count as 1e-38."""
TEMPERATURES = (0.05, 20.0)
CHANCE_GAIN = 3.841
"""95th percentile of chi-square with one degree of freedom."""
LEAST_DOUBT = 1e-12
"""Confidence nearer to 0 or 1 counts as this near."""


def log_probabilities(probabilities_NC: npt.ArrayLike) -> FloatArray:
    """Logits up to a constant of each row, which is all that a softmax asks of them."""
    values_NC = np.asarray(probabilities_NC, dtype=np.float64)
    logs_NC: FloatArray = np.log(np.maximum(values_NC, math.exp(LEAST_LOGARITHM)))
    return logs_NC


def fit_temperature(probabilities_NC: npt.ArrayLike, targets_N: IntArray) -> float:
    """The temperature T that makes softmax(logits / T) most likely on validation images.

    Temperature scaling of Guo et al. 2017 (arXiv 1706.04599, section 4.2), with a log-normal prior of width 1 on T
    that weighs as much as one image or so: without it, a model with no mistake on a few images would count as certain.

    Args:
        probabilities_NC: the model's, on images that it was not trained on.
        targets_N: index of each image's true class.
    """
    logs_NC = log_probabilities(probabilities_NC)

    def surprise(log_temperature: float) -> float:
        scaled_NC = logs_NC / math.exp(log_temperature)
        top_N = scaled_NC.max(axis=1)
        normal_N = top_N + np.log(np.exp(scaled_NC - top_N[:, None]).sum(axis=1))
        own_N = scaled_NC[np.arange(len(targets_N)), targets_N]
        return float((normal_N - own_N).sum() + log_temperature**2 / 2)

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    from scipy.optimize import minimize_scalar  # slow to import, and predicting needs none of it

    return math.exp(float(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x))


def trusted_temperature(probabilities_NC: npt.ArrayLike, targets_N: IntArray) -> float:
    """`fit_temperature`, if on the same images it also makes the confidence in the answers more truthful; else 1.

    The likelihood of all classes asks for a higher temperature wherever unlikely classes come true now and then, even
    where the confidence in the answer, the one that is shown and acted on, was right before. So the temperature must
    raise the likelihood of "the answer is right, the answer is wrong" as well, by more than chance would: twice the
    gain above the 95th percentile of chi-square with one degree of freedom (Wilks 1938).
    """
    temperature = fit_temperature(probabilities_NC, targets_N)
    before = _answer_log_likelihood(scaled(probabilities_NC, 1.0), targets_N)
    after = _answer_log_likelihood(scaled(probabilities_NC, temperature), targets_N)
    return temperature if 2 * (after - before) > CHANCE_GAIN else 1.0


def _answer_log_likelihood(probabilities_NC: FloatArray, targets_N: IntArray) -> float:
    """Of which answers are right, if each is with the probability that the model gives it."""
    confidence_N = np.clip(probabilities_NC.max(axis=1), LEAST_DOUBT, 1 - LEAST_DOUBT)
    right_N = probabilities_NC.argmax(axis=1) == targets_N
    return float(np.log(np.where(right_N, confidence_N, 1 - confidence_N)).sum())


def scaled(probabilities_NC: npt.ArrayLike, temperature: float) -> FloatArray:
    """softmax(logits / temperature), from probabilities; the order of the classes stays."""
    logs_NC = log_probabilities(probabilities_NC) / temperature
    powers_NC = np.exp(logs_NC - logs_NC.max(axis=1, keepdims=True))
    scaled_NC: FloatArray = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return scaled_NC


def reliability(
    confidence_N: FloatArray, correct_N: BoolArray, *, bins: int = CALIBRATION_BINS
) -> tuple[ReliabilityBin, ...]:
    """Confidence and accuracy in bins of equal width, closed above, as `expected_calibration_error` has them."""
    bins_N = equal_width_bins(confidence_N, bins)
    counts = np.bincount(bins_N, minlength=bins)
    confidences = np.bincount(bins_N, weights=confidence_N, minlength=bins) / np.maximum(counts, 1)
    accuracies = np.bincount(bins_N, weights=correct_N, minlength=bins) / np.maximum(counts, 1)
    return tuple(
        ReliabilityBin(
            lower=index / bins,
            upper=(index + 1) / bins,
            count=int(counts[index]),
            confidence=float(confidences[index]),
            accuracy=float(accuracies[index]),
        )
        for index in range(bins)
    )
