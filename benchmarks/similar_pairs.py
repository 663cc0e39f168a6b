"""CPU time and recall of the search for similar rows through an index, against comparing all with all.

    python benchmarks/similar_pairs.py --sizes 10000 50000 100000

The rows stand for whitened embeddings: 256 numbers, in clusters of 50 on average, of which every tenth row is another
one with noise, so that the similarities of the pairs are spread between 0.8 and 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from clip_har.audit.approximate import PROBED_LISTS, approximately_similar_pairs
from clip_har.audit.embeddings import similar_pairs
from clip_har.config import AuditSettings

WIDTH, CLUSTER = 256, 50
Pairs = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000])
    arguments.add_argument("--probed", type=int, nargs="+", default=[PROBED_LISTS])
    arguments.add_argument("--similarity", type=float, default=AuditSettings().similarity)
    given = arguments.parse_args()
    print("rows     pairs  lists probed  exact (s)  index (s)  recall")
    for size in given.sizes:
        rows_NH = generated(size)
        exact, exact_seconds = found(partial(similar_pairs, rows_NH, given.similarity), size)
        for probed in given.probed:
            search = partial(approximately_similar_pairs, rows_NH, given.similarity, probed=probed)
            some, seconds = found(search, size)
            recall = len(np.intersect1d(exact, some)) / max(1, len(exact))
            print(
                f"{size:<7,} {len(exact):>6,} {probed:>13} {exact_seconds:>10.1f} {seconds:>10.1f} {recall:>7.4f}",
                flush=True,
            )


def generated(size: int) -> NDArray[np.float32]:
    """Rows of unit length [size, WIDTH]."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(max(1, size // CLUSTER), WIDTH))
    rows = centres[generator.integers(0, len(centres), size)] + 0.8 * generator.normal(size=(size, WIDTH))
    copies = generator.permutation(size)[: size // 10]
    noise = generator.uniform(0, 0.9, (len(copies), 1)) * generator.normal(size=(len(copies), WIDTH))
    rows[copies] = rows[generator.integers(0, size, len(copies))] + noise
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def found(search: Callable[[], Pairs], size: int) -> tuple[NDArray[np.int64], float]:
    """The pairs as numbers, each once, and the CPU seconds that the search took."""
    start = time.process_time()
    numbers = [left * size + right for left, right in search()]
    seconds = time.process_time() - start
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *numbers])), seconds


if __name__ == "__main__":
    main()
