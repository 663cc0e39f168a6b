"""The cached rows of a folder of shards, found by content hash. Files are read when rows of theirs are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clip_har.errors import MachineError
from clip_har.feature_index import ABSENT, RowIndex
from clip_har.feature_shards import DamagedShardError, RowsInMemory, Shard


class CachedRows:
    """All rows of the shards in a folder, and of those that are added.

    Args:
        folder: of the shards; it need not exist.
        say_damaged: called with the .json of each shard that is damaged; it is deleted.
    """

    def __init__(self, folder: Path, say_damaged: Callable[[Path], None]) -> None:
        self._say_damaged = say_damaged
        self._shards: list[Shard | RowsInMemory] = []
        self._index = RowIndex()
        for path in sorted(folder.glob("*-*.json")):
            try:
                self.add(*Shard.open(path))
            except (DamagedShardError, ValueError, TypeError):
                self._drop(path)

    def has(self, kind: str) -> bool:
        """Whether there are features of this kind."""
        return bool(self._shards) and kind in self._shards[0].kinds

    def add(self, shard: Shard | RowsInMemory, hashes: Sequence[str]) -> None:
        """Take in a shard with the hashes of its rows, which count from now on instead of earlier ones."""
        self._index.add(len(self._shards), hashes)
        self._shards.append(shard)

    def known(self, hashes: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which hashes have rows here. The shards that hold them are compared with their checksums first."""
        for number in np.unique(self._index.find(hashes)[:, 0]):
            if number == ABSENT:
                continue
            shard = self._shards[number]
            try:
                _ = shard.arrays
            except DamagedShardError as error:
                self._index.remove(number)
                self._drop(error.path)
        found: npt.NDArray[np.bool_] = self._index.find(hashes)[:, 0] != ABSENT
        return found

    def rows(self, hashes: Sequence[str], kind: str) -> npt.NDArray[np.float32]:
        """Rows of one kind in the order of the hashes, which must be known and at least one: float32 [N, width].

        Raises:
            MachineError: a file has been deleted or changed since it was compared.
        """
        places = self._index.find(hashes)
        if (places == ABSENT).any():
            raise KeyError(hashes[int((places[:, 0] == ABSENT).argmax())])
        try:
            arrays = {number: self._shards[number].arrays[kind] for number in np.unique(places[:, 0])}
        except DamagedShardError as error:
            raise changed(error) from error
        out = np.empty((len(hashes), next(iter(arrays.values())).shape[1]), dtype=np.float32)
        for number, array in arrays.items():
            of_shard = places[:, 0] == number
            out[of_shard] = array[places[of_shard, 1]]
        return out

    def _drop(self, path: Path) -> None:
        self._say_damaged(path)
        with suppress(OSError):  # its images are simply encoded again
            path.unlink(missing_ok=True)


def changed(error: DamagedShardError) -> MachineError:
    """What to say of a shard that was right a moment ago."""
    return MachineError(f"{error.path} was deleted or changed just now", remedy="Run the same command again.")
