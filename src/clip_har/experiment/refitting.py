"""`--refit` of methods that train an encoder: a first training chooses the epoch, a second one has all the images.

The first is trained on the training images and judged by the validation images. The second starts from the beginning,
with the same settings, on both together, and ends after the epoch that was best in the first. What the first answered
for the validation images stands for what the second would answer for images that it has not seen: its figures,
calibration and thresholds are about these answers, as after cross-validation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clip_har.config import TrainConfig
from clip_har.errors import ConfigError
from clip_har.experiment.members import MEMBERS_FOLDER, TrainMember
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.methods import GradientMethod, Method, OutOfFold, Task
from clip_har.progress import Progress

SELECTION = "selection"
"""Name of the first training's run, where a combining method has its members."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the first training tells the second."""

    history: tuple[Mapping[str, Any], ...]
    """Its log."""
    epoch: int
    """After which it was best."""
    answers: OutOfFold
    """Of its kept weights, for the validation images."""
    seconds: float

    def figures(self, epoch: int) -> dict[str, float]:
        """Its figures on validation after an epoch."""
        entry = self.history[epoch - 1]
        return {key: value for key, value in entry.items() if key.startswith("val_")}


def trains_twice(method: type[Method]) -> bool:
    """Whether a method is refitted in this way, and not by cross-validation on cached features."""
    return method.refits and issubclass(method, GradientMethod)


def select(
    config: TrainConfig, folder: Path, experiment: Experiment, progress: Progress, train: TrainMember
) -> Selection:
    """Train for the first time, in a folder of its own inside the run's.

    Args:
        config: the run's, with --refit.
        train: trains a config into a folder, or continues or reuses what is there.

    Raises:
        ConfigError: there are no validation images to choose by.
    """
    if not experiment.dataset.counts()["val"]:
        raise ConfigError("--refit needs validation images", remedy="Remove --refit or raise --val-fraction.")
    progress.note("Selecting the epoch: training without the validation images")
    run = train(dataclasses.replace(config, refit=False), folder / MEMBERS_FOLDER / SELECTION)
    history = run.history()
    val = experiment.task(config.seed, shots=config.shots).val
    answers_NC = Predictions(run, experiment, progress).finetuned(val)
    assert answers_NC is not None
    answers = OutOfFold(hashes=val.table.hashes, labels_N=val.labels_N, probabilities_NC=torch.from_numpy(answers_NC))
    epoch = next(int(entry["epoch"]) for entry in history if entry["best"])
    progress.note(f"Training on the training and validation images together, for {epoch} epochs")
    return Selection(history=tuple(history), epoch=epoch, answers=answers, seconds=run.card.train_seconds or 0.0)


def with_all_images(task: Task) -> Task:
    """The same task, with the validation images among the training images too."""
    return dataclasses.replace(task, train=task.train.joined(task.val))
