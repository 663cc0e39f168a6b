"""From smoothed probabilities to spans of one action, with "unsure" where the run's confidence does not suffice.

Smoothing is in smoothing.py.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clip_har.video.records import Span
from clip_har.video.smoothing import FloatArray

SHOWN = 3
"""Classes that a span lists."""
SHORTEST = 0.25
"""Part of the window below which a piece that is answered, or withheld, joins its neighbour of the same action."""
_SURE, _UNSURE, _UNKNOWN = 0, 1, 2

# Shapes: T samples, C classes.


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When an answer is withheld; by default never."""

    answers_from: float = 0.0
    """Least confidence of an answer, in [0, 1]."""
    known_from: float = 0.0
    """Least probability, not calibrated, of the most likely class."""


def spans_of(
    smoothed_TC: FloatArray,
    calibrated_TC: FloatArray,
    raw_TC: FloatArray,
    times_T: FloatArray,
    *,
    classes: tuple[str, ...],
    end: float,
    window: float,
    thresholds: Thresholds,
) -> tuple[Span, ...]:
    """Spans in which the most likely class of the smoothed probabilities is the same, and is withheld or not.

    How far a span can be trusted is told from the frames' own probabilities, averaged over `window` seconds around each
    frame and inside the span: smoothed ones are overconfident, since frames of one scene repeat the same mistake.
    Short pieces join their neighbour. A span begins in the middle between its first sample and the one before.

    Args:
        smoothed_TC: from `smoothing.smooth`.
        calibrated_TC: the frames' own, calibrated; compared with `answers_from`.
        raw_TC: the frames' own; compared with `known_from`.
        times_T: seconds, ascending; at least one.
        end: when the last frame ends, in seconds.
        window: seconds.
    """
    labels_T = smoothed_TC.argmax(axis=1)
    near_TC = _averaged(calibrated_TC, labels_T, times_T, window)
    known_T = _averaged(raw_TC, labels_T, times_T, window).max(axis=1) >= thresholds.known_from
    confidence_T = near_TC[np.arange(len(labels_T)), labels_T]
    sure_T = confidence_T >= thresholds.answers_from
    states_T = np.where(known_T, np.where(sure_T, _SURE, _UNSURE), _UNKNOWN)
    _merge_short(states_T, labels_T, times_T, SHORTEST * window)
    groups_T = np.where(states_T == _SURE, labels_T, -states_T)  # neighbours that are both unsure are one span
    starts = _run_starts(groups_T)
    bounds = [times_T[0], *((times_T[start - 1] + times_T[start]) / 2 for start in starts[1:]), end]
    stops = [*starts[1:], len(groups_T)]
    smoothed_T = smoothed_TC.max(axis=1)
    return tuple(
        _span(
            calibrated_TC[start:stop].mean(axis=0),
            float(confidence_T[start:stop].mean()),
            float(smoothed_T[start:stop].mean()),
            int(groups_T[start]),
            classes,
            (float(bounds[place]), float(bounds[place + 1])),
        )
        for place, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )


def _span(
    mean_C: FloatArray,
    confidence: float,
    smoothed: float,
    group: int,
    classes: tuple[str, ...],
    bounds: tuple[float, float],
) -> Span:
    ranked = (-mean_C).argsort(kind="stable").tolist()
    if group >= 0:
        ranked = [group, *(place for place in ranked if place != group)]
    return Span(
        start=bounds[0],
        end=bounds[1],
        label=classes[group] if group >= 0 else None,
        confidence=confidence,
        smoothed=smoothed,
        top=tuple((classes[place], float(mean_C[place])) for place in ranked[:SHOWN]),
        unsure=group == -_UNSURE,
        unknown=group == -_UNKNOWN,
    )


def _run_starts(values_T: npt.NDArray[np.int64]) -> list[int]:
    """Places at which another value begins, the first place included."""
    return [0, *(np.flatnonzero(np.diff(values_T)) + 1).tolist()]


def _merge_short(
    states_T: npt.NDArray[np.int64], labels_T: npt.NDArray[np.int64], times_T: FloatArray, shortest: float
) -> None:
    """Give pieces of a run of labels that are shorter than this the state of their longer neighbour, shortest first."""
    for start, stop in itertools.pairwise([*_run_starts(labels_T), len(labels_T)]):
        seconds_N = np.gradient(times_T[start:stop]) if stop - start > 1 else np.zeros(1)
        while True:
            pieces = [*_run_starts(states_T[start:stop]), stop - start]
            lengths = [float(seconds_N[first:last].sum()) for first, last in itertools.pairwise(pieces)]
            place = int(np.argmin(lengths))
            if len(lengths) == 1 or lengths[place] >= shortest:
                break
            around = [near for near in (place - 1, place + 1) if 0 <= near < len(lengths)]
            longer = max(around, key=lambda near: lengths[near])
            states_T[start + pieces[place] : start + pieces[place + 1]] = states_T[start + pieces[longer]]


def _averaged(scores_TC: FloatArray, labels_T: npt.NDArray[np.int64], times_T: FloatArray, window: float) -> FloatArray:
    """The mean over the samples within window / 2 seconds, in the same run of labels."""
    starts = _run_starts(labels_T)
    lengths = np.diff([*starts, len(labels_T)])
    first_T, last_T = np.repeat(starts, lengths), np.repeat([*starts[1:], len(labels_T)], lengths)
    low_T = np.maximum(first_T, np.searchsorted(times_T, times_T - window / 2 - 1e-9))
    high_T = np.minimum(last_T, np.searchsorted(times_T, times_T + window / 2 + 1e-9, side="right"))
    sums_TC = np.concatenate([np.zeros((1, scores_TC.shape[1])), np.cumsum(scores_TC, axis=0)])
    means: FloatArray = (sums_TC[high_T] - sums_TC[low_T]) / (high_T - low_T)[:, None]
    return means
