"""Embeddings computed once: an on-disk store keyed by image content, model weights, preprocessing and precision.

The store is a folder of immutable shards, read through memory maps. Knows nothing of labels or splits.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_har import distributed
from clip_har.backbone import Backbone, ImageFeatures
from clip_har.config import Augment
from clip_har.dataset import ImageRecord
from clip_har.feature_rows import CachedRows, changed
from clip_har.feature_shards import DamagedShardError, PendingShard, RowsInMemory, Shard, write_shard
from clip_har.files import remove_stray_temporaries, unless_unwritable
from clip_har.fusion import FusedBackbone
from clip_har.images import (
    PIXELS_VERSION,
    CorruptedTransform,
    Corruption,
    DecodedBatch,
    PixelView,
    decode_batches,
    view_seed,
)
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.progress import SILENT, Progress
from clip_har.projection import NEW_PROJECTIONS

FORMAT = "clip-har-features-1"
FUSED_TOGETHER = 4096
"""Images whose features of several models are joined and written together."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What one call of `encode` had to do."""

    encoded: int
    """Images that went through the image encoder."""
    reused: int
    """Images found in the store."""
    seconds: float
    """Wall time of the encoding, 0 when nothing had to be done."""
    unreadable: Mapping[str, str]
    """sha256 -> reason, of the images that cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One augmented view of every image; which, follows from the image's content and these."""

    augment: Augment
    number: int

    def key(self) -> dict[str, Any]:
        """What cached features depend on besides the image's content and the model."""
        return dataclasses.asdict(self)


