"""One model's scores -> accuracy, F1, calibration error and confusion matrix.

Intervals and tests are in `statistics`; two models on the same images in `measuring`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from clip_har.errors import DataError, ModelError
from clip_har.evaluation.records import (
    BoolArray,
    ClassMetrics,
    ConfusedPair,
    FloatArray,
    IntArray,
    Metrics,
    predictions_from,
)
from clip_har.evaluation.statistics import RESAMPLES, bootstrap_accuracy

CALIBRATION_BINS = 15
COLLAPSE_SHARE = 0.9


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
