"""All pairs of 64-bit hashes within a Hamming distance, without comparing every pair.

What the hashes are of, and what a small distance means, is in the modules that call this.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

CHUNKS = 4
"""Parts of 16 bits that a hash is looked up by."""
BLOCK_PAIRS = 1 << 21
"""Candidate pairs held in memory at once."""
_CHUNK_BITS = 64 // CHUNKS
_TABLE_SIZE = 1 << _CHUNK_BITS


def pairs_within(queries_N: Hashes, hashes_N: Hashes, radius: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs i < j for which queries[i] and hashes[j] differ in at most `radius` bits, in blocks.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012, arXiv 1307.2982): of 4 disjoint parts of two hashes that
    differ in r bits, one differs in at most r // 4, so looking up every part with up to so many bits turned finds
    every pair. A pair may be yielded several times.

    Args:
        queries_N: the hashes themselves, or those of the images turned in some way, in the same order.
        hashes_N: hashes.
        radius: bits, from 0 to 64.
    """
    radius = min(radius, 64)
    for part in range(CHUNKS):
        shift = np.uint64(part * _CHUNK_BITS)
        keys_N = ((hashes_N >> shift) & np.uint64(_TABLE_SIZE - 1)).astype(np.int64)
        wanted_N = ((queries_N >> shift) & np.uint64(_TABLE_SIZE - 1)).astype(np.int64)
        order_N = np.argsort(keys_N, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys_N, minlength=_TABLE_SIZE))])
        for mask in _masks(radius // CHUNKS):
            turned_N = wanted_N ^ mask
            for left, places in _expanded(starts[turned_N], starts[turned_N + 1]):
                right = order_N[places]
                ordered = left < right
                left, right = left[ordered], right[ordered]
                near = np.bitwise_count(queries_N[left] ^ hashes_N[right]) <= radius
                if near.any():
                    yield left[near], right[near]


def _masks(bits: int) -> Iterator[int]:
    """Every 16-bit number with at most so many ones."""
    for count in range(bits + 1):
        for places in combinations(range(_CHUNK_BITS), count):
            yield sum(1 << place for place in places)


def _expanded(starts_N: Indices, ends_N: Indices) -> Iterator[tuple[Indices, Indices]]:
    """The ranges start..end of every row as (row, place) pairs, at most about BLOCK_PAIRS at once."""
    counts_N = ends_N - starts_N
    rows = np.flatnonzero(counts_N)
    totals = np.cumsum(counts_N[rows])
    first = 0
    while first < len(rows):
        done = totals[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(totals, done + BLOCK_PAIRS, side="right")))
        block = rows[first:last]
        counts = counts_N[block]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(block, counts), np.repeat(starts_N[block], counts) + within
        first = last
