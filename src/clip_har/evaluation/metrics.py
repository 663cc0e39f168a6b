"""One model's scores -> accuracy, F1, average precision, calibration error, confusion matrix, with intervals.

Intervals are drawn in `resampling`, paired tests are in `statistics`; two models on the same images in `evaluate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.ranking import Ranking, average_precision, influence, rankings
from clip_har.evaluation.records import (
    SCALARS,
    BoolArray,
    ClassMetrics,
    ConfusedPair,
    FloatArray,
    IntArray,
    Metrics,
)
from clip_har.evaluation.resampling import Contributions, Resampled, interval, resample, stratified_spread
from clip_har.evaluation.scoring import ImageScores, checked_targets, read_scores
from clip_har.evaluation.statistics import RESAMPLES

CALIBRATION_BINS = 15
COLLAPSE_SHARE = 0.9
LEAST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Below it a probability counts as this in the log loss, as scikit-learn's `log_loss` has it."""
RANKED_CELLS = 500_000
"""Images times classes up to which average precision is resampled itself, which costs time in proportion."""
NORMAL_95 = 1.959964
"""Standard deviations of a normal distribution that 95 % of it lie within."""
CLASS_METRICS = ("precision", "recall", "f1", "average_precision")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One model's metrics, and each of `SCALARS` in the resamples that gave the intervals."""

    metrics: Metrics
    samples: Mapping[str, FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranked:
    """Average precision of each class, and what its resampling needs: rankings, or slopes where those are too many."""

    values_C: FloatArray
    rankings: dict[int, Ranking]
    slopes_N: FloatArray
    """Of the mean over the classes in each image's weight."""
    spread_C: FloatArray
    """Standard deviation of each class's average precision, by its slopes; 0 where rankings are resampled."""


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
        probabilities_NC: probability of each class for each image, in [0, 1]; a memory map is read in chunks.
        targets_N: index of each image's true class.
        classes: the C class names; the test set need not have images of all of them.
        seed: seed of the bootstrap.
        resamples: number of bootstrap resamples.

    Raises:
        DataError: no images, or a target that is not a class.
        ModelError: scores that are not finite.
    """
    return measured(probabilities_NC, targets_N, classes=classes, seed=seed, resamples=resamples).metrics


def measured(
    probabilities_NC: npt.ArrayLike,
    targets_N: npt.ArrayLike,
    *,
    classes: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Measured:
    """`compute_metrics`, with the resamples themselves for intervals of differences and over seeds."""
    scores_NC = np.asarray(probabilities_NC)
    targets = checked_targets(targets_N, len(classes))
    images = read_scores(scores_NC, targets, len(classes))
    ranked = _ranked(scores_NC, targets)
    from sklearn.metrics import (  # slow to import, and predicting needs none of it
        confusion_matrix,
        precision_recall_fscore_support,
    )

    found = precision_recall_fscore_support(
        targets, images.predictions_N, labels=np.arange(len(classes)), average=None, zero_division=0
    )
    of_classes = dict(zip(CLASS_METRICS, (*found[:3], ranked.values_C), strict=True))
    points = _points(images, targets, of_classes, found[3])
    contributions = _contributions(images, targets, len(classes), ranked, points)
    resampled = resample(contributions, seed=seed, resamples=resamples)
    metrics = Metrics(
        **points,
        intervals={name: interval(name, points[name], resampled.scalars[name]) for name in SCALARS},
        per_class=_per_class(classes, found[3], of_classes, _class_intervals(of_classes, resampled, ranked)),
        confusion=confusion_matrix(targets, images.predictions_N, labels=np.arange(len(classes))).astype(np.int64),
    )
    return Measured(metrics=metrics, samples={name: resampled.scalars[name] for name in SCALARS})


@dataclass(frozen=True, kw_only=True)
class ValidationFigures:
    """What a training is steered by; without intervals, so that it costs next to nothing."""

    loss: float
    """Mean negative logarithm of the true class's probability, in nats."""
    accuracy: float
    macro_f1: float
    """Over the classes that have images."""
    top_share: float
    """Share of the images that get the most given answer."""


def validation_figures(probabilities_NC: npt.ArrayLike, targets_N: npt.ArrayLike, n_classes: int) -> ValidationFigures:
    """The few metrics that choose between epochs.

    Raises:
        DataError, ModelError: as `compute_metrics`.
    """
    targets = checked_targets(targets_N, n_classes)
    images = read_scores(np.asarray(probabilities_NC), targets, n_classes)
    from sklearn.metrics import f1_score  # slow to import, and predicting needs none of it

    macro_f1 = f1_score(targets, images.predictions_N, labels=np.unique(targets), average="macro", zero_division=0)
    return ValidationFigures(
        loss=float(-np.log(np.clip(images.own_N, 1e-12, 1.0)).mean()),
        accuracy=float((images.predictions_N == targets).mean()),
        macro_f1=float(macro_f1),
        top_share=float(np.bincount(images.predictions_N).max() / len(targets)),
    )


def _points(
    images: ImageScores, targets_N: IntArray, of_classes: Mapping[str, FloatArray], support_C: IntArray
) -> dict[str, float]:
    """Each of `SCALARS` of the images as they are."""
    present, shares_C = support_C > 0, support_C / support_C.sum()
    correct_N = images.predictions_N == targets_N
    points = {
        "accuracy": float(correct_N.mean()),
        "balanced_accuracy": float(of_classes["recall"][present].mean()),
        "top3_accuracy": float((images.ahead_N < 3).mean()),
        "top5_accuracy": float((images.ahead_N < 5).mean()),
        "mean_average_precision": float(of_classes["average_precision"][present].mean()),
        "log_loss": float(_surprise(images.own_N).mean()),
        "brier": float(images.squared_N.mean()),
        "ece": expected_calibration_error(images.confidence_N, correct_N),
        "ece_adaptive": adaptive_calibration_error(images.confidence_N, correct_N),
    }
    for name in ("precision", "recall", "f1"):
        points[f"macro_{name}"] = float(of_classes[name][present].mean())
        points[f"weighted_{name}"] = float(of_classes[name] @ shares_C)
    return points


def _surprise(own_N: FloatArray) -> FloatArray:
    surprise_N: FloatArray = -np.log(np.clip(own_N, LEAST_PROBABILITY, 1.0))
    return surprise_N


def _ranked(scores_NC: npt.NDArray[Any], targets_N: IntArray) -> _Ranked:
    """Average precision of each class; what is resampled has the images in the order of their classes."""
    n, n_classes = scores_NC.shape
    order_N = np.argsort(targets_N, kind="stable")
    places_N = np.empty(n, dtype=np.int64)
    places_N[order_N] = np.arange(n)
    sizes_C = np.bincount(targets_N, minlength=n_classes)
    kept: dict[int, Ranking] = {}
    values_C, spread_C, slopes_N = np.zeros(n_classes), np.zeros(n_classes), np.zeros(n)
    for index, ranking in rankings(scores_NC, targets_N):
        values_C[index] = average_precision(ranking)
        if n * n_classes <= RANKED_CELLS:
            kept[index] = dataclasses.replace(ranking, order_M=places_N[ranking.order_M], own_P=places_N[ranking.own_P])
        else:
            of_class_N = influence(ranking, n)
            slopes_N += of_class_N / (sizes_C > 0).sum()
            spread_C[index] = stratified_spread(of_class_N[order_N], sizes_C)
    return _Ranked(values_C=values_C, rankings=kept, slopes_N=slopes_N[order_N], spread_C=spread_C)


def _contributions(
    images: ImageScores, targets_N: IntArray, n_classes: int, ranked: _Ranked, points: Mapping[str, float]
) -> Contributions:
    """What each image adds to the metrics, the images in the order of their classes."""
    order_N = np.argsort(targets_N, kind="stable")
    confidence_N = images.confidence_N[order_N]
    means = {
        "log_loss": _surprise(images.own_N)[order_N],
        "brier": images.squared_N[order_N],
        "top3_accuracy": (images.ahead_N < 3)[order_N].astype(np.float64),
        "top5_accuracy": (images.ahead_N < 5)[order_N].astype(np.float64),
    }
    if not ranked.rankings:
        slopes_N = ranked.slopes_N * len(targets_N)
        means["mean_average_precision"] = points["mean_average_precision"] + slopes_N - slopes_N.mean()
    return Contributions(
        sizes_C=np.bincount(targets_N, minlength=n_classes),
        predictions_N=images.predictions_N[order_N],
        means=means,
        gaps_N=(images.predictions_N == targets_N)[order_N] - confidence_N,
        bins={"ece": equal_width_bins(confidence_N), "ece_adaptive": equal_mass_bins(confidence_N)},
        n_bins=CALIBRATION_BINS,
        rankings=ranked.rankings,
    )


def _class_intervals(
    of_classes: Mapping[str, FloatArray], resampled: Resampled, ranked: _Ranked
) -> dict[str, FloatArray]:
    """95 % intervals [C, 2] of what is measured of each class."""
    intervals: dict[str, FloatArray] = {}
    for name in CLASS_METRICS:
        if name in resampled.of_classes:
            intervals[name] = np.percentile(resampled.of_classes[name], [2.5, 97.5], axis=1).T
        else:
            half_C = NORMAL_95 * ranked.spread_C
            bounds_C2 = np.stack([of_classes[name] - half_C, of_classes[name] + half_C], axis=1)
            intervals[name] = np.clip(bounds_C2, 0.0, 1.0)
    return intervals


def _per_class(
    classes: Sequence[str],
    support_C: IntArray,
    of_classes: Mapping[str, FloatArray],
    intervals: Mapping[str, FloatArray],
) -> tuple[ClassMetrics, ...]:
    entries = []
    for index, name in enumerate(classes):
        values: dict[str, Any] = {key: float(of_classes[key][index]) for key in CLASS_METRICS}
        values |= {f"{key}_ci95": tuple(intervals[key][index].tolist()) for key in CLASS_METRICS}
        entries.append(ClassMetrics(name=name, support=int(support_C[index]), **values))
    return tuple(entries)


def expected_calibration_error(
    confidence_N: FloatArray, correct_N: BoolArray, *, bins: int = CALIBRATION_BINS
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by the bins' images.

    Guo et al. 2017 (arXiv 1706.04599), equation 3. Bins are closed above: (0, 1/bins], (1/bins, 2/bins], ...
    """
    return _calibration_error(confidence_N, correct_N, equal_width_bins(confidence_N, bins))


def adaptive_calibration_error(
    confidence_N: FloatArray, correct_N: BoolArray, *, bins: int = CALIBRATION_BINS
) -> float:
    """The same over bins of equally many images, so that crowded confidences are told apart.

    Nguyen & O'Connor 2015 (arXiv 1508.05154), section 3. Equal confidences share a bin.
    """
    return _calibration_error(confidence_N, correct_N, equal_mass_bins(confidence_N, bins))


def equal_width_bins(confidence_N: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """The bin of each confidence among bins of equal width, closed above."""
    # Halves and rounding: float32 probabilities are compared with the edges in float64.
    edges = np.linspace(0, 1, bins + 1)
    places_N = np.searchsorted(edges, confidence_N.astype(np.float64), side="left") - 1
    bins_N: IntArray = np.clip(places_N, 0, bins - 1)
    return bins_N


def equal_mass_bins(confidence_N: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """The bin of each confidence among bins of equally many images; equal confidences share the first that fits."""
    below_N = np.searchsorted(np.sort(confidence_N), confidence_N, side="left")
    bins_N: IntArray = below_N * bins // len(confidence_N)
    return bins_N


def _calibration_error(confidence_N: FloatArray, correct_N: BoolArray, bins_N: IntArray) -> float:
    # |acc(B) - conf(B)| * |B| / N is the absolute sum of (correct - confidence) in the bin, over N.
    gaps = np.bincount(bins_N, weights=correct_N - confidence_N.astype(np.float64))
    return float(np.abs(gaps).sum() / len(confidence_N))


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


def collapse_of(metrics: Metrics) -> tuple[str, float] | None:
    """The class that a collapsed model answers to (almost) everything, with its share of the answers, or None.

    Images that are themselves (almost) all of one class cannot show a collapse.
    """
    answers, truths = metrics.confusion.sum(axis=0), metrics.confusion.sum(axis=1)
    n = answers.sum()
    if answers.max() <= COLLAPSE_SHARE * n or truths.max() > COLLAPSE_SHARE * n:
        return None
    return metrics.per_class[int(answers.argmax())].name, float(answers.max() / n)
