"""What frozen layers make of images, computed once and memory-mapped: in the cache folder, by content hash.

The shards are those of the feature store; a row is one image's tokens, as float32 or float16.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_har.feature_rows import CachedRows
from clip_har.feature_shards import Shard, write_shard
from clip_har.files import remove_stray_temporaries
from clip_har.progress import SILENT, Progress

FORMAT = "clip-har-layers-1"
SHARD_BYTES = 64_000_000
"""Size at which a shard is written: what a killed run loses at most."""
SPARE_BYTES = 500_000_000
"""Disk space that stays free for the run itself."""
_KIND = "tokens"


class LayerCache:
    """The tokens that one model's frozen layers give for images.

    Args:
        folder: the cache folder; this cache makes a subfolder of its own in it.
        key: everything besides the image that decides the tokens.
        shape: tokens of an image, and their width.
        dtype: of the files; rows are given as float32.
        progress: told of damaged shards.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        *,
        shape: tuple[int, int],
        dtype: type[np.floating[Any]],
        progress: Progress = SILENT,
    ) -> None:
        parts = json.dumps({"format": FORMAT, "dtype": dtype.__name__, **key}, sort_keys=True)
        self.folder = folder / "layers" / hashlib.sha256(parts.encode()).hexdigest()[:32]
        self._shape, self._dtype, self._progress = shape, dtype, progress
        self.reopen()

    def reopen(self) -> None:
        """Read again which shards there are."""
        self._rows = CachedRows(self.folder, self._say_damaged)

    @property
    def image_bytes(self) -> int:
        """Bytes that an image takes."""
        return int(np.prod(self._shape)) * np.dtype(self._dtype).itemsize

    def missing(self, hashes: Sequence[str]) -> list[str]:
        """Those of the hashes that have no row here, each once. The files that have the others are verified first."""
        wanted = list(dict.fromkeys(hashes))
        if not wanted:
            return []
        return [sha256 for sha256, here in zip(wanted, self._rows.known(wanted), strict=True) if not here]

    def free_bytes(self) -> int:
        """Bytes that may be written here."""
        existing = next(parent for parent in (self.folder, *self.folder.parents) if parent.exists())
        return max(0, shutil.disk_usage(existing).free - SPARE_BYTES)

    def write(self, rows: Iterable[tuple[Sequence[str], Tensor]]) -> None:
        """Write the tokens [B, L, W] of images by their hashes, shard by shard, and what there is when interrupted."""
        remove_stray_temporaries(self.folder)
        hashes: list[str] = []
        parts: list[np.ndarray] = []
        try:
            for some, tokens_BLW in rows:
                hashes += some
                parts.append(tokens_BLW.flatten(1).numpy().astype(self._dtype))
                if len(hashes) * self.image_bytes >= SHARD_BYTES:
                    full_hashes, full_parts, hashes, parts = hashes, parts, [], []
                    self._write_shard(full_hashes, full_parts)
        finally:
            if hashes:
                self._write_shard(hashes, parts)

    def tokens(self, hashes: Sequence[str]) -> Tensor:
        """The images' tokens, float32 [N, L, W].

        Raises:
            KeyError: an image is not in the cache.
            MachineError: a file has been deleted or changed since it was compared.
        """
        return torch.from_numpy(self._rows.rows(hashes, _KIND)).reshape(len(hashes), *self._shape)

    def _write_shard(self, hashes: list[str], parts: list[np.ndarray]) -> None:
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        write_shard(path, {_KIND: np.concatenate(parts)}, hashes)
        self._rows.add(Shard.open(path)[0], hashes)

    def _say_damaged(self, path: Path) -> None:
        self._progress.warn(f"Cached layers in {path} are damaged or have no checksums: they are computed again")
