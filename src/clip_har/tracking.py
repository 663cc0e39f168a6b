"""The training log for TensorBoard and Weights & Biases, where asked; log.jsonl is checkpoint.py's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from clip_har.errors import ConfigError


class Tracker(Protocol):
    """A place that figures are sent to."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures at an optimizer step."""

    def close(self) -> None:
        """Write what is pending."""


class TensorBoard:
    """Event files in tensorboard/ of the run folder, read by `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, *, from_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the package tensorboard", remedy="pip install tensorboard"
            ) from error
        # What an interrupted run logged after the state it continues from is hidden again.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step or None)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project clip-har; with WANDB_MODE=offline only written, into wandb/ of the run folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("--wandb needs the package wandb", remedy="pip install wandb") from error
        self._run = wandb.init(
            project="clip-har", dir=str(folder), name=folder.name, id=folder.name, resume="allow", config=dict(settings)
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def trackers(folder: Path, settings: Mapping[str, Any], *, from_step: int) -> list[Tracker]:
    """Those that the settings ask for.

    Raises:
        ConfigError: one is not installed.
    """
    chosen: list[Tracker] = []
    if settings["tensorboard"]:
        chosen.append(TensorBoard(folder, from_step=from_step))
    if settings["wandb"]:
        chosen.append(WeightsAndBiases(folder, settings))
    return chosen
