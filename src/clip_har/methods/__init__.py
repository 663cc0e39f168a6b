"""The methods by name. Adding one is a file here, an entry below and its name in config.METHOD_NAMES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_har.methods.base import (
    Batch,
    Candidate,
    Classifier,
    Frame,
    GradientMethod,
    LabelledImages,
    Method,
    Reads,
    SolvedMethod,
    Source,
    Task,
)
from clip_har.methods.clip_adapter import ClipAdapter
from clip_har.methods.coop import CoOp
from clip_har.methods.full import FullFineTuning, TwoTier
from clip_har.methods.linear_probe import LinearProbe
from clip_har.methods.lora import Lora, inside_towers
from clip_har.methods.lp_ft import LpFt
from clip_har.methods.tip_adapter import TipAdapter, TipAdapterF
from clip_har.methods.wise_ft import WiseFt
from clip_har.methods.zero_shot import ZeroShot

METHODS: dict[str, type[Method]] = {
    "zero-shot": ZeroShot,
    "lora": Lora,
    "linear-probe": LinearProbe,
    "full": FullFineTuning,
    "two-tier": TwoTier,
    "lp-ft": LpFt,
    "wise-ft": WiseFt,
    "coop": CoOp,
    "clip-adapter": ClipAdapter,
    "tip-adapter": TipAdapter,
    "tip-adapter-f": TipAdapterF,
}


def method_class(name: str, settings: Mapping[str, Any]) -> type[Method]:
    """The class behind a method's name; lora has two, by its placement."""
    if name == "lora" and inside_towers(settings):
        from clip_har.methods.tower_lora import TowerLora  # imports peft, which takes seconds

        return TowerLora
    return METHODS[name]


def create_method(name: str, settings: Mapping[str, Any]) -> Method:
    """A method with its settings, a flat configuration without gaps."""
    return method_class(name, settings)(settings)


__all__ = [
    "METHODS",
    "Batch",
    "Candidate",
    "Classifier",
    "Frame",
    "GradientMethod",
    "LabelledImages",
    "Method",
    "Reads",
    "SolvedMethod",
    "Source",
    "Task",
    "create_method",
    "method_class",
]
