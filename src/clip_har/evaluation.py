"""Scores -> metrics, confidence intervals and paired tests, as frozen dataclasses.

No files, no plots and no tensors: everything here takes and returns numpy arrays and plain values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from clip_har.dataset import missing_classes_warning
from clip_har.errors import DataError, ModelError

# Shape legend: N images, C classes.
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]

BASELINE_NAME = "zero-shot"
CALIBRATION_BINS = 15
COLLAPSE_SHARE = 0.9
EXACT_BELOW = 25
RESAMPLES = 2000


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
        }


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """What one method reached, and what it cost, on the images and splits that all compared methods share."""

    method: str
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float
    ece: float
    trainable_params: int
    trainable_fraction: float
    peak_memory_bytes: int | None
    train_seconds: float | None
    mcnemar_p: float | None
    """Against zero-shot; None for zero-shot itself."""

    def to_json(self) -> dict[str, Any]:
        """One entry of comparison.json."""
        return {
            "method": self.method,
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "trainable_params": self.trainable_params,
            "trainable_fraction": self.trainable_fraction,
            "peak_memory_bytes": self.peak_memory_bytes,
            "train_seconds": self.train_seconds,
            "mcnemar_p": self.mcnemar_p,
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


def evaluate(
    *,
    classes: Sequence[str],
    paths: Sequence[str],
    targets_N: npt.ArrayLike,
    baseline_NC: npt.ArrayLike,
    finetuned_NC: npt.ArrayLike | None = None,
    finetuned_name: str = "lora",
    split: str = "test",
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> EvalResult:
    """Measures zero-shot and, if given, an adapted model on the same images.

    Args:
        classes: the C class names, in the order of the columns of the scores.
        paths: the N images' paths, as they are to appear in the files.
        targets_N: index of each image's true class.
        baseline_NC: zero-shot's probabilities.
        finetuned_NC: the adapted model's probabilities, or None.
        finetuned_name: name of the adapted model's method.
        split: which images these are, "test" or "val".
        warnings: what is already known to limit the result; more may be added to it.
        seed: seed of the bootstrap.

    Raises:
        DataError: no images, or a target that is not a class.
        ModelError: scores that are not finite.
    """
    targets = np.asarray(targets_N)
    if len(paths) != len(targets):
        raise ValueError(f"{len(paths)} paths but {len(targets)} targets")
    baseline = _evaluated(BASELINE_NAME, baseline_NC, targets, classes, seed)
    finetuned = None
    if finetuned_NC is not None:
        finetuned = _evaluated(finetuned_name, finetuned_NC, targets, classes, seed)
    p_value, difference = _paired(baseline, finetuned, targets, seed)
    models = [baseline] if finetuned is None else [baseline, finetuned]
    found = [*_absent_classes(baseline.metrics, split), *_collapses(models, targets, classes)]
    return EvalResult(
        n=len(targets),
        classes=tuple(classes),
        split=split,
        targets_N=targets.astype(np.int64),
        paths=list(paths),
        baseline=baseline,
        finetuned=finetuned,
        mcnemar_p=p_value,
        difference_ci95=difference,
        warnings=(*warnings, *(warning for warning in found if warning not in warnings)),
    )


def compute_metrics(
    probabilities_NC: npt.ArrayLike,
    targets_N: npt.ArrayLike,
    *,
    classes: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Metrics:
    """Everything that is reported about one model's scores.

    Args:
        probabilities_NC: probability of each class for each image, in [0, 1].
        targets_N: index of each image's true class.
        classes: the C class names; the test set need not have images of all of them.
        seed: seed of the bootstrap.
        resamples: number of bootstrap resamples.

    Raises:
        DataError: no images, or a target that is not a class.
        ModelError: scores that are not finite.
    """
    scores, targets = _checked(np.asarray(probabilities_NC), np.asarray(targets_N), len(classes))
    predictions = predictions_from(scores)
    correct = predictions == targets
    labels = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predictions, labels=labels, average=None, zero_division=0
    )
    present = support > 0
    weights = support / support.sum()
    return Metrics(
        accuracy=float(correct.mean()),
        accuracy_ci95=bootstrap_accuracy(correct, seed=seed, resamples=resamples),
        top3_accuracy=top_k_accuracy(scores, targets, k=3),
        top5_accuracy=top_k_accuracy(scores, targets, k=5),
        macro_precision=float(precision[present].mean()),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        weighted_precision=float(precision @ weights),
        weighted_recall=float(recall @ weights),
        weighted_f1=float(f1 @ weights),
        ece=expected_calibration_error(scores.max(axis=1), correct),
        per_class=tuple(
            ClassMetrics(name=name, support=int(n), precision=float(p), recall=float(r), f1=float(f))
            for name, n, p, r, f in zip(classes, support, precision, recall, f1, strict=True)
        ),
        confusion=confusion_matrix(targets, predictions, labels=labels).astype(np.int64),
    )


def predictions_from(scores_NC: FloatArray) -> IntArray:
    """Index of the highest score of each row; the first of them on a tie."""
    predictions: IntArray = scores_NC.argmax(axis=1).astype(np.int64)
    return predictions


def top_k_accuracy(scores_NC: FloatArray, targets_N: IntArray, *, k: int) -> float:
    """Fraction of images whose true class is among the k highest scores.

    On a tie the class with the lower index ranks first, as for the prediction itself, so k=1 is the accuracy.
    """
    target_scores = np.take_along_axis(scores_NC, targets_N[:, None], axis=1)
    earlier_NC = np.arange(scores_NC.shape[1])[None, :] < targets_N[:, None]
    ahead_NC = (scores_NC > target_scores) | ((scores_NC == target_scores) & earlier_NC)
    return float((ahead_NC.sum(axis=1) < k).mean())


def expected_calibration_error(
    confidence_N: FloatArray, correct_N: BoolArray, *, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by the bins' images.

    Guo et al. 2017 (arXiv 1706.04599), equation 3. Bins are closed above: (0, 1/bins], (1/bins, 2/bins], ...
    """
    # Halves and rounding: float32 probabilities are compared with the edges in float64.
    confidence = confidence_N.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    # |acc(B) - conf(B)| * |B| / N is the absolute sum of (correct - confidence) in the bin, over N.
    gaps = np.bincount(index, weights=correct_N - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def bootstrap_accuracy(correct_N: BoolArray, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """95 % percentile bootstrap interval of accuracy over images.

    Drawing n images with replacement from n of which k are right makes the number of right ones
    Binomial(n, k / n), so the resamples are drawn from it directly (Efron & Tibshirani 1993, chapter 13).
    """
    n = len(correct_N)
    counts = np.random.default_rng(seed).binomial(n, correct_N.mean(), size=resamples)
    return _percentile_interval(counts / n)


def bootstrap_difference(
    correct_a_N: BoolArray, correct_b_N: BoolArray, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """95 % percentile bootstrap interval of accuracy b minus accuracy a, resampling images, so in pairs."""
    n = len(correct_a_N)
    gained, lost = _discordant(correct_a_N, correct_b_N)
    shares = np.array([gained, lost, n - gained - lost]) / n
    counts = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    return _percentile_interval((counts[:, 0] - counts[:, 1]) / n)


def mcnemar_p(correct_a_N: BoolArray, correct_b_N: BoolArray) -> float:
    """Two-sided p of McNemar's test that two models are right equally often on the same images.

    Exact binomial below 25 discordant pairs, otherwise chi-square with one degree of freedom and continuity
    correction (McNemar 1947, doi 10.1007/BF02295996; Edwards 1948, doi 10.1007/BF02289261; for classifiers:
    Dietterich 1998, doi 10.1162/089976698300017197). 1.0 when there are no discordant pairs.

    Args:
        correct_a_N: whether the first model answers each image rightly.
        correct_b_N: the same of the second model, for the same images in the same order.
    """
    gained, lost = _discordant(correct_a_N, correct_b_N)
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, i) for i in range(min(gained, lost) + 1))
        return min(1.0, float(2 * tail / 2**discordant))
    statistic = max(0, abs(gained - lost) - 1) ** 2 / discordant
    # Survival function of chi-square with one degree of freedom: P(|Z| > sqrt(statistic)).
    return math.erfc(math.sqrt(statistic / 2.0))


def confused_pairs(metrics: Metrics, limit: int = 5) -> tuple[ConfusedPair, ...]:
    """The most frequent mistakes, most frequent first; ties in the order of the classes."""
    mistakes = metrics.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, mistakes.shape)
    return tuple(
        ConfusedPair(
            true=metrics.per_class[row].name,
            predicted=metrics.per_class[column].name,
            count=int(mistakes[row, column]),
            support=metrics.per_class[row].support,
        )
        for row, column in zip(rows, columns, strict=True)
        if mistakes[row, column] > 0
    )


