"""`predict`: a run's answers for images, one after the other or into a file that is continued.

Not in commands/, whose package imports what the other commands need: an answer would wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol

from clip_har.checkpoint import Run
from clip_har.cluster.session import check_engine
from clip_har.config import STANDARD_INPUT, PredictConfig, RunModelConfig, validate
from clip_har.errors import ConfigError
from clip_har.experiment.prediction_file import PredictionFile, kind_of, state_of
from clip_har.experiment.prediction_rows import KnownRow
from clip_har.experiment.sorted_images import SortedImages
from clip_har.images.listing import ImageList
from clip_har.images.remote import RemoteImage
from clip_har.images.workers import worker_count
from clip_har.predict import AbstentionPolicy, Prediction, PredictionCounts, Predictor
from clip_har.progress import SILENT, Progress


@dataclass(frozen=True)
class Answers:
    """What `predict` answers, as it is asked for."""

    predictor: Predictor
    predictions: Iterator[Prediction]
    total: int | None
    """How many there will be; None if that is not known."""


def predict(
    run: Path,
    images: Iterable[Path | RemoteImage],
    config: PredictConfig,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress = SILENT,
) -> Answers:
    """Answer for each image, in order, as the answers are asked for.

    Args:
        images: files, folders, patterns, URLs and `STANDARD_INPUT`; see `ImageList`.

    Raises:
        UserError: settings, run or model cannot be used, or no image is given.
    """
    if config.ray.engine == "ray":
        raise ConfigError("--engine ray requires --out", remedy="Pass --out FILE.csv, or remove --engine ray.")
    listed = _listed(images, config, standard_input)
    given = _some(listed)
    predictor = predictor_of(run, config.model, progress)
    predictions = _predictions(predictor, given, config)
    return Answers(predictor, _sorted(predictions, _sorting(predictor.classes, config), progress), listed.count())


def predict_into_file(
    run: Path,
    images: Iterable[Path | RemoteImage],
    config: PredictConfig,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress = SILENT,
) -> PredictionCounts:
    """Write the answers to `config.out` as they come; what an interrupted call wrote there is kept and not repeated.

    Raises:
        UserError: as for `predict`; or the file is another's, or cannot be written.
    """
    assert config.out is not None
    if config.json or config.format is not None:
        flag = "--json" if config.json else "--format"
        raise ConfigError(f"{flag} prints the predictions and --out writes them", remedy="Remove one of the two.")
    kind_of(config.out)  # refused before the model is loaded
    listed = _listed(images, config, standard_input)
    given = _some(listed)
    with _engine(run, config, progress) as engine:
        sorting = _sorting(engine.run.classes, config)
        with PredictionFile(config.out, engine.run, config) as file:
            remaining = file.remaining(given, known=sorting.place if sorting else _ignore, changed=_warn_of(progress))
            total, done = listed.count(), file.counts.before
            if done:
                progress.note(f"Continuing {config.out}: {done:,}{f' of {total:,}' if total else ''} images are done")
            left = None if total is None else max(total - done, 0)
            with progress.bar("Predicting", total=left, unit="images") as bar:
                for prediction in _sorted(engine.predictions(remaining), sorting, progress):
                    file.add(prediction)
                    bar.advance()
            file.finish()
    return file.counts


class _Engine(Protocol):
    """What predicts."""

    @property
    def run(self) -> Run: ...

    def predictions(self, images: Iterable[Path | RemoteImage]) -> Iterator[Prediction]:
        """The prediction of each image, in order."""


class _Local:
    """Predicts in this process."""

    def __init__(self, predictor: Predictor, config: PredictConfig) -> None:
        self.run = predictor.run
        self._predictor, self._config = predictor, config

    def predictions(self, images: Iterable[Path | RemoteImage]) -> Iterator[Prediction]:
        return _predictions(self._predictor, images, self._config)


@contextmanager
def _engine(run: Path, config: PredictConfig, progress: Progress) -> Iterator[_Engine]:
    if config.ray.engine == "local":
        yield _Local(predictor_of(run, config.model, progress), config)
        return
    from clip_har.experiment.predict_on_ray import ray_predictor

    with ray_predictor(run, config, progress) as predictor:
        yield predictor


def _listed(images: Iterable[Path | RemoteImage], config: PredictConfig, standard_input: BinaryIO | None) -> ImageList:
    """The images, without what this command writes where they are."""
    validate(config)
    check_engine(config.ray)
    AbstentionPolicy.of(config)  # refused before anything slow
    if config.copy and config.sort_into is None:
        raise ConfigError("--copy requires --sort-into", remedy="Pass --sort-into DIR, or remove --copy.")
    if config.overwrite and config.out is None:
        raise ConfigError("--overwrite requires --out", remedy="Pass --out FILE.csv, or remove --overwrite.")
    if config.json and config.format is not None:
        raise ConfigError("--json and --format cannot be combined", remedy="Remove one of the two.")
    given = list(images)
    written = [] if config.out is None else [config.out, state_of(config.out)]
    if config.sort_into is not None:
        written.append(config.sort_into)
        inside = os.path.realpath(config.sort_into)
        for path in given:
            if isinstance(path, RemoteImage):
                raise ConfigError(f"--sort-into requires files on this machine, not {path}", remedy="Download them.")
            if path != STANDARD_INPUT and os.path.realpath(path) == inside:
                raise ConfigError(f"--sort-into {config.sort_into} has the images", remedy="Pass another directory.")
    return ImageList(given, standard_input=standard_input, null=config.null, leave_out=written)


def _some(listed: ImageList) -> Iterator[Path | RemoteImage]:
    """The images, at least one."""
    images = iter(listed)
    for first in images:
        return chain([first], images)
    raise ConfigError("No image is named", remedy="Example: clip-har predict runs/lora photo.jpg")


def predictor_of(run: Path, model: RunModelConfig, progress: Progress) -> Predictor:
    """A run, loaded as a command asks for; what was assumed is told.

    Raises:
        UserError: run or model cannot be used.
    """
    predictor = Predictor(run, model=model.model, device=model.device, precision=model.precision)
    for note in predictor.notes:
        progress.note(note)
    return predictor


def _sorting(classes: Sequence[str], config: PredictConfig) -> SortedImages | None:
    if config.sort_into is None:
        return None
    return SortedImages(config.sort_into, classes, copies=config.copy)


def _sorted(
    predictions: Iterator[Prediction], sorting: SortedImages | None, progress: Progress
) -> Iterator[Prediction]:
    """The predictions; each image is in its place before its prediction is given on."""
    for prediction in predictions:
        if sorting is not None:
            sorting.place(KnownRow.of(prediction))
        yield prediction
    if sorting is not None and sorting.missing:
        progress.warn(f"{sorting.missing:,} images were removed before they could be sorted")


def _warn_of(progress: Progress) -> Callable[[int], None]:
    def warn(rows: int) -> None:
        progress.warn(f"The images are no longer the same in the same order; {rows:,} rows that were written are kept")

    return warn


def _ignore(_: KnownRow) -> None:
    pass


def _predictions(
    predictor: Predictor, images: Iterable[Path | RemoteImage], config: PredictConfig
) -> Iterator[Prediction]:
    return predictor.predict(
        images,
        top=config.top,
        caution=AbstentionPolicy.of(config),
        batch_size=config.batch_size,
        workers=worker_count(config.workers),
    )