class FeatureTable:
    """Features of N images in a fixed order. Rows stay on disk until a property is first read."""

    def __init__(self, store: FeatureStore, hashes: Sequence[str]) -> None:
        self._store = store
        self._hashes = tuple(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def hashes(self) -> tuple[str, ...]:
        """The images' content hashes."""
        return self._hashes

    def subset(self, indices: Sequence[int]) -> FeatureTable:
        """The features of some of the images, in the order given."""
        return FeatureTable(self._store, [self._hashes[index] for index in indices])

    def joined(self, other: FeatureTable) -> FeatureTable:
        """These features and then another table's of the same store."""
        assert self._store is other._store
        return FeatureTable(self._store, self._hashes + other._hashes)

    @cached_property
    def embedding(self) -> Tensor:
        """Unit-length embeddings, float32 [N, D]."""
        return self._store.rows(self._hashes, "embedding")

    @cached_property
    def hidden(self) -> Tensor:
        """Features before the projection, float32 [N, H]; the embeddings where the tower has none."""
        return self._store.rows(self._hashes, "hidden" if self._store.has_hidden else "embedding")


class FeatureStore:
    """All features of one (weights, preprocessing, precision), by the images' content hashes.

    Args:
        folder: the cache folder; the store makes a subfolder of its own in it.
        backbone: what computes the features that are missing.
        view: encode this augmented view of each image, or the image so corrupted, in place of the image as it is.
        batch_size: images encoded together.
        workers: processes that decode them; 0 decodes in the main process.
        progress: shows a bar, and is told of damaged files, whose content is computed again.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        *,
        view: View | Corruption | None = None,
        batch_size: int = 64,
        workers: int = 0,
        progress: Progress = SILENT,
    ) -> None:
        self.cache = folder
        self.workers = workers
        self._backbone = backbone
        self._batch_size = batch_size
        self._view = view
        self._progress = progress
        self.folder = folder / "features" / store_key(backbone, view)
        self._unreadable: dict[str, str] = {}
        self._warned = False
        if distributed.is_main():
            remove_stray_temporaries(self.folder, self.folder / "text")
        self._rows = CachedRows(self.folder, self._say_damaged)
        self._read_unreadable()

    @property
    def has_hidden(self) -> bool:
        """Whether the tower has features before its projection."""
        return self._rows.has("hidden")

    def of_view(self, view: View | Corruption) -> FeatureStore:
        """The store of the same backbone for an augmented or corrupted view of each image."""
        return self._sibling(self._backbone, view)

    def _sibling(self, backbone: Backbone, view: View | Corruption | None) -> FeatureStore:
        return FeatureStore(
            self.cache,
            backbone,
            view=view,
            batch_size=self._batch_size,
            workers=self.workers,
            progress=self._progress,
        )

    def encode(self, records: Sequence[ImageRecord]) -> Encoding:
        """Make sure that every record has its features, computing only those that are missing.

        Images that cannot be decoded are remembered, so that they are not tried again either.
        """
        wanted = {record.sha256: record for record in records}
        known = self._rows.known(list(wanted))
        missing = [r for (sha256, r), here in zip(wanted.items(), known, strict=True) if not here]
        missing = [record for record in missing if record.sha256 not in self._unreadable]
        missing = distributed.gather_objects(missing)[0]  # another process may have looked later, and found more
        started = time.perf_counter()
        joined = None  # of several models: how many images were not only put together from their stores
        if isinstance(self._backbone, FusedBackbone):
            joined = self._fuse_missing(missing, self._backbone)
        elif own := missing[distributed.rank() :: distributed.world_size()]:
            self._encode_missing(own)
        self._share()
        encoded = joined
        if encoded is None:
            encoded = int(self._rows.known([record.sha256 for record in missing]).sum())
        return Encoding(
            encoded=encoded,
            reused=len(wanted) - (len(missing) if joined is None else joined),
            seconds=time.perf_counter() - started if missing else 0.0,
            unreadable={sha256: self._unreadable[sha256] for sha256 in wanted if sha256 in self._unreadable},
        )

    def table(self, records: Iterable[ImageRecord]) -> FeatureTable:
        """The features of some encoded images, in the order given."""
        return FeatureTable(self, [record.sha256 for record in records])

    def rows(self, hashes: Sequence[str], kind: str) -> Tensor:
        """Gather rows of one kind ("embedding" or "hidden") from the shards: float32 [N, width]."""
        if not hashes:
            return torch.zeros(0, self._backbone.info.embed_dim)
        return torch.from_numpy(self._rows.rows(hashes, kind))

    def text(self, sentences: Sequence[str]) -> Tensor:
        """Unit-length float32 embeddings [T, D] of sentences, computed once per sentence list."""
        key = hashlib.sha256(json.dumps(list(sentences)).encode()).hexdigest()
        path = self.folder / "text" / f"{key}.json"
        if path.is_file():
            try:
                return torch.from_numpy(np.array(Shard.open(path)[0].arrays["embedding"]))
            except DamagedShardError:
                self._say_damaged(path)
        embedding = self._backbone.encode_text(sentences)
        with self._allowing_read_only():
            write_shard(path, {"embedding": embedding.numpy()}, sentences)
        return embedding

    def _encode_missing(self, missing: Sequence[ImageRecord]) -> None:
        batches = self._decoded(missing)
        normalise = self._backbone.info.preprocessing.normalise
        pending = PendingShard()
        try:
            with self._progress.bar(_said(self._view), total=len(missing), unit="images") as bar:
                for batch in batches:
                    for index, reason in batch.unreadable:
                        self._remember_unreadable(missing[index].sha256, reason)
                    if batch.indices:
                        features = self._backbone.encode_images(normalise(batch.images_BCHW))
                        pending.add([missing[index].sha256 for index in batch.indices], features)
                    if pending.is_due():
                        self._take_in(pending)
                    bar.advance(len(batch.indices) + len(batch.unreadable))
        finally:
            if pending.hashes:  # also when interrupted: what is encoded is kept
                self._take_in(pending)

    def _fuse_missing(self, missing: Sequence[ImageRecord], backbone: FusedBackbone) -> int:
        """Join the features that each model has of the images; returns how many images at least one had to encode."""
        if not missing:
            return 0
        stores = [self._sibling(part, self._view) for part in backbone.parts]  # where the models' own runs look too
        encoded = 0
        for store in stores:  # together with the other processes, if there are any
            encoding = store.encode(missing)
            encoded = max(encoded, encoding.encoded)
            for sha256, reason in encoding.unreadable.items():
                self._remember_unreadable(sha256, reason)
        if not distributed.is_main():
            return encoded
        hashes = [record.sha256 for record in missing if record.sha256 not in self._unreadable]
        for start in range(0, len(hashes), FUSED_TOGETHER):
            some = hashes[start : start + FUSED_TOGETHER]
            pending = PendingShard()
            pending.add(some, backbone.fuse_images([store.features(some) for store in stores]))
            self._take_in(pending)
        return encoded

    def features(self, hashes: Sequence[str]) -> ImageFeatures:
        """All features of some encoded images."""
        hidden = self.rows(hashes, "hidden") if self.has_hidden else None
        return ImageFeatures(embedding_BD=self.rows(hashes, "embedding"), hidden_BH=hidden)

    def _take_in(self, pending: PendingShard) -> None:
        """Write the rows and read them from disk; from memory if the cache is read-only, or was deleted just now."""
        hashes, arrays = pending.taken()
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        with self._allowing_read_only():
            write_shard(path, arrays, hashes)
            try:
                shard = Shard.open(path)[0]
                _ = shard.arrays
                self._rows.add(shard, hashes)
                return
            except DamagedShardError as error:
                if distributed.world_size() > 1:  # the others read it from there
                    raise changed(error) from error
        self._rows.add(RowsInMemory(arrays), hashes)

    @contextmanager
    def _allowing_read_only(self) -> Iterator[None]:
        """Continue without the cache, with one warning, if it cannot be written to and no other process needs it."""
        if distributed.world_size() > 1:
            yield
            return
        with unless_unwritable(self._warn_once, f"{self.folder} cannot be written to: new embeddings are not cached"):
            yield

    def _warn_once(self, said: str) -> None:
        if not self._warned:
            self._progress.warn(said)
        self._warned = True

    def _share(self) -> None:
        """Take in what the other processes have encoded."""
        if distributed.world_size() == 1:
            return
        for unreadable in distributed.gather_objects(self._unreadable):
            self._unreadable.update(unreadable)
        if distributed.is_main():
            write_sealed_json(self._unreadable_path, self._unreadable)
        distributed.barrier()
        self._rows = CachedRows(self.folder, self._say_damaged)

    def _decoded(self, records: Sequence[ImageRecord]) -> Iterator[DecodedBatch]:
        preprocessing, paths = self._backbone.info.preprocessing, [record.path for record in records]
        decoded = functools.partial(decode_batches, paths, batch_size=self._batch_size, workers=self.workers)
        if self._view is None:
            return decoded(preprocessing.pixel_transform())
        if isinstance(self._view, Corruption):
            corrupted = CorruptedTransform(preprocessing=preprocessing, corruption=self._view)
            return decoded(corrupted, seeds=[self._view.image_seed(record.sha256) for record in records])
        transform = PixelView(preprocessing=preprocessing, augment=self._view.augment)
        return decoded(transform, seeds=[view_seed(record.sha256, self._view.number) for record in records])

    def _say_damaged(self, path: Path) -> None:
        self._progress.warn(f"Cached embeddings in {path} are damaged or have no checksums: they are computed again")

    @property
    def _unreadable_path(self) -> Path:
        return self.folder / "unreadable.json"

    def _read_unreadable(self) -> None:
        try:
            self._unreadable = read_sealed_json(self._unreadable_path)
        except FileNotFoundError:
            self._unreadable = {}
        except DamagedError:
            self._progress.warn(f"{self._unreadable_path} is damaged: images that cannot be read are tried again")
            self._unreadable = {}

    def _remember_unreadable(self, sha256: str, reason: str) -> None:
        self._unreadable[sha256] = reason
        with self._allowing_read_only():
            write_sealed_json(self._unreadable_path, self._unreadable)


def store_key(backbone: Backbone, view: View | Corruption | None = None) -> str:
    """Name of the store's folder: a hash of everything besides the image that decides its features."""
    parts = {
        "format": FORMAT,
        "weights": backbone.info.weights_hash,
        "activation": backbone.info.activation,
        "preprocessing": backbone.info.preprocessing.to_json(),
        "pixels": PIXELS_VERSION,
        "precision": backbone.precision,
    }
    if backbone.info.projection in NEW_PROJECTIONS:
        parts["projection"] = backbone.info.projection
    if view is not None:
        parts["view"] = view.key()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _said(view: View | Corruption | None) -> str:
    if view is None:
        return "Encoding images"
    if isinstance(view, Corruption):
        return f"Encoding {view.kind} {view.severity}"
    return f"Encoding {view.augment} view {view.number + 1}"
