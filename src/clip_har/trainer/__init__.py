"""One engine that trains every method: on a laptop, a GPU, or several processes. Neither saves nor evaluates."""

from clip_har.trainer.engine import Engine
from clip_har.trainer.loop import Snapshot, TrainState, fit, lr_factor

__all__ = ["Engine", "Snapshot", "TrainState", "fit", "lr_factor"]
