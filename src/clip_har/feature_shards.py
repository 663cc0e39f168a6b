"""A shard of cached embeddings: an .npy file for each kind of feature, and a sealed .json that names its rows.

Which shards there are, and what is in them, is for features.py.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    hashes: list[str]
    arrays: dict[str, np.ndarray]


class DamagedShardError(Exception):
    """A shard that is incomplete, or whose bytes are not those that were written."""


class Shard:
    """Some images' features: one memory-mapped .npy per kind, and a .json with their content hashes.

    The .json is written last, sealed, and holds the checksums of the whole files: a shard without it, or not matching
    it, does not count.
    """

    def __init__(self, path: Path) -> None:
        try:
            index = read_sealed_json(path)
            self.hashes: list[str] = index["sha256"]
            self.arrays: dict[str, np.ndarray] = {}
            for kind, checksum in index["checksums"].items():
                file = _array_path(path, kind)
                if file_sha256(file) != checksum:
                    raise DamagedError(file)
                array = np.load(file, mmap_mode="r", allow_pickle=False)
                if len(array) != len(self.hashes):
                    raise DamagedError(file)
                self.arrays[kind] = array
        except (DamagedError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedShardError(path) from error


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
