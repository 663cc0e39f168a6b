"""Which images look alike to a model: cosine similarity of whitened features, compared block by block.

The features come as an array; how they are computed and cached is in features.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clip_har.audit.hamming import Indices

Features = NDArray[np.float32]

SHRINKAGE = 0.3
"""Mean variance, as a share, that is added to every direction's own before it is scaled to 1."""
_BLOCK_ROWS = 2048


def whitened(features_NH: Features) -> Features:
    """Features in which what most images share counts no more than what sets few apart: unit length [N, H].

    The mean is taken off and every principal direction divided by sqrt(variance + SHRINKAGE * mean variance): the
    whitening of Jégou and Chum 2012 ("Negative evidences and co-occurences in image retrieval: the benefit of PCA
    and whitening"), damped. Raw embeddings lie in a narrow cone, where thousands of pairs of different photographs
    of one class are more alike than a photograph and its crop.
    """
    mean_H = features_NH.mean(axis=0, dtype=np.float64)
    covariance_HH = np.zeros((features_NH.shape[1],) * 2)
    for start in range(0, len(features_NH), _BLOCK_ROWS):
        block_BH = features_NH[start : start + _BLOCK_ROWS] - mean_H
        covariance_HH += block_BH.T @ block_BH
    variance_H, directions_HH = np.linalg.eigh(covariance_HH / max(1, len(features_NH)))
    variance_H = variance_H.clip(0)
    damped_H = variance_H + SHRINKAGE * variance_H.mean()
    scaled_HH = (directions_HH / np.sqrt(damped_H.clip(1e-12))).astype(np.float32)
    out_NH = np.empty_like(features_NH, dtype=np.float32)
    for start in range(0, len(features_NH), _BLOCK_ROWS):
        block_BH = (features_NH[start : start + _BLOCK_ROWS] - mean_H).astype(np.float32) @ scaled_HH
        lengths_B1 = np.linalg.norm(block_BH, axis=1, keepdims=True)
        out_NH[start : start + _BLOCK_ROWS] = block_BH / lengths_B1.clip(1e-12)
    return out_NH


def similar_pairs(unit_NH: Features, similarity: float) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs i < j whose rows have at least this cosine similarity, in blocks.

    Args:
        unit_NH: rows of unit length.
        similarity: in [-1, 1].
    """
    for top in range(0, len(unit_NH), _BLOCK_ROWS):
        rows_BH = unit_NH[top : top + _BLOCK_ROWS]
        for side in range(top, len(unit_NH), _BLOCK_ROWS):
            left, right = np.nonzero(rows_BH @ unit_NH[side : side + _BLOCK_ROWS].T >= similarity)
            left, right = left + top, right + side
            if (ordered := left < right).any():
                yield left[ordered], right[ordered]
