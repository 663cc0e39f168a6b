"""What an evaluation consists of, as frozen dataclasses: metrics, one model's answers, both models' result.

How the numbers are computed is in `metrics` and `statistics`; comparisons of methods are in `comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.findings import Findings

# Shape legend: N images, C classes.
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class of the test set. With a support of 0 its recall and F1 are 0 by convention, not measured."""

    name: str
    support: int
    """Images whose true class this is."""
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """How well one model answers one set of images. Fractions are in [0, 1].

    Macro and weighted averages run over the classes that have images, so a class of the training set that the
    test set lacks does not pull them down; it stays a possible (and then wrong) answer.
    """

    accuracy: float
    accuracy_ci95: Interval
    """Percentile bootstrap over images. It has no width at an accuracy of exactly 0 or 1."""
    top3_accuracy: float
    """1.0 by definition with three classes or fewer."""
    top5_accuracy: float
    """1.0 by definition with five classes or fewer."""
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    ece: float
    """Expected calibration error of the most likely class, 15 bins of equal width."""
    per_class: tuple[ClassMetrics, ...]
    """In the order of the classes, those without images included."""
    confusion: IntArray
    """Counts, [C, C]: rows are true classes, columns answers."""

    def to_json(self) -> dict[str, Any]:
        """The scalar metrics, under the keys of results.json."""
        return {
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "top3_accuracy": self.top3_accuracy,
            "top5_accuracy": self.top5_accuracy,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "weighted_precision": self.weighted_precision,
            "weighted_recall": self.weighted_recall,
            "weighted_f1": self.weighted_f1,
            "ece": self.ece,
        }


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """A mistake that is made repeatedly: `count` of `support` images of `true` were answered `predicted`."""

    true: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """One model's scores on the images of an evaluation, and what they amount to."""

    name: str
    """The method's name, such as "zero-shot" or "lora"."""
    probabilities_NC: FloatArray
    metrics: Metrics

    @property
    def predictions(self) -> IntArray:
        """Index of the most likely class of each image; the first of them on a tie."""
        return predictions_from(self.probabilities_NC)

    @property
    def confidence(self) -> FloatArray:
        """Probability of the most likely class of each image."""
        confidence: FloatArray = self.probabilities_NC.max(axis=1)
        return confidence


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalResult:
    """Zero-shot and, where there is one, an adapted model on the same images."""

    n: int
    """Number of images."""
    classes: tuple[str, ...]
    split: str
    """Which images these are: "test" or "val"."""
    targets_N: IntArray
    paths: list[str]
    baseline: Evaluated
    finetuned: Evaluated | None
    mcnemar_p: float | None
    """McNemar's test of finetuned against baseline; None without a finetuned model."""
    difference_ci95: Interval | None
    """Paired bootstrap interval of accuracy, finetuned minus baseline; None without a finetuned model."""
    warnings: tuple[str, ...]
    findings: Findings = field(default_factory=Findings)
    """Robustness, shift, unseen actions: what was asked for besides."""

    @property
    def best(self) -> Evaluated:
        """The model that the evaluation is about: finetuned, or the baseline where it stands alone."""
        return self.finetuned if self.finetuned is not None else self.baseline

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "n": self.n,
            "classes": list(self.classes),
            "baseline": self.baseline.metrics.to_json(),
            "finetuned": None if self.finetuned is None else self.finetuned.metrics.to_json(),
            "mcnemar_p": self.mcnemar_p,
            "warnings": list(self.warnings),
            **self.findings.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of a training, as its curve shows it. Validation values are None where none were measured."""

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    lr: float
    seconds: float
    best: bool
    """Whether validation was at its best so far; the weights of the last such epoch are the ones kept."""


def predictions_from(scores_NC: FloatArray) -> IntArray:
    """Index of the highest score of each row; the first of them on a tie."""
    predictions: IntArray = scores_NC.argmax(axis=1).astype(np.int64)
    return predictions
