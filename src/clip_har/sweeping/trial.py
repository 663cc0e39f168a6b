"""One trial: a training in a folder of its own, and its predictions for the validation images."""

from __future__ import annotations

import base64
import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clip_har import checkpoint
from clip_har.config import SweepConfig, TrainConfig
from clip_har.errors import ConfigError, ModelError, TrainingError
from clip_har.evaluation import FloatArray, IntArray, validation_figures
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, prepare
from clip_har.experiment.training import finished_or_trained
from clip_har.methods import GradientMethod
from clip_har.progress import Progress

TOLERATED = (TrainingError, ConfigError, ModelError)
"""Errors of one trial after which the others are still tried."""
MODELS_KEPT = 2
EPOCH_METRICS = {"accuracy": "val_accuracy", "macro-f1": "val_macro_f1"}
"""Metric of a sweep -> its name in the log of a run."""


class StopTrialError(Exception):
    """The pruner has stopped a trial.

    Args:
        epoch: after which.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial."""

    state: Literal["complete", "pruned", "failed"]
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    note: str = ""
    predictions: str = ""
    """Class of each validation image, packed by `pack`."""

    def score(self, metric: str) -> float | None:
        """The metric by which trials are compared."""
        return self.accuracy if metric == "accuracy" else self.macro_f1

    def to_json(self) -> dict[str, Any]:
        """As the study holds it."""
        return dataclasses.asdict(self)


class Experiments:
    """The dataset with each pretrained model that trials ask for, of which the last few stay loaded."""

    def __init__(self, config: SweepConfig, progress: Progress) -> None:
        self._config = config
        self._progress = progress
        self._kept: dict[object, Experiment] = {}

    def of(self, config: TrainConfig) -> Experiment:
        """The experiment of a trial.

        Raises:
            UserError: as `prepare`.
        """
        key = config.backbone
        if key not in self._kept:
            while len(self._kept) >= MODELS_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = prepare(
                config.data, key, out=self._config.out, progress=self._progress, hold_out=config.hold_out
            )
        return self._kept[key]


def run_trial(
    config: TrainConfig,
    folder: Path,
    experiments: Experiments,
    progress: Progress,
    command: str,
    on_epoch: Callable[[Mapping[str, Any]], None],
) -> Outcome:
    """Train a trial, from where it was interrupted if it was, and score it on the validation images.

    Args:
        config: with its preset applied.
        on_epoch: raises StopTrialError to stop it.
    """
    started = time.perf_counter()
    try:
        experiment = experiments.of(config)
        run = finished_or_trained(config, folder, experiment, progress, command, on_epoch=on_epoch)
    except StopTrialError as stop:
        return Outcome(state="pruned", epochs=stop.epoch, seconds=time.perf_counter() - started)
    except TOLERATED as error:
        progress.warn(f"{folder.name}: {error}")
        return Outcome(state="failed", note=str(error), seconds=time.perf_counter() - started)
    probabilities_NC, labels_N = _judged(run, config, experiment)
    figures = validation_figures(probabilities_NC, labels_N, len(experiment.dataset.classes))
    gradient = isinstance(run.method, GradientMethod)
    return Outcome(
        state="complete",
        accuracy=figures.accuracy,
        macro_f1=figures.macro_f1,
        loss=figures.loss,
        epochs=len(run.history()) if gradient else None,
        seconds=run.card.train_seconds,
        predictions=pack(probabilities_NC.argmax(axis=1)),
    )


def _judged(run: checkpoint.Run, config: TrainConfig, experiment: Experiment) -> tuple[FloatArray, IntArray]:
    """A run's class probabilities for the validation images, those of cross-validation where it was fitted on them."""
    val = experiment.task(config.seed, shots=config.shots).val
    answering = Predictions(run, experiment)
    probabilities_NC = answering.finetuned(val)
    return answering.baseline(val) if probabilities_NC is None else probabilities_NC, val.labels_N.numpy()


def pack(predictions_N: IntArray) -> str:
    """Class indices as short text."""
    return base64.b64encode(zlib.compress(predictions_N.astype("<u4").tobytes())).decode("ascii")


def unpack(text: str) -> IntArray:
    """What `pack` was given."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<u4").astype(np.int64)
