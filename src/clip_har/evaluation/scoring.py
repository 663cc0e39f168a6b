"""A model's scores, read once in chunks -> the few numbers for each image that every metric is made of.

Scores that cannot be used are refused here. Averages are in `metrics`, rankings of a class's images in `ranking`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.errors import DataError, ModelError
from clip_har.evaluation.records import BoolArray, FloatArray, IntArray

CHUNK_CELLS = 2_000_000
"""Scores that are held in double precision at a time: 16 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScores:
    """What the metrics need of each of N images."""

    predictions_N: IntArray
    """Index of the most likely class; the first of them on a tie."""
    confidence_N: FloatArray
    """Its probability."""
    own_N: FloatArray
    """Probability of the true class."""
    ahead_N: IntArray
    """Classes that rank before the true one; of equal ones the earlier class ranks first."""
    squared_N: FloatArray
    """Squared distance of the probabilities to the truth, summed over the classes: 0 to 2."""


def checked_targets(targets_N: npt.ArrayLike, n_classes: int) -> IntArray:
    """The true classes as int64.

    Raises:
        DataError: there are none, or one is not a class.
    """
    targets = np.asarray(targets_N)
    if targets.size == 0:
        raise DataError("There are no images to evaluate", remedy="Pass a split that has images.")
    outside = np.flatnonzero((targets < 0) | (targets >= n_classes))
    if outside.size:
        raise DataError(
            f"Image {outside[0]} has class index {targets[outside[0]]}, but there are {n_classes} classes",
            remedy="Evaluate on a dataset whose classes are the ones that the model was trained on.",
        )
    return targets.astype(np.int64)


def read_scores(scores_NC: npt.NDArray[Any], targets_N: IntArray, n_classes: int) -> ImageScores:
    """Go through the scores once; they may be a memory map of any size.

    Args:
        scores_NC: probability of each class for each image, in [0, 1].
        targets_N: index of each image's true class, checked.
        n_classes: C.

    Raises:
        ModelError: scores that are not finite.
        ValueError: scores of another shape, or that are no probabilities.
    """
    if targets_N.ndim != 1 or scores_NC.shape != (len(targets_N), n_classes):
        raise ValueError(f"scores {scores_NC.shape} do not fit {targets_N.shape} targets and {n_classes} classes")
    parts, bad, possible = [], 0, True
    for rows in _chunks(len(targets_N), n_classes):
        chunk_BC = scores_NC[rows].astype(np.float64)
        not_finite = int((~np.isfinite(chunk_BC)).any(axis=1).sum())
        bad += not_finite
        if not not_finite:
            possible &= bool(chunk_BC.min() >= -1e-6 and chunk_BC.max() <= 1 + 1e-3)
            parts.append(_of_chunk(chunk_BC, targets_N[rows]))
    if bad:
        raise ModelError(
            f"The model's scores are not finite for {bad} of {len(targets_N)} images",
            remedy="Train again with a lower learning rate, or in float32 or bfloat16 instead of float16.",
        )
    if not possible:
        raise ValueError("scores are not probabilities: apply softmax to the logits first")
    names = [field.name for field in fields(ImageScores)]
    return ImageScores(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def ahead_of_target(scores_NC: FloatArray, targets_N: IntArray) -> IntArray:
    """How many classes rank before the true one; on a tie the class with the lower index ranks first."""
    own_N1 = np.take_along_axis(scores_NC, targets_N[:, None], axis=1)
    earlier_NC = np.arange(scores_NC.shape[1])[None, :] < targets_N[:, None]
    ahead_NC: BoolArray = (scores_NC > own_N1) | ((scores_NC == own_N1) & earlier_NC)
    ahead_N: IntArray = ahead_NC.sum(axis=1)
    return ahead_N


def _of_chunk(scores_BC: FloatArray, targets_B: IntArray) -> ImageScores:
    own_B = scores_BC[np.arange(len(targets_B)), targets_B]
    return ImageScores(
        predictions_N=scores_BC.argmax(axis=1).astype(np.int64),
        confidence_N=scores_BC.max(axis=1),
        own_N=own_B,
        ahead_N=ahead_of_target(scores_BC, targets_B),
        squared_N=np.einsum("bc,bc->b", scores_BC, scores_BC) - 2 * own_B + 1,
    )


def _chunks(n: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK_CELLS // max(1, width))
    for first in range(0, n, step):
        yield slice(first, first + step)
