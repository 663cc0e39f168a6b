"""What an evaluation consists of, as frozen dataclasses: metrics, one model's answers, both models' result.

How the numbers are computed is in `metrics` and `statistics`; comparisons of methods are in `comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.findings import Confidence, Findings

# Shape legend: N images, C classes.
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class of the test set. With a support of 0 all but its precision are 0 by convention, not measured."""

    name: str
    support: int
    """Images whose true class this is."""
    precision: float
    recall: float
    f1: float
    average_precision: float
    """How well its probability ranks its images before the others."""
    precision_ci95: Interval
    recall_ci95: Interval
    f1_ci95: Interval
    average_precision_ci95: Interval

    def to_json(self) -> dict[str, Any]:
        """One entry of results.json."""
        content: dict[str, Any] = plain(asdict(self))
        return content


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """How well one model answers one set of images. Fractions are in [0, 1].

    Macro and weighted averages run over the classes that have images, so a class of the training set that the
    test set lacks does not pull them down; it stays a possible (and then wrong) answer.
    """

    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that have images."""
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
    mean_average_precision: float
    """Mean average precision of the classes that have images."""
    log_loss: float
    """Mean negative logarithm of the true class's probability, in nats; probabilities below 2.2e-16 count as that."""
    brier: float
    """Mean squared distance of the probabilities to the truth, summed over the classes: 0 to 2."""
    ece: float
    """Expected calibration error of the most likely class, 15 bins of equal width."""
    ece_adaptive: float
    """The same with 15 bins of equally many images."""
    intervals: Mapping[str, Interval]
    """95 % interval of each of `SCALARS`: percentile bootstrap over images, stratified by true class. It has no width
    where every image agrees, as at an accuracy of exactly 0 or 1."""
    per_class: tuple[ClassMetrics, ...]
    """In the order of the classes, those without images included."""
    confusion: IntArray
    """Counts, [C, C]: rows are true classes, columns answers."""

    @property
    def accuracy_ci95(self) -> Interval:
        """Of accuracy."""
        return self.intervals["accuracy"]

    def scalars(self) -> dict[str, float]:
        """The metrics that are one number, by name."""
        return {name: getattr(self, name) for name in SCALARS}

    def to_json(self) -> dict[str, Any]:
        """The metrics under the keys of results.json."""
        return {
            **self.scalars(),
            "accuracy_ci95": list(self.accuracy_ci95),
            "intervals": {name: list(self.intervals[name]) for name in SCALARS},
            "per_class": [entry.to_json() for entry in self.per_class],
        }


SCALARS = tuple(item.name for item in fields(Metrics) if item.type in (float, "float"))
"""The metrics that are one number, as `Metrics` and results.json name them."""
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "ece_adaptive"})
UNBOUNDED = frozenset({"log_loss", "brier"})
"""Metrics that may exceed 1."""
BIASED = frozenset({"ece", "ece_adaptive"})
"""Metrics that noise raises, in a sample and once more in its resamples."""


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
    samples: Mapping[str, FloatArray] = field(default_factory=dict, repr=False)
    """Each of `SCALARS` in each bootstrap resample; models on the same images share the resamples of a seed."""

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
    differences: Mapping[str, Interval] = field(default_factory=dict)
    """The same for each of `SCALARS`; empty without a finetuned model."""
    bootstrap_seed: int = 0
    """What the resamples were drawn by."""
    confidence_baseline: Confidence | None = None
    """How far zero-shot's confidence can be trusted; None where no validation images could tell."""
    confidence_finetuned: Confidence | None = None
    """The same of the finetuned model."""
    findings: Findings = field(default_factory=Findings)
    """Robustness, shift, unseen classes: what was asked for besides."""

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
            "differences": {name: list(interval) for name, interval in self.differences.items()},
            "confidence": {
                "baseline": self.confidence_baseline and plain(asdict(self.confidence_baseline)),
                "finetuned": self.confidence_finetuned and plain(asdict(self.confidence_finetuned)),
            },
            "warnings": list(self.warnings),
            **self.findings.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of a training, or one candidate of a solver, as its curve shows it.

    Validation values are None where none were measured.
    """

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    val_macro_f1: float | None
    lr: float | None
    """None of a candidate, which no optimizer made."""
    seconds: float
    best: bool
    """Whether validation was at its best so far; the weights of the last such epoch are the ones kept."""
    cross_validated: bool = False
    """Whether the validation values are those of cross-validation over the training and validation images."""
    candidate: str = ""
    """What distinguishes a solver's candidate, such as "C=0.1"; empty for an epoch."""


def predictions_from(scores_NC: FloatArray) -> IntArray:
    """Index of the highest score of each row; the first of them on a tie."""
    predictions: IntArray = scores_NC.argmax(axis=1).astype(np.int64)
    return predictions


def plain(value: Any) -> Any:
    """The same with lists for tuples, as JSON gives it back."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
