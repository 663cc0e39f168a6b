"""Where the features of an image are, by its content hash: sorted digests, 40 bytes an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ABSENT = -1
_DIGEST = np.dtype("S32")  # compared byte by byte; a shorter text would be one that ends in zeros, and none is shorter
_PLACE = np.int32


class RowIndex:
    """From SHA-256 in hex to a shard's number and a row in it. Of rows with the same hash, the last counts."""

    def __init__(self) -> None:
        self._digests = np.zeros(0, _DIGEST)
        self._places = np.zeros((0, 2), _PLACE)
        self._added: list[tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int32]]] = []

    def __len__(self) -> int:
        self._sort()
        return len(self._digests)

    def add(self, shard: int, hashes: Sequence[str]) -> None:
        """Take in a shard's rows, in their order."""
        places = np.empty((len(hashes), 2), _PLACE)
        places[:, 0] = shard
        places[:, 1] = np.arange(len(hashes))
        self._added.append((_digests(hashes), places))

    def remove(self, shard: int) -> None:
        """Forget a shard's rows."""
        self._sort()
        kept = self._places[:, 0] != shard
        self._digests, self._places = self._digests[kept], self._places[kept]

    def find(self, hashes: Sequence[str]) -> npt.NDArray[np.int32]:
        """Shard and row of each hash, [N, 2]; both ABSENT where there is none."""
        self._sort()
        found = np.full((len(hashes), 2), ABSENT, _PLACE)
        if len(self._digests):
            wanted = _digests(hashes)
            at = np.minimum(np.searchsorted(self._digests, wanted), len(self._digests) - 1)
            known = self._digests[at] == wanted
            found[known] = self._places[at[known]]
        return found

    def _sort(self) -> None:
        if not self._added:
            return
        digests = np.concatenate([self._digests, *(digests for digests, _ in self._added)])
        places = np.concatenate([self._places, *(places for _, places in self._added)])
        self._added = []
        order = np.argsort(digests, kind="stable")
        digests, places = digests[order], places[order]
        last = np.ones(len(digests), bool)
        last[:-1] = digests[1:] != digests[:-1]
        self._digests, self._places = digests[last], places[last]


def _digests(hashes: Sequence[str]) -> npt.NDArray[np.bytes_]:
    joined = b"".join(map(bytes.fromhex, hashes))
    if len(joined) != len(hashes) * _DIGEST.itemsize:
        raise ValueError("not SHA-256 in hex")
    return np.frombuffer(joined, _DIGEST)
