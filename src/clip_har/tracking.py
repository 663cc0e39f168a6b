"""The training log for TensorBoard and Weights & Biases, where asked; log.jsonl is checkpoint.py's."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from clip_har.config import EngineConfig, Settings
from clip_har.errors import ConfigError, first_line
from clip_har.files import write_atomically


class Tracker(Protocol):
    """A place that figures are sent to."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures at an optimizer step."""

    def close(self, *, failed: bool = False) -> None:
        """Write what is pending."""


class TensorBoard:
    """Event files in tensorboard/ of the run folder, read by `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, *, from_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run logged after the state it continues from is hidden again.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool = False) -> None:
        del failed
        self._writer.close()


class WeightsAndBiases:
    """A run of the project clip-har; with WANDB_MODE=offline only written, into wandb/ of the run folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        import wandb

        known = folder / "wandb_id.txt"
        name = known.read_text(encoding="utf-8") if known.is_file() else uuid.uuid4().hex[:12]
        write_atomically(known, name)
        try:
            self._run = wandb.init(
                project="clip-har",
                dir=str(folder),
                name=folder.name,
                id=name,
                resume="allow",
                config=settings.to_json(),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases cannot be used: {first_line(error)}",
                remedy="Log in with wandb login, or set WANDB_MODE=offline.",
            ) from error

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


def require(config: EngineConfig) -> None:
    """Refuse early what is not installed.

    Raises:
        ConfigError: naming the package.
    """
    for name, wanted in (("tensorboard", config.tensorboard), ("wandb", config.wandb)):
        if wanted and importlib.util.find_spec(name) is None:
            raise ConfigError(f"--{name} requires the package {name}", remedy=f"pip install {name}")


def trackers(folder: Path, settings: Settings, *, from_step: int) -> list[Tracker]:
    """Those that the settings ask for, after `require`.

    Raises:
        ConfigError: Weights & Biases refuses.
    """
    chosen: list[Tracker] = []
    if settings.engine.tensorboard:
        chosen.append(TensorBoard(folder, from_step=from_step))
    if settings.engine.wandb:
        chosen.append(WeightsAndBiases(folder, settings))
    return chosen
