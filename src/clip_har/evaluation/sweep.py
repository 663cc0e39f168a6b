"""What a hyperparameter search found: its trials, and how far choosing the best of them on validation flatters it.

How trials are sampled and trained is in sweeping/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clip_har.evaluation.records import FloatArray, IntArray

TrialState = Literal["complete", "pruned", "failed", "running"]
RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """One trial: the settings that were sampled for it, and how it did on the validation images."""

    number: int
    state: TrialState
    params: Mapping[str, Any]
    """Setting -> value, of those that its method reads."""
    score: float | None = None
    """The metric by which trials are compared; of a pruned trial, at the epoch at which it was stopped."""
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    epochs: int | None = None
    """Epochs that were trained; None for methods without epochs."""
    seconds: float | None = None
    """Time of training."""
    note: str = ""
    """Why it failed."""

    def to_json(self) -> dict[str, Any]:
        """One entry of sweep.json."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much of the score's variance between trials each setting explains (fANOVA), within some of the trials."""

    group: str
    """Which trials: "all trials", or those of one method."""
    trials: int
    shares: Mapping[str, float]
    """Setting -> fraction, the largest first."""


@dataclass(frozen=True, kw_only=True)
class SweepTest:
    """The best trial on the test images, next to zero-shot."""

    trial: int
    split: str
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    zero_shot: float
    difference_ci95: tuple[float, float] | None
    mcnemar_p: float | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SweepTest:
        """What sweep.json holds.

        Raises:
            TypeError: it is something else.
        """
        intervals = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        return cls(**{**content, **intervals})


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """All trials of a study, and what they say together."""

    metric: str
    """"accuracy" or "macro-f1"."""
    trials: tuple[SweepTrial, ...]
    """By number."""
    images: int
    """Validation images."""
    zero_shot: float
    """The metric of zero-shot on them."""
    optimism: float | None
    """By how much the best score is expected to be too high, because it is the best of many; None without one."""
    importances: tuple[Importance, ...] = ()
    test: SweepTest | None = None
    logarithmic: frozenset[str] = frozenset()
    """Settings that were sampled on a logarithmic scale."""

    @property
    def best(self) -> SweepTrial | None:
        """The trial that is chosen; None where none is complete."""
        return next(iter(self.ranking), None)

    @property
    def ranking(self) -> list[SweepTrial]:
        """The complete trials, best first: by score, then by the lower loss."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(complete, key=rank)

    @property
    def expected(self) -> float | None:
        """The best score, less what choosing it is expected to have added."""
        best = self.best
        return None if best is None or best.score is None or self.optimism is None else best.score - self.optimism

    def counts(self) -> dict[TrialState, int]:
        """Number of trials in each state."""
        states: tuple[TrialState, ...] = ("complete", "pruned", "failed", "running")
        return {state: sum(trial.state == state for trial in self.trials) for state in states}

    def to_json(self) -> dict[str, Any]:
        """The content of sweep.json."""
        best = self.best
        return {
            "metric": self.metric,
            "validation_images": self.images,
            "zero_shot": self.zero_shot,
            "best": None if best is None else best.number,
            "best_score": None if best is None else best.score,
            "optimism": self.optimism,
            "expected_after_selection": self.expected,
            "test": None if self.test is None else dataclasses.asdict(self.test),
            "importance": [dataclasses.asdict(found) for found in self.importances],
            "trials": [trial.to_json() for trial in self.trials],
        }


def rank(trial: SweepTrial) -> tuple[float, float, int]:
    """The smallest is the best."""
    assert trial.score is not None
    return -trial.score, np.inf if trial.loss is None else trial.loss, trial.number


def selection_optimism(scores: Callable[[IntArray], FloatArray], count: int) -> float:
    """By how much the best of several scores is too high on the images that it was chosen on, by the bootstrap.

    The best score, less the mean score that the best of each resample has on the images that are not in it (Efron &
    Tibshirani 1997, doi 10.1080/01621459.1997.10474007).

    Args:
        scores: indices of images, some of them repeated -> the score of each candidate on them [K].
        count: number of images.
    """
    draw = np.random.default_rng(0)
    expected = []
    for _ in range(RESAMPLES):
        taken = draw.integers(0, count, count)
        left_out = np.setdiff1d(np.arange(count), taken)
        if not len(left_out):  # of a handful of images
            continue
        expected.append(scores(left_out)[int(scores(taken).argmax())])
    best = float(scores(np.arange(count)).max())
    return max(0.0, best - float(np.mean(expected))) if expected else 0.0


def scores_of_predictions(
    predictions_KN: IntArray, labels_N: IntArray, metric: str
) -> Callable[[IntArray], FloatArray]:
    """The metric of K candidates on any of N images, for `selection_optimism`."""
    if metric == "accuracy":
        correct_KN = predictions_KN == labels_N
        return lambda rows: correct_KN[:, rows].mean(axis=1)

    def macro_f1(rows: IntArray) -> FloatArray:
        return np.array([_macro_f1(predictions_N[rows], labels_N[rows]) for predictions_N in predictions_KN])

    return macro_f1


def _macro_f1(predictions_N: IntArray, labels_N: IntArray) -> float:
    """Over the classes that have images."""
    classes = 1 + max(int(predictions_N.max()), int(labels_N.max()))
    right = np.bincount(labels_N[predictions_N == labels_N], minlength=classes)
    of_class, predicted = np.bincount(labels_N, minlength=classes), np.bincount(predictions_N, minlength=classes)
    f1_C = 2 * right / np.maximum(1, of_class + predicted)
    return float(f1_C[of_class > 0].mean())


def best_so_far(trials: Sequence[SweepTrial]) -> list[tuple[int, float]]:
    """Number of each complete trial, and the best score up to it."""
    found: list[tuple[int, float]] = []
    for trial in trials:
        if trial.state == "complete" and trial.score is not None:
            found.append((trial.number, max([trial.score, *(score for _, score in found[-1:])])))
    return found
