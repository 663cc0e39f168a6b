"""Pairs of similar rows among very many, through an index that compares each row with a few hundredths of the others.

The exact search, which compares all with all, is in embeddings.py.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clip_har.audit.embeddings import similar_pairs
from clip_har.audit.hamming import Indices

EXACT_ROWS = 200_000
"""Rows up to which all are compared with all."""
ROWS_PER_LIST = 250
"""Rows of a list of the index, on average; a row is compared with those of a few lists."""
PROBED_LISTS = 8
"""Lists that a row is compared with. benchmarks/similar_pairs.py measures the recall."""
TRAINED_ROWS_PER_LIST = 40
"""Rows from which the centre of a list is learned: faiss's own lower limit is 39."""
_QUERIES = 2048


def uses_index(rows: int) -> bool:
    """Whether so many rows are searched through an index, which needs the package faiss."""
    return rows > EXACT_ROWS and importlib.util.find_spec("faiss") is not None


def pairs_alike(unit_NH: NDArray[np.float32], similarity: float) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs of `similar_pairs`: all of them, or with very many rows and faiss nearly all."""
    search = approximately_similar_pairs if uses_index(len(unit_NH)) else similar_pairs
    return search(unit_NH, similarity)


def approximately_similar_pairs(
    unit_NH: NDArray[np.float32], similarity: float, *, probed: int = PROBED_LISTS
) -> Iterator[tuple[Indices, Indices]]:
    """Yield most of the pairs i < j whose rows have at least this cosine similarity, some of them twice.

    An inverted file (Jégou, Douze and Schmid 2011, "Product quantization for nearest neighbor search", section IV)
    without quantisation: k-means puts rows into lists, and a row is compared with the rows of the nearest lists. The
    similarities themselves are exact, so no pair is wrong; pairs between lists that are far apart are missed.

    Args:
        unit_NH: rows of unit length.
        similarity: in [-1, 1].
        probed: lists that a row is compared with.

    Raises:
        ImportError: faiss is not installed.
    """
    faiss = importlib.import_module("faiss")
    count, width = unit_NH.shape
    lists = max(1, count // ROWS_PER_LIST)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid = 0, TRAINED_ROWS_PER_LIST  # the same lists each time
    index.nprobe = min(probed, lists)
    rows_NH = np.ascontiguousarray(unit_NH, dtype=np.float32)
    index.train(rows_NH)
    index.add(rows_NH)
    just_below = float(np.nextafter(np.float32(similarity), np.float32(-2)))  # faiss leaves out what is equal
    for start in range(0, count, _QUERIES):
        limits, _, right = index.range_search(rows_NH[start : start + _QUERIES], just_below)
        left = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits.astype(np.int64)))
        low, high = np.minimum(left, right), np.maximum(left, right)
        # A pair is found from either of its rows, or from one alone: each row is compared with lists of its own.
        kept = low < high
        if kept.any():
            yield low[kept], high[kept]
