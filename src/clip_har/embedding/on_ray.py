"""`clip-har embed --engine ray`: workers of a Ray cluster read and encode images, in the batches of one process.

Handing out and trying again is in cluster/; the files are written by the command's own process, see encoding.py.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property

from clip_har import __version__
from clip_har.backbone import Backbone
from clip_har.cluster.pool import Reader, WorkerPool, item_names
from clip_har.cluster.session import connected, uses_gpu
from clip_har.config import EmbedConfig
from clip_har.embedding.encoders import EncodedBatch, Encoder, EncoderInfo, about, encode, load_encoder
from clip_har.images.hashed_batches import Address, HashedBatch, hash_and_decode
from clip_har.images.preprocessing import Preprocessing
from clip_har.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What all workers must have in common."""

    version: str
    about: EncoderInfo
    notes: tuple[str, ...]


class EncodeWorker:
    """A worker: it has the model, reads what is not read yet, and encodes.

    Args:
        config: the command's.
    """

    def __init__(self, config: EmbedConfig) -> None:
        self._config = config

    @cached_property
    def common(self) -> _Common:
        """Load the model, and say which it is.

        Raises:
            UserError: it cannot be used.
        """
        found = about(self._backbone, self._config.features)
        return _Common(version=__version__, about=found, notes=self._backbone.notes)

    def work(self, batch: Sequence[Address] | HashedBatch) -> EncodedBatch:
        """The features of a batch."""
        read = batch if isinstance(batch, HashedBatch) else read_batch(self.common.about.info.preprocessing, batch)
        return encode(self._backbone, read)

    @cached_property
    def _backbone(self) -> Backbone:  # not when it is made: a worker that died is made again, and only gets work
        config = self._config
        return load_encoder(
            config.model, device=config.device, precision=config.precision, offline=config.offline, progress=SILENT
        )


def read_batch(preprocessing: Preprocessing, addresses: Sequence[Address]) -> HashedBatch:
    """Read and decode images in this process."""
    return hash_and_decode(addresses, preprocessing.pixel_transform())


@contextmanager
def ray_encoder(config: EmbedConfig, progress: Progress) -> Iterator[Encoder]:
    """What encodes on a Ray cluster, which is left at the end.

    Raises:
        UserError: there is no such cluster, or its workers cannot use the model.
    """
    with connected(config.ray) as ray:
        gpu = uses_gpu(config.device, ray)
        pool = WorkerPool(ray, config.ray, EncodeWorker, (config,), gpu=gpu, named=_named, progress=progress)
        common: _Common = pool.start()
        for note in common.notes:
            progress.note(note)
        yield _RayEncoder(pool, common.about, config, gpu=gpu)


class _RayEncoder:
    def __init__(self, pool: WorkerPool, about: EncoderInfo, config: EmbedConfig, *, gpu: bool) -> None:
        self.about = about
        self._pool, self._config, self._gpu = pool, config, gpu

    def encoded(self, batches: Iterable[Sequence[Address]], images: int) -> Generator[EncodedBatch, None, None]:
        del images
        reader = None
        if self._gpu:  # else reading and encoding take the same processors, and pixels need not be sent
            arguments = (self.about.info.preprocessing,)
            reader = Reader(read=read_batch, arguments=arguments, processes=self._config.workers)
        with closing(self._pool.in_order(batches, reader)) as results:
            yield from results


def _named(addresses: Sequence[Address]) -> str:
    return item_names(map(str, addresses))
