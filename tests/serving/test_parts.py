"""The service's parts alone: the micro-batcher, the guess when to come back, and the drift test against naive ones."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from clip_har.evaluation.confidence import calibrate
from clip_har.predict import Prediction
from clip_har.serving.batcher import Batcher
from clip_har.serving.drift import DriftWatch, Expected
from clip_har.serving.limits import Admission
from clip_har.serving.problems import ProblemError


def test_a_batch_is_full_or_has_waited() -> None:
    sizes: list[int] = []
    batcher: Batcher[int, int] = Batcher(
        lambda items: [2 * item for item in items], largest=4, wait=0.05, observed=lambda size, _: sizes.append(size)
    )
    futures = [batcher.submit(number) for number in range(10)]
    batcher.start()
    assert [future.result(10) for future in futures] == [2 * number for number in range(10)]
    assert sizes == [4, 4, 2]
    begun = time.monotonic()
    assert batcher.submit(7).result(10) == 14
    assert time.monotonic() - begun >= 0.05
    batcher.stop()
    assert sizes == [4, 4, 2, 1] and not batcher.is_alive()
    with pytest.raises(RuntimeError, match="has ended"):
        batcher.submit(1)


def test_what_is_queued_at_the_end_is_computed_and_what_was_cancelled_is_not() -> None:
    computed: list[int] = []

    def compute(items: Sequence[int]) -> Sequence[int]:
        computed.extend(items)
        return items

    batcher: Batcher[int, int] = Batcher(compute, largest=2, wait=60)
    futures = [batcher.submit(number) for number in range(5)]
    futures[1].cancel()
    batcher.start()
    batcher.stop()
    assert [future.result(0) for future in (*futures[:1], *futures[2:])] == [0, 2, 3, 4]
    assert computed == [0, 2, 3, 4]


def test_an_error_is_for_its_own_batch() -> None:
    def compute(items: Sequence[int]) -> Sequence[float]:
        return [1 / item for item in items]

    batcher: Batcher[int, float] = Batcher(compute, largest=1, wait=0)
    futures = [batcher.submit(number) for number in (1, 0, 2)]
    batcher.start()
    assert (futures[0].result(10), futures[2].result(10)) == (1, 0.5)
    with pytest.raises(ZeroDivisionError):
        futures[1].result(10)
    batcher.stop()


def test_many_threads_get_their_own_results() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [item * item for item in items], largest=8, wait=0.001)
    batcher.start()
    wrong: list[int] = []

    def ask(start: int) -> None:
        wrong.extend(n for n in range(start, start + 50) if batcher.submit(n).result(10) != n * n)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.stop()
    assert wrong == []


def test_admission_counts_images_and_forgets_those_of_refused_requests() -> None:
    admission = Admission(4)
    with admission.request() as first:
        first.set_images(3)
        with admission.request() as second:
            with pytest.raises(ProblemError):
                second.set_images(2)
            assert admission.in_flight == 4
        assert admission.in_flight == 3
    assert admission.in_flight == 0


# --- drift ----------------------------------------------------------------------------------------------


def validation(seed: int, images: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of two classes, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    first_N = rng.uniform(0.02, 0.98, images)
    return np.stack([first_N, 1 - first_N], axis=1), (rng.uniform(size=images) > first_N).astype(np.int64)


@pytest.mark.parametrize("answers_from", [0.0, 0.7, 0.9])
def test_what_validation_gave_is_found_again_from_the_card(answers_from: float) -> None:
    probabilities_NC, targets_N = validation(0)
    calibration = calibrate(probabilities_NC, targets_N)
    confidence_N = calibration.confidence(probabilities_NC).max(axis=1)
    expected = Expected.of(calibration, answers_from)
    assert expected.confidence == pytest.approx(confidence_N.mean(), abs=0.01)
    assert expected.deviation == pytest.approx(confidence_N.std(), abs=0.01)
    assert expected.unsure == pytest.approx((confidence_N < answers_from).mean(), abs=0.05)


def watched(confidences: Sequence[float], answers_from: float = 0.7) -> DriftWatch:
    probabilities_NC, targets_N = validation(0)
    watch = DriftWatch(Expected.of(calibrate(probabilities_NC, targets_N), answers_from))
    for confidence in confidences:
        label = "running" if confidence >= answers_from else None
        watch.add(Prediction(image="", label=label, confidence=confidence))
    return watch


def test_images_like_those_of_validation_are_no_drift_and_others_are() -> None:
    rng = np.random.default_rng(1)
    alike = np.abs(rng.uniform(-0.48, 0.48, 1000)) + 0.5
    assert not watched(alike.tolist()).drifted()
    lower = 0.5 + 0.5 * (alike - 0.5)
    assert watched(lower.tolist()).drifted()
    assert not watched(lower[:99].tolist()).drifted(), "too few to say"
    assert watched([*lower, *alike]).drifted() is False, "the last thousand count"
    observed = watched(lower.tolist()).observed()
    assert observed.confidence == pytest.approx(lower.mean())
    assert observed.unsure == pytest.approx((lower < 0.7).mean())


def test_nothing_is_said_before_the_first_prediction_and_of_other_classes() -> None:
    watch = watched([])
    watch.add(Prediction(image="", label="running", confidence=None))
    assert math.isnan(watch.observed().confidence) and watch.observed().predictions == 0
    assert not watch.drifted()
