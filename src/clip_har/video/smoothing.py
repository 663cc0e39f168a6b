"""Probabilities smoothed over time by a sticky hidden Markov model: with the future for files, without for cameras.

Which frames there are is in sampling.py; what spans they make is in spans.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

EVIDENCE_SECONDS = 2.0
"""Seconds of video that count as one independent image: neighbouring frames show nearly the same picture.
benchmarks/video_segmentation.py compares others."""
_LEAST = 1e-6  # probability that no class falls below, so that no single frame rules one out


# Shapes: T samples, C classes.
#
# The actions are the states of a Markov chain that keeps its state for `mean_span` seconds on average and then takes
# any other with equal probability. In dt seconds it moves to each other class with probability s / (C - 1),
#     s = 1 - exp(-dt / mean_span).
# A run's probabilities p_t(c) take the place of the likelihoods of the frames, as in hybrids of neural networks and
# hidden Markov models (Bourlard & Morgan 1994, Connectionist Speech Recognition, chapter 7) with equal class priors,
# raised to the power w = min(1, dt / EVIDENCE_SECONDS), because neighbouring frames are not independent.


class ForwardFilter:
    """P(class now | all frames until now), for a stream whose future is not known.

    The forward recursion (Rabiner 1989, doi 10.1109/5.18626, equations 19 to 20), normalised at each step:
    a_t(c) is proportional to p_t(c)^w [(1 - s) a_{t-1}(c) + s / (C - 1) (1 - a_{t-1}(c))].

    Args:
        mean_span: expected length of an action in seconds; 0 does not smooth.
    """

    def __init__(self, mean_span: float) -> None:
        self._mean_span = mean_span
        self._state_C: FloatArray | None = None
        self._time = 0.0

    def update(self, probabilities_C: npt.ArrayLike, time: float) -> FloatArray:
        """Take a frame's probabilities at a time in seconds, and return the smoothed ones."""
        scores_C = np.asarray(probabilities_C, dtype=np.float64)
        if self._mean_span <= 0:
            return scores_C
        if self._state_C is None:
            state_C = _evidence(scores_C, EVIDENCE_SECONDS)
        else:
            step = max(0.0, time - self._time)
            state_C = _moved(self._state_C, step, self._mean_span) * _evidence(scores_C, step)
        self._state_C, self._time = state_C / state_C.sum(), time
        return self._state_C


def smooth(probabilities_TC: npt.ArrayLike, times_T: npt.ArrayLike, *, mean_span: float) -> FloatArray:
    """P(class at each time | all frames): forward-backward (Rabiner 1989, equations 19 to 27).

    Args:
        probabilities_TC: each frame's own, the sums are 1.
        times_T: seconds, ascending.
        mean_span: expected length of an action in seconds; 0 does not smooth.

    Returns:
        Float64 [T, C]; the sums are 1.
    """
    scores_TC, seconds_T = np.asarray(probabilities_TC, dtype=np.float64), np.asarray(times_T, dtype=np.float64)
    if mean_span <= 0 or len(scores_TC) < 2:
        return scores_TC
    forward = ForwardFilter(mean_span)
    smoothed_TC = np.stack([forward.update(row_C, time) for row_C, time in zip(scores_TC, seconds_T, strict=True)])
    steps_T = np.diff(seconds_T)
    after_C: FloatArray = np.ones(scores_TC.shape[1])
    for place in range(len(steps_T) - 1, -1, -1):
        # b_t(c) = sum over c' of P(c' | c) p_{t+1}(c')^w b_{t+1}(c'); the chain is symmetric.
        ahead_C = after_C * _evidence(scores_TC[place + 1], steps_T[place])
        after_C = _moved(ahead_C / ahead_C.sum(), steps_T[place], mean_span)
        smoothed_TC[place] *= after_C
        smoothed_TC[place] /= smoothed_TC[place].sum()
    return smoothed_TC


def _moved(state_C: FloatArray, step: float, mean_span: float) -> FloatArray:
    """One step of the chain, for a state whose sum is 1."""
    change = -math.expm1(-step / mean_span)
    return (1 - change) * state_C + change / max(1, len(state_C) - 1) * (1 - state_C)


def _evidence(scores_C: FloatArray, step: float) -> FloatArray:
    """p^w, scaled so that the largest is 1."""
    floored_C = np.maximum(scores_C, _LEAST)
    weighted: FloatArray = (floored_C / floored_C.max()) ** min(1.0, step / EVIDENCE_SECONDS)
    return weighted
