"""The methods by name. Adding one is a file here, an entry below and its name in config.METHOD_NAMES."""

from __future__ import annotations

from clip_har.methods.base import (
    Candidate,
    Classifier,
    GradientMethod,
    LabelledFeatures,
    Method,
    SolvedMethod,
    Task,
)
from clip_har.methods.linear_probe import LinearProbe
from clip_har.methods.lora import Lora
from clip_har.methods.zero_shot import ZeroShot

METHODS: dict[str, type[Method]] = {
    "zero-shot": ZeroShot,
    "lora": Lora,
    "linear-probe": LinearProbe,
}

__all__ = [
    "METHODS",
    "Candidate",
    "Classifier",
    "GradientMethod",
    "LabelledFeatures",
    "Method",
    "SolvedMethod",
    "Task",
]
