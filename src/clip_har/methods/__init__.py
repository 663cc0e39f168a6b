"""The methods. Adding one is a file here and a line in config/methods.py."""

from __future__ import annotations

from clip_har.methods.base import (
    Batch,
    Candidate,
    Classifier,
    ClassifierContext,
    GradientMethod,
    InterpolatedMethod,
    Method,
    SolvedMethod,
    Source,
    Task,
)
from clip_har.methods.frozen_layers import SplitTower, split_tower
from clip_har.methods.labelled_images import InputKind, LabelledImages, OutOfFold
from clip_har.methods.registry import METHODS, create_method, method_class
from clip_har.methods.towers import Towers

__all__ = [
    "METHODS",
    "Batch",
    "Candidate",
    "Classifier",
    "ClassifierContext",
    "GradientMethod",
    "InputKind",
    "InterpolatedMethod",
    "LabelledImages",
    "Method",
    "OutOfFold",
    "SolvedMethod",
    "Source",
    "SplitTower",
    "Task",
    "Towers",
    "create_method",
    "method_class",
    "split_tower",
]
