"""Likeness by embedding: whitening and the search for pairs against naive versions, on degenerate features too."""

from __future__ import annotations

import numpy as np
import pytest

from clip_har.audit import embeddings
from clip_har.audit.embeddings import SHRINKAGE, Features, similar_pairs, whitened


def features(rows: int, width: int = 12, *, seed: int = 0) -> Features:
    """Rows in a narrow cone, as embeddings lie: a large common part, and directions of very unequal variance."""
    random = np.random.default_rng(seed)
    scales = np.geomspace(3, 0.05, width)
    return (20 + random.normal(size=(rows, width)) * scales).astype(np.float32)


def naively_whitened(rows: Features) -> Features:
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    covariance = np.cov(centred, rowvar=False, bias=True)
    damping = SHRINKAGE * np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance + damping * np.eye(len(covariance)))
    turned = centred @ vectors / np.sqrt(values)
    unit: Features = (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize("block_rows", [7, 2048])
def test_whitening_is_damped_pca_whitening(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_BLOCK_ROWS", block_rows)
    rows = features(50)
    found, naive = whitened(rows), naively_whitened(rows)
    assert found.dtype == np.float32
    # Directions may come with either sign, so what counts is the cosines.
    np.testing.assert_allclose(found @ found.T, naive @ naive.T, atol=1e-4)


def test_raw_embeddings_are_all_alike_and_whitened_ones_are_not() -> None:
    rows = features(200)
    raw = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    above_diagonal = np.triu_indices(200, 1)
    assert (raw @ raw.T)[above_diagonal].min() > 0.9
    cosines = (whitened(rows) @ whitened(rows).T)[above_diagonal]
    assert abs(cosines.mean()) < 0.02


@pytest.mark.parametrize("rows", [np.ones((4, 6)), np.zeros((3, 5)), np.ones((1, 4))])
def test_features_without_variance_give_zeros_and_no_pairs(rows: Features) -> None:
    found = whitened(rows.astype(np.float32))
    assert not found.any() and found.shape == rows.shape
    assert list(similar_pairs(found, 0.7)) == []


@pytest.mark.parametrize("block_rows", [1, 7, 64])
@pytest.mark.parametrize("similarity", [-1.0, 0.2, 0.7, 0.999])
def test_pairs_are_exactly_those_above_the_threshold(
    block_rows: int, similarity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_BLOCK_ROWS", block_rows)
    unit = whitened(features(30, 5))
    unit[11] = unit[4]  # a copy
    found = [(int(i), int(j)) for block in similar_pairs(unit, similarity) for i, j in zip(*block, strict=True)]
    naive = [(i, j) for i in range(30) for j in range(i + 1, 30) if float(unit[i] @ unit[j]) >= similarity]
    assert sorted(found) == naive and (4, 11) in naive
