"""The smoothing against sums over all sequences of actions, and the spans that come of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from clip_har.video.smoothing import EVIDENCE_SECONDS, FloatArray, ForwardFilter, smooth
from clip_har.video.spans import Thresholds, _merge_short, spans_of

MEAN_SPAN = 4.0


def naive(scores_TC: FloatArray, times_T: FloatArray, place: int) -> FloatArray:
    """P(class at a place | all rows), by adding up every sequence of classes."""
    count, classes = scores_TC.shape
    total_C = np.zeros(classes)
    for sequence in itertools.product(range(classes), repeat=count):
        probability = scores_TC[0, sequence[0]]
        for t in range(1, count):
            step = times_T[t] - times_T[t - 1]
            stay = math.exp(-step / MEAN_SPAN)
            probability *= stay if sequence[t] == sequence[t - 1] else (1 - stay) / (classes - 1)
            probability *= scores_TC[t, sequence[t]] ** min(1.0, step / EVIDENCE_SECONDS)
        total_C[sequence[place]] += probability
    posterior_C: FloatArray = total_C / total_C.sum()
    return posterior_C


@pytest.fixture
def scores_TC() -> FloatArray:
    return np.random.default_rng(3).dirichlet(np.ones(3) * 0.5, size=6)


TIMES = np.array([0.0, 0.5, 1.0, 4.0, 4.1, 9.0])


def test_it_is_the_posterior_of_the_chain(scores_TC: FloatArray) -> None:
    smoothed_TC = smooth(scores_TC, TIMES, mean_span=MEAN_SPAN)
    for place in range(len(TIMES)):
        assert smoothed_TC[place] == pytest.approx(naive(scores_TC, TIMES, place), abs=1e-6)


def test_the_filter_is_the_posterior_of_the_past(scores_TC: FloatArray) -> None:
    past = ForwardFilter(MEAN_SPAN)
    for place in range(len(TIMES)):
        known = naive(scores_TC[: place + 1], TIMES[: place + 1], place)
        assert past.update(scores_TC[place], TIMES[place]) == pytest.approx(known, abs=1e-6)


def test_a_single_wrong_frame_is_outvoted_and_a_change_is_kept() -> None:
    right, other = (0.7, 0.2, 0.1), (0.2, 0.7, 0.1)
    scores_TC = np.array([right] * 10 + [other] + [right] * 10 + [other] * 20)
    labels = smooth(scores_TC, np.arange(41) / 2, mean_span=10).argmax(axis=1).tolist()
    assert labels == [0] * 21 + [1] * 20


def test_twice_as_many_samples_are_no_more_evidence() -> None:
    scores_TC = np.array([(0.7, 0.3)] * 21 + [(0.45, 0.55)] * 20)
    slow = smooth(scores_TC, np.arange(41.0), mean_span=10)
    fast = smooth(np.repeat(scores_TC, 2, axis=0), np.arange(82) / 2, mean_span=10)
    assert fast[::2] == pytest.approx(slow, abs=0.03)


def test_without_a_span_nothing_is_smoothed(scores_TC: FloatArray) -> None:
    assert smooth(scores_TC, TIMES, mean_span=0).tolist() == scores_TC.tolist()
    assert ForwardFilter(0).update(scores_TC[0], 0.0).tolist() == scores_TC[0].tolist()


def test_certain_and_long_input_stays_finite() -> None:
    scores_TC = np.zeros((4_000, 4))
    scores_TC[:2_000, 0] = scores_TC[2_000:, 3] = 1
    smoothed_TC = smooth(scores_TC, np.arange(4_000) / 2, mean_span=10)
    assert np.isfinite(smoothed_TC).all() and smoothed_TC.sum(axis=1) == pytest.approx(1)
    assert smoothed_TC.argmax(axis=1).tolist() == [0] * 2_000 + [3] * 2_000


def test_one_class_alone_is_certain() -> None:
    assert smooth(np.ones((3, 1)), np.arange(3.0), mean_span=5).tolist() == [[1.0]] * 3


# --- spans ----------------------------------------------------------------------------------------------

CLASSES = ("a", "b", "c")


def spans(
    rows: list[tuple[float, float, float]], *, window: float = 0.0, **thresholds: float
) -> list[tuple[object, ...]]:
    scores_TC = np.array(rows)
    found = spans_of(
        scores_TC,
        scores_TC,
        scores_TC,
        np.arange(len(rows)) / 2,
        classes=CLASSES,
        end=len(rows) / 2,
        window=window,
        thresholds=Thresholds(**thresholds),
    )
    return [(span.start, span.end, span.shown_label, round(span.confidence, 4)) for span in found]


SURE_A, SURE_B, VAGUE_A = (0.9, 0.1, 0.0), (0.2, 0.8, 0.0), (0.4, 0.35, 0.25)


def test_spans_have_no_gaps_and_begin_between_two_samples() -> None:
    assert spans([SURE_A] * 4 + [SURE_B] * 3) == [(0.0, 1.75, "a", 0.9), (1.75, 3.5, "b", 0.8)]
    assert spans([SURE_A]) == [(0.0, 0.5, "a", 0.9)]


def test_parts_of_too_low_a_confidence_are_unsure() -> None:
    rows = [SURE_A] * 4 + [VAGUE_A] * 4 + [SURE_B] * 2
    assert spans(rows, answers_from=0.5) == [
        (0.0, 1.75, "a", 0.9),
        (1.75, 3.75, "unsure", 0.4),
        (3.75, 5.0, "b", 0.8),
    ]
    assert spans([VAGUE_A] * 2 + [(0.3, 0.4, 0.3)] * 2, answers_from=0.5) == [(0.0, 2.0, "unsure", 0.4)]


def test_parts_of_too_low_a_probability_are_none_of_the_classes() -> None:
    assert spans([SURE_A] * 2 + [VAGUE_A] * 2, known_from=0.5, answers_from=0.95) == [
        (0.0, 0.75, "unsure", 0.9),
        (0.75, 2.0, "none of these", 0.4),
    ]


def test_confidence_is_averaged_over_the_window_and_inside_the_action() -> None:
    """An unsure frame among sure ones is not unsure for half a second, nor is the last before another action."""
    rows = [SURE_A] * 10 + [VAGUE_A] + [SURE_A] * 10 + [SURE_B] * 10
    found = spans(rows, window=2.0, answers_from=0.7)
    assert [row[2] for row in found] == ["a", "b"]
    assert spans(rows, window=2.0, answers_from=0.85)[-1][2:] == ("unsure", 0.8)


def test_short_pieces_join_their_longer_neighbour_of_the_same_action() -> None:
    states_T = np.array([0] * 9 + [1] + [0] * 2 + [1] * 8 + [0] + [1] * 4)
    labels_T = np.array([5] * 20 + [6] * 5)
    _merge_short(states_T, labels_T, np.arange(25) / 2, 2.0)
    assert states_T.tolist() == [0] * 12 + [1] * 8 + [1] * 5
