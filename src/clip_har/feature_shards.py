"""A shard of cached embeddings: an .npy file for each kind of feature, and a sealed .json that names its rows.

Which shards there are, and what is in them, is for features.py.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip_har.backbone import ImageFeatures
from clip_har.files import write_atomically
from clip_har.integrity import DamagedError, file_sha256, read_sealed_json, write_sealed_json

SHARD_ROWS = 1024
"""Images per shard: what a killed run loses at most."""
SHARD_SECONDS = 30.0
"""A slow backbone writes its shard after this long, however full it is."""


class PendingShard:
    """Rows that are computed but not yet on disk."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.hashes: list[str] = []
        self._parts: dict[str, list[Tensor]] = {}
        self._since = time.monotonic()

    def add(self, hashes: Sequence[str], features: ImageFeatures) -> None:
        self.hashes += hashes
        self._parts.setdefault("embedding", []).append(features.embedding_BD)
        if features.hidden_BH is not None:
            self._parts.setdefault("hidden", []).append(features.hidden_BH)

    def is_due(self) -> bool:
        waited = time.monotonic() - self._since >= SHARD_SECONDS
        return len(self.hashes) >= SHARD_ROWS or (bool(self.hashes) and waited)

    def taken(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """The rows by hash and kind; none remain."""
        hashes, arrays = self.hashes, {kind: torch.cat(parts).numpy() for kind, parts in self._parts.items()}
        self._reset()
        return hashes, arrays


@dataclass(frozen=True)
class RowsInMemory:
    """What a shard is without files."""

    arrays: dict[str, np.ndarray]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(self.arrays)


class DamagedShardError(Exception):
    """A shard that is incomplete, or whose bytes are not those that were written.

    Args:
        path: of its .json.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class Shard:
    """Some images' features: one memory-mapped .npy per kind, and a .json with their content hashes.

    The .json is written last, sealed, and holds the checksums of the whole files: a shard without it, or not matching
    it, does not count. The checksums are compared when the arrays are first asked for.

    """

    def __init__(self, path: Path, checksums: Mapping[str, str], rows: int) -> None:
        self.path = path
        self._checksums = checksums
        self._rows = rows

    @classmethod
    def open(cls, path: Path) -> tuple[Shard, list[str]]:
        """The shard of a .json, and its images' content hashes.

        Raises:
            DamagedShardError: the .json is missing or damaged.
        """
        try:
            index = read_sealed_json(path)
            hashes: list[str] = index["sha256"]
            return cls(path, dict(index["checksums"]), len(hashes)), hashes
        except (DamagedError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedShardError(path) from error

    @property
    def kinds(self) -> frozenset[str]:
        """Which features it has."""
        return frozenset(self._checksums)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The features by kind, [rows, width].

        Raises:
            DamagedShardError: a file is missing, or its bytes are not those that were written.
        """
        found = {}
        try:
            for kind, checksum in self._checksums.items():
                file = _array_path(self.path, kind)
                if file_sha256(file) != checksum:
                    raise DamagedError(file)
                found[kind] = np.load(file, mmap_mode="r", allow_pickle=False)
                if len(found[kind]) != self._rows:
                    raise DamagedError(file)
        except (DamagedError, OSError, ValueError) as error:
            raise DamagedShardError(self.path) from error
        return found


def write_shard(path: Path, arrays: Mapping[str, np.ndarray], hashes: Sequence[str]) -> None:
    checksums = {}
    for kind, array in arrays.items():
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(array))
        checksums[kind] = hashlib.sha256(content.getvalue()).hexdigest()
        write_atomically(_array_path(path, kind), content.getvalue())
    write_sealed_json(path, {"sha256": list(hashes), "checksums": checksums})


def _array_path(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.stem}.{kind}.npy")
