"""Average precision: how well a class's probability ranks its images before those of the others.

Of the images as they are and of resamples of them; where those cost too much, by the slope of each image's weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.evaluation.records import BoolArray, FloatArray, IntArray

COLUMN_BYTES = 128_000_000
"""Scores that are held at a time while they are ranked class by class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The images by falling probability of one class, cut after its last own image.

    They fall into G segments, each of which ends with own images of one and the same probability.
    """

    order_M: IntArray
    """Indices of the images."""
    starts_G: IntArray
    """Where each segment starts."""
    own_P: IntArray
    """Indices of the class's own images, in this order."""
    own_starts_G: IntArray
    """Where each segment's own images start among these."""


def rankings(scores_NC: npt.NDArray[Any], targets_N: IntArray) -> Iterator[tuple[int, Ranking]]:
    """Each class that has images, with its ranking; the scores may be a memory map, read a few columns at a time."""
    n, n_classes = scores_NC.shape
    present = np.bincount(targets_N, minlength=n_classes) > 0
    width = max(1, COLUMN_BYTES // max(1, n * scores_NC.dtype.itemsize))
    for first in range(0, n_classes, width):
        columns_CN = np.ascontiguousarray(scores_NC[:, first : first + width].T)
        for offset, scores_N in enumerate(columns_CN):
            if present[first + offset]:
                yield first + offset, rank(scores_N, targets_N == first + offset)


def rank(scores_N: npt.NDArray[Any], own_N: BoolArray) -> Ranking:
    """The ranking of one class with at least one own image.

    Args:
        scores_N: its probability for each image.
        own_N: whether the class is the true one.
    """
    order_N = np.argsort(-scores_N)  # the order among equal ones does not matter: they share a segment
    sorted_N, own_sorted_N = scores_N[order_N], own_N[order_N]
    ties = np.flatnonzero(sorted_N[1:] != sorted_N[:-1]) + 1
    tie_starts = np.concatenate([[0], ties])
    tie_ends = np.concatenate([ties, [len(order_N)]])
    own_of_tie = np.add.reduceat(own_sorted_N.astype(np.int64), tie_starts)
    ends_G = tie_ends[own_of_tie > 0]
    own_G = own_of_tie[own_of_tie > 0]
    return Ranking(
        order_M=order_N[: ends_G[-1]],
        starts_G=np.concatenate([[0], ends_G[:-1]]),
        own_P=order_N[own_sorted_N],
        own_starts_G=np.cumsum(own_G) - own_G,
    )


def average_precision(ranking: Ranking) -> float:
    """Precision at each own image, averaged over them; equal probabilities rank together.

    Sum over thresholds of (R_n - R_{n-1}) P_n, as scikit-learn's `average_precision_score`; not interpolated.
    """
    own_G, all_G = _sizes(ranking)
    return float(_from_sums(own_G[:, None], all_G[:, None])[0])


def resampled_average_precision(ranking: Ranking, weights_NR: FloatArray) -> FloatArray:
    """The same of R resamples.

    Args:
        ranking: of the images as they are.
        weights_NR: how often each image was drawn; own images are drawn as often as there are.
    """
    own_GR = np.add.reduceat(weights_NR[ranking.own_P], ranking.own_starts_G, axis=0)
    all_GR = np.add.reduceat(weights_NR[ranking.order_M], ranking.starts_G, axis=0)
    return _from_sums(own_GR, all_GR)


def influence(ranking: Ranking, n: int) -> FloatArray:
    """Slope of average precision in the weight of each of n images, where the own images' total weight is fixed.

    Its linear extrapolation is the infinitesimal jackknife (Efron 1982, The Jackknife, the Bootstrap and Other
    Resampling Plans, chapter 6), which agrees with the bootstrap where there are many images.
    """
    own_G, all_G = _sizes(ranking)
    hits_G, depth_G = np.cumsum(own_G), np.cumsum(all_G)
    deeper_G = _suffix_sums(own_G * hits_G / depth_G**2)
    richer_G = _suffix_sums(own_G / depth_G) + hits_G / depth_G
    slopes_N = np.zeros(n)
    slopes_N[ranking.order_M] = -np.repeat(deeper_G, all_G.astype(np.int64))
    slopes_N[ranking.own_P] += np.repeat(richer_G, own_G.astype(np.int64))
    return slopes_N / len(ranking.own_P)


def _sizes(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """Own images and all images of each segment."""
    own_G = np.diff(ranking.own_starts_G, append=len(ranking.own_P)).astype(np.float64)
    all_G = np.diff(ranking.starts_G, append=len(ranking.order_M)).astype(np.float64)
    return own_G, all_G


def _from_sums(own_GR: FloatArray, all_GR: FloatArray) -> FloatArray:
    hits_GR, depth_GR = np.cumsum(own_GR, axis=0, dtype=np.float64), np.cumsum(all_GR, axis=0, dtype=np.float64)
    least = np.finfo(np.float64).tiny  # before the first image drawn there are no hits either
    precision_GR = hits_GR / np.maximum(depth_GR, least)
    precision_R: FloatArray = (own_GR * precision_GR).sum(axis=0) / hits_GR[-1]
    return precision_R


def _suffix_sums(values_G: FloatArray) -> FloatArray:
    sums: FloatArray = np.cumsum(values_G[::-1])[::-1]
    return sums
