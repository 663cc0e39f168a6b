"""clip-har: fine-tune CLIP for action recognition in still images, evaluated against zero-shot CLIP.

The public API; what it names is imported when it is first used, since torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_har.commands.compare import compare
    from clip_har.commands.evaluate import evaluate
    from clip_har.commands.sweep import sweep
    from clip_har.commands.train import train
    from clip_har.config import BackboneConfig, CompareConfig, DataConfig, EvaluateConfig, SweepConfig, TrainConfig
    from clip_har.embedding.api import EmbeddedImage, embed_images
    from clip_har.errors import UserError
    from clip_har.predict import Prediction, Predictor
    from clip_har.video import VideoPrediction

__version__ = "0.1.0"

__all__ = [
    "BackboneConfig",
    "CompareConfig",
    "DataConfig",
    "EmbeddedImage",
    "EvaluateConfig",
    "Prediction",
    "Predictor",
    "SweepConfig",
    "TrainConfig",
    "UserError",
    "VideoPrediction",
    "compare",
    "embed_images",
    "evaluate",
    "sweep",
    "train",
]

_HOMES = {
    "config": ("BackboneConfig", "CompareConfig", "DataConfig", "EvaluateConfig", "SweepConfig", "TrainConfig"),
    "embedding.api": ("EmbeddedImage", "embed_images"),
    "errors": ("UserError",),
    "predict": ("Prediction", "Predictor"),
    "video": ("VideoPrediction",),
    "commands": ("compare", "evaluate", "sweep", "train"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"clip_har.{module}"), name)
    raise AttributeError(f"module 'clip_har' has no attribute {name!r}")