def _checked(scores: npt.NDArray[Any], targets: npt.NDArray[Any], n_classes: int) -> tuple[FloatArray, IntArray]:
    """The arrays as they are used further on, or an error that says what is wrong with them."""
    if targets.size == 0:
        raise DataError("There are no images to evaluate", remedy="Name a split that has images.")
    if scores.shape != (len(targets), n_classes) or targets.ndim != 1:
        raise ValueError(f"scores {scores.shape} do not fit {targets.shape} targets and {n_classes} classes")
    bad_rows = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad_rows:
        raise ModelError(
            f"The model's scores are not finite for {bad_rows} of {len(targets)} images",
            remedy="Train again with a lower learning rate, or in float32 or bfloat16 instead of float16.",
        )
    if scores.min() < -1e-6 or scores.max() > 1 + 1e-3:
        raise ValueError("scores are not probabilities: apply softmax to the logits first")
    outside = np.flatnonzero((targets < 0) | (targets >= n_classes))
    if outside.size:
        raise DataError(
            f"Image {outside[0]} has class index {targets[outside[0]]}, but there are {n_classes} classes",
            remedy="Evaluate on a dataset whose classes are the ones that the model was trained on.",
        )
    return scores.astype(np.float64), targets.astype(np.int64)


def _evaluated(
    name: str, scores: npt.ArrayLike, targets: npt.NDArray[Any], classes: Sequence[str], seed: int
) -> Evaluated:
    metrics = compute_metrics(scores, targets, classes=classes, seed=seed)
    return Evaluated(name=name, probabilities_NC=np.asarray(scores), metrics=metrics)


