"""Encoding a part's images into its files, each of which is locked while it is in progress.

What encodes is in encoders.py and on_ray.py; what the files have in common in job.py; one file in files.py.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clip_har.backbone import ImageFeatures
from clip_har.embedding.encoders import EncodedBatch, Encoder
from clip_har.embedding.files import ShardInfo, ShardRows, write_shard
from clip_har.embedding.images import names_sha256
from clip_har.embedding.job import Job
from clip_har.errors import RunError
from clip_har.images.hashed_batches import Address
from clip_har.locking import exclusive
from clip_har.progress import Bar, Progress

NamedShard = tuple[int, list[tuple[str, Address]]]
LOCKED = ".embeddings-*.writing"
_ATTEMPTS = 5


@dataclass(kw_only=True)
class EmbeddingCounts:
    """What a command did and found."""

    part: str = ""
    """Which part of the work it was, as I/N; "" if it was all."""
    embedded: int = 0
    """Readable images in its files."""
    unreadable: int = 0
    earlier: int = 0
    """Images, of both kinds, in files that were complete before."""
    locked: int = 0
    """Files that another process is writing."""
    shards: int = 0
    """Files of the whole job."""
    present: int = 0
    """Files of the whole job that are there."""

    def add(self, info: ShardInfo) -> None:
        """Count a file."""
        self.embedded += info.rows - info.unreadable
        self.unreadable += info.unreadable


@dataclass(kw_only=True)
class _OpenShard:
    """A file whose images are being read."""

    number: int
    names: list[str]
    lock: ExitStack
    sha256: list[str | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    features: list[ImageFeatures] = field(default_factory=list)


class ShardEncoder:
    """Writes those of some files that are missing or damaged, each with its images' features.

    Args:
        job: what the files are of.
        encoder: what makes the features.
        batch_size: images per forward pass. No batch has images of two files, so that each file is always the same.
    """

    def __init__(self, job: Job, encoder: Encoder, *, batch_size: int, progress: Progress, bar: Bar) -> None:
        self.counts = EmbeddingCounts(shards=job.shards)
        self._job, self._encoder = job, encoder
        self._batch_size = batch_size
        self._progress, self._bar = progress, bar
        self._open: deque[_OpenShard] = deque()

    def write(self, shards: Iterable[NamedShard], images: int) -> None:
        """Write the files of these images.

        Args:
            images: how many there are to encode, approximately.

        Raises:
            UserError: a worker was killed.
            OSError: a file cannot be written.
        """
        batches = self._encoder.encoded(self._batches(shards), images)
        try:
            with closing(batches):
                for batch in batches:
                    self._take(batch)
        finally:
            for shard in self._open:
                shard.lock.close()

    def _batches(self, shards: Iterable[NamedShard]) -> Iterator[list[Address]]:
        """The images of the files that have to be written, as the workers ask for them."""
        for number, images in shards:
            names = [name for name, _ in images]
            if self._is_done(number, names) or (lock := self._locked(number, names)) is None:
                continue
            self._open.append(_OpenShard(number=number, names=names, lock=lock))
            for start in range(0, len(images), self._batch_size):
                yield [address for _, address in images[start : start + self._batch_size]]

    def _is_done(self, number: int, names: Sequence[str], *, warn: bool = True) -> bool:
        """Whether the file is complete, which is then counted."""
        try:
            info = self._job.info(number)
        except FileNotFoundError:
            return False
        if info is None or info.names != names_sha256(names):
            what = "is damaged or of another job" if info is None else "is of other images"
            if warn:
                self._progress.warn(f"{self._job.path(number)} {what}: it is written again")
            return False
        self.counts.add(info)
        self.counts.earlier += info.rows
        return True

    def _locked(self, number: int, names: Sequence[str]) -> ExitStack | None:
        """The lock of a file; None if another process has it, or has just written the file."""
        lock = lock_of(self._job.out / f".embeddings-{number:05d}.writing")
        if lock is None:
            self.counts.locked += 1
            return None
        if self._is_done(number, names, warn=False):
            lock.close()
            return None
        return lock

    def _take(self, batch: EncodedBatch) -> None:
        """Add a batch to the file that it is of, and write the file with its last one."""
        shard = self._open[0]
        shard.sha256 += batch.sha256
        shard.reasons += batch.reasons
        if batch.features is not None:
            shard.features.append(batch.features)
        self._bar.advance(len(batch.reasons))
        if len(shard.reasons) == len(shard.names):
            self._finish(shard)
            self._open.popleft().lock.close()

    def _finish(self, shard: _OpenShard) -> None:
        widths = self._job.content["widths"]
        info = ShardInfo(
            job=self._job.sha256,
            names=names_sha256(shard.names),
            rows=len(shard.names),
            unreadable=sum(reason is not None for reason in shard.reasons),
        )
        rows = ShardRows(
            paths=shard.names,
            sha256=shard.sha256,
            reasons=shard.reasons,
            features={kind: rows_of(kind, shard.features, width) for kind, width in widths.items()},
            widths=widths,
        )
        write_shard(self._job.path(shard.number), rows, info, dtype=self._job.content["dtype"])
        self.counts.add(info)


def rows_of(kind: str, features: Sequence[ImageFeatures], width: int) -> npt.NDArray[np.float32]:
    """The rows of one kind of feature, "embedding" or "hidden", of several batches: float32 [N, width]."""
    parts = [each.embedding_BD if kind == "embedding" else each.hidden_BH for each in features]
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors).numpy() if tensors else np.zeros((0, width), dtype=np.float32)


def lock_of(folder: Path) -> ExitStack | None:
    """A lock that is a folder while it is held; None if another process has it."""
    for _ in range(_ATTEMPTS):
        lock = ExitStack()
        lock.callback(functools.partial(_remove_folder, folder))
        try:
            lock.enter_context(exclusive(folder, for_weights=False))
        except RunError:
            return None
        except FileNotFoundError:  # the process that had it removed the folder just now
            continue
        return lock
    return None


def remove_stray_locks(out: Path) -> None:
    """Remove the locks of processes that were killed."""
    for folder in out.glob(LOCKED):
        if (lock := lock_of(folder)) is not None:
            lock.close()


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
