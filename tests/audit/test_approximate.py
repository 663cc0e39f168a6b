"""The search for similar rows through an index: nearly the pairs of the exact one, and no other."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_har.audit import approximate
from clip_har.audit.approximate import approximately_similar_pairs, pairs_alike, uses_index
from clip_har.audit.embeddings import similar_pairs

ROWS, WIDTH = 3000, 64


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    """Clusters of rows, of which every tenth is another with noise; two are equal."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, WIDTH))
    found = centres[generator.integers(0, 60, ROWS)] + 0.8 * generator.normal(size=(ROWS, WIDTH))
    copies = generator.permutation(ROWS)[: ROWS // 10]
    found[copies] = found[generator.integers(0, ROWS, len(copies))] + 0.4 * generator.normal(size=(len(copies), WIDTH))
    found[17] = found[2500]
    unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def numbers(pairs: object) -> set[tuple[int, int]]:
    return {pair for left, right in pairs for pair in zip(left.tolist(), right.tolist(), strict=True)}  # type: ignore[attr-defined]


def test_nearly_all_pairs_are_found_and_no_other(rows: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "ROWS_PER_LIST", 50)
    exact = numbers(similar_pairs(rows, 0.7))
    some = numbers(approximately_similar_pairs(rows, 0.7))
    assert len(exact) > 100 and (17, 2500) in some
    assert some <= exact | numbers(similar_pairs(rows, 0.69999)) and len(some & exact) >= 0.98 * len(exact)
    assert numbers(approximately_similar_pairs(rows, 0.7)) == some
    assert all(left < right for left, right in some)
    few = numbers(approximately_similar_pairs(rows, 0.7, probed=1))
    assert few < some  # so the lists matter
    assert numbers(approximately_similar_pairs(rows[:10], -1.0)) == {(i, j) for j in range(10) for i in range(j)}


def test_an_index_is_used_for_many_rows_if_there_is_one(
    rows: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = numbers(similar_pairs(rows, 0.7))
    assert not uses_index(approximate.EXACT_ROWS)
    assert numbers(pairs_alike(rows, 0.7)) == exact
    asked = []

    def search(*given: object) -> list[tuple[Any, Any]]:
        asked.append(given)
        return []

    monkeypatch.setattr(approximate, "EXACT_ROWS", ROWS - 1)
    monkeypatch.setattr(approximate, "approximately_similar_pairs", search)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert numbers(pairs_alike(rows, 0.7)) == set() and len(asked) == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert numbers(pairs_alike(rows, 0.7)) == exact
