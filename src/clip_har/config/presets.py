"""Presets, and who decides a setting: the flags, else the preset, else the method, else the base below."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clip_har.config.converters import PRESET_FOLDER
from clip_har.config.methods import METHOD_CLASSES
from clip_har.config.reading import load_config_file
from clip_har.config.tree import TrainConfig
from clip_har.errors import ConfigError

BASE: Mapping[str, Any] = {
    "placement": "embedding",
    "towers": ["image", "text"],
    "rank": 16,
    "alpha": 32.0,
    "dropout": 0.1,
    "rslora": False,
    "dora": False,
    "layers": "all",
    "renormalise": True,
    "loss": "cross-entropy",
    "epochs": 15,
    "batch_size": 64,
    "accumulate": 1,
    "lr": 1e-3,
    "weight_decay": 0.01,
    "warmup_epochs": 0.0,
    "gradient_clip": 1.0,
    "betas": [0.9, 0.98],  # as CLIP was trained (arXiv 2103.00020, table 19) and the historic recipe used them
    "eps": 1e-8,
    "vision_lr_multiplier": 1.0,
    "text_lr_multiplier": 1.0,
    "projection_lr_multiplier": 1.0,
    "layer_decay": 1.0,
    "ema": 0.0,
    "patience": 0,
    "train_batchnorm": False,
    "augment": "none",
    "views": 4,
    "text_augment": False,
    "mixup": 0.0,
    "hard_pairs": 0.0,
    "hard_pairs_every": 1,
    "hard_margin": 0.05,
}
"""What holds where neither flags, preset nor method say otherwise."""


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, its method among them.

    Raises:
        ConfigError: there is no such preset.
    """
    path = PRESET_FOLDER / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"There is no preset {name!r}", remedy="clip-har train --help names them.")
    return load_config_file(path, TrainConfig)


def apply_preset(config: TrainConfig) -> TrainConfig:
    """The same config with a method in place of a preset's name, and the preset's settings where it has none.

    Raises:
        ConfigError: neither a method nor a preset is called so.
    """
    name = config.preset or (None if config.method in METHOD_CLASSES else config.method)
    if name is None:
        return config
    values = load_preset(name)
    filled: TrainConfig = _fill(config, values)
    return dataclasses.replace(filled, method=values["method"], preset=name)


def resolve(given: Mapping[str, Any], method_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings without gaps: those given, else the method's defaults, else `BASE`."""
    return {**given, **BASE, **method_defaults, **{key: value for key, value in given.items() if value is not None}}


def _fill(config: Any, values: Mapping[str, Any]) -> Any:
    """A config dataclass in which what was not given (None, "auto") takes the value of its name."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        now = getattr(config, item.name)
        if dataclasses.is_dataclass(now):
            changes[item.name] = _fill(now, values)
        elif item.name in values and (now is None or now == "auto"):
            value = values[item.name]
            changes[item.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(config, **changes)