def _paired(
    baseline: Evaluated, finetuned: Evaluated | None, targets: IntArray, seed: int
) -> tuple[float | None, Interval | None]:
    """McNemar's p and the interval of the difference, or two Nones without a finetuned model."""
    if finetuned is None:
        return None, None
    before = baseline.predictions == targets
    after = finetuned.predictions == targets
    return mcnemar_p(before, after), bootstrap_difference(before, after, seed=seed)


def _discordant(correct_a_N: BoolArray, correct_b_N: BoolArray) -> tuple[int, int]:
    """How many images only b answers rightly, and how many only a does."""
    if correct_a_N.shape != correct_b_N.shape:
        raise ValueError(f"paired answers differ in shape: {correct_a_N.shape} and {correct_b_N.shape}")
    a, b = correct_a_N.astype(bool), correct_b_N.astype(bool)
    return int((b & ~a).sum()), int((a & ~b).sum())


def _percentile_interval(samples: FloatArray) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def _absent_classes(metrics: Metrics, split: str) -> list[str]:
    absent = [entry.name for entry in metrics.per_class if entry.support == 0]
    return [missing_classes_warning(split, absent, total=len(metrics.per_class))] if absent else []


def _collapses(models: Sequence[Evaluated], targets: IntArray, classes: Sequence[str]) -> list[str]:
    """A warning for each model that gives one answer to (almost) everything though the images differ."""
    found = []
    true_counts = np.bincount(targets, minlength=len(classes))
    # Images of one class, or almost, cannot show a collapse.
    if true_counts.max() > COLLAPSE_SHARE * len(targets):
        return []
    for model in models:
        counts = np.bincount(model.predictions, minlength=len(classes))
        share = counts.max() / len(targets)
        if share > COLLAPSE_SHARE:
            found.append(
                f"{model.name} answers {classes[int(counts.argmax())]} for {share:.0%} of the images: "
                "a model that answers one class for everything has collapsed, and its accuracy means little."
            )
    return found
