"""`clip-har predict --engine ray`: workers of a Ray cluster classify the batches of one process.

The file is written by the command's own process, in order; see predict_files.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from clip_har import __version__
from clip_har.checkpoint import Run, load_run
from clip_har.cluster.pool import Reader, WorkerPool, item_names
from clip_har.cluster.session import connected, uses_gpu
from clip_har.config import PredictConfig
from clip_har.images.lenient_batches import ImageInput, ReadImage, read_images
from clip_har.images.preprocessing import Preprocessing
from clip_har.predict import AbstentionPolicy, Judge, Prediction, Predictor
from clip_har.progress import Progress

ReadBatch: TypeAlias = tuple[list[ImageInput], list[ReadImage]]


@dataclass(frozen=True, kw_only=True)
class _Common:
    """What all workers must have in common."""

    version: str
    run: str
    model: str
    precision: str
    notes: tuple[str, ...]


class PredictWorker:
    """A worker: it has the run, reads what is not read yet, and classifies.

    Args:
        run: run folder.
        config: the command's.
    """

    def __init__(self, run: Path, config: PredictConfig) -> None:
        self._run, self._config = run, config

    @cached_property
    def common(self) -> _Common:
        """Load the run, and say which it is.

        Raises:
            UserError: it cannot be used.
        """
        predictor = self._predictor
        return _Common(
            version=__version__,
            run=predictor.run.weights_sha256(),
            model=predictor.backbone.info.weights_hash,
            precision=predictor.backbone.precision,
            notes=tuple(predictor.notes),
        )

    def work(self, batch: list[ImageInput] | ReadBatch) -> list[Prediction]:
        """The predictions of a batch."""
        read = batch if isinstance(batch, tuple) else read_batch(self._predictor.run.preprocessing, batch)
        return list(self._predictor.predict_read([read], self._judge, top=self._config.top))

    @cached_property
    def _predictor(self) -> Predictor:  # not when it is made: a worker that died is made again, and only gets work
        model = self._config.model
        return Predictor(self._run, model=model.model, device=model.device, precision=model.precision)

    @cached_property
    def _judge(self) -> Judge:
        return self._predictor.judge(AbstentionPolicy.of(self._config))


def read_batch(preprocessing: Preprocessing, images: Sequence[ImageInput]) -> ReadBatch:
    """Read and decode images in this process."""
    transform = preprocessing.transform()
    return list(images), read_images(images, transform)


@contextmanager
def ray_predictor(run: Path, config: PredictConfig, progress: Progress) -> Iterator[RayPredictor]:
    """A run that predicts on a Ray cluster, which is left at the end.

    Raises:
        UserError: there is no such cluster, or its workers cannot use the run.
    """
    loaded = load_run(run)
    with connected(config.ray) as ray:
        gpu = uses_gpu(config.model.device, ray)
        pool = WorkerPool(ray, config.ray, PredictWorker, (run, config), gpu=gpu, named=_named, progress=progress)
        common: _Common = pool.start()
        for note in common.notes:
            progress.note(note)
        yield RayPredictor(loaded, pool, config, gpu=gpu)


class RayPredictor:
    """See `ray_predictor`."""

    def __init__(self, run: Run, pool: WorkerPool, config: PredictConfig, *, gpu: bool) -> None:
        self.run = run
        self._pool, self._config, self._gpu = pool, config, gpu

    def predictions(self, images: Iterable[ImageInput]) -> Iterator[Prediction]:
        """The prediction of each image, in order.

        Raises:
            UserError: a worker says so, or workers die of a batch again and again.
        """
        reader = None
        if self._gpu:
            reader = Reader(read=read_batch, arguments=(self.run.preprocessing,), processes=self._config.workers)
        with closing(self._pool.in_order(_batches(images, self._config.batch_size), reader)) as results:
            for predictions in results:
                yield from predictions


def _batches(images: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    remaining = iter(images)
    while batch := list(islice(remaining, size)):
        yield batch


def _named(batch: Iterable[ImageInput]) -> str:
    return item_names(map(str, batch))
