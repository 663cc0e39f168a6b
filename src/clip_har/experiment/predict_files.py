"""`predict`: a run's answers for photographs, one after the other or into a file that is continued.

Not in commands/, whose package imports what the other commands need: an answer would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clip_har.config import PredictConfig, validate
from clip_har.errors import ConfigError
from clip_har.experiment.prediction_file import PredictionFile, kind_of
from clip_har.images.workers import worker_count
from clip_har.predict import AbstentionPolicy, Prediction, PredictionCounts, Predictor
from clip_har.progress import SILENT, Progress


def predict(
    run: Path, images: Iterable[Path], config: PredictConfig, *, progress: Progress = SILENT
) -> Iterator[Prediction]:
    """Answer for each image, in order, as the answers are asked for.

    Raises:
        UserError: settings, run or model cannot be used, or no image is given.
    """
    given = _given(images, config)
    predictor = _predictor(run, config, progress)
    return _predictions(predictor, given, config)


def predict_into_file(
    run: Path, images: Iterable[Path], config: PredictConfig, *, progress: Progress = SILENT
) -> PredictionCounts:
    """Write the answers to `config.out` as they come; what an interrupted call wrote there is kept and not repeated.

    Raises:
        UserError: as for `predict`; or the file is another's, or cannot be written.
    """
    given = _given(images, config)
    assert config.out is not None
    if config.json:
        raise ConfigError("--json prints the predictions and --out writes them", remedy="Remove one of the two.")
    kind_of(config.out)  # refused before the model is loaded
    predictor = _predictor(run, config, progress)
    with PredictionFile(config.out, predictor.run, config) as file:
        done = file.images()
        remaining = [path for path in given if str(path) not in done]
        if done:
            progress.note(f"Continuing {config.out}: {len(done):,} of {len(done) + len(remaining):,} images are done")
        with progress.bar("Predicting", total=len(remaining), unit="images") as bar:
            for prediction in _predictions(predictor, remaining, config):
                file.add(prediction)
                bar.advance()
        file.finish()
    return file.counts


def _given(images: Iterable[Path], config: PredictConfig) -> Sequence[Path]:
    validate(config)
    given = list(images)
    if not given:
        raise ConfigError("No image is named", remedy="Example: clip-har predict runs/lora photo.jpg")
    return given


def _predictor(run: Path, config: PredictConfig, progress: Progress) -> Predictor:
    _policy(config)  # refused before anything slow
    model = config.model
    predictor = Predictor(run, model=model.model, device=model.device, precision=model.precision)
    for note in predictor.notes:
        progress.note(note)
    return predictor


def _policy(config: PredictConfig) -> AbstentionPolicy:
    return AbstentionPolicy(
        coverage=config.coverage,
        accuracy=config.accuracy,
        abstain_below=config.abstain_below,
        reject_unknown=config.reject_unknown,
    )


def _predictions(predictor: Predictor, images: Sequence[Path], config: PredictConfig) -> Iterator[Prediction]:
    return predictor.predict(
        images,
        top=config.top,
        caution=_policy(config),
        batch_size=config.batch_size,
        workers=worker_count(config.workers),
    )
