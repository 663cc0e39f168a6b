"""Presets: settings by name, for what the flags do not give. What a preset leaves open, the method decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clip_har.config.commands import TrainConfig
from clip_har.config.converters import PRESET_FOLDER
from clip_har.config.methods import METHOD_CLASSES
from clip_har.config.reading import load_config_file
from clip_har.errors import ConfigError


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, its method among them.

    Raises:
        ConfigError: there is no such preset.
    """
    path = PRESET_FOLDER / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"Unknown preset {name!r}", remedy="clip-har train --help lists them.")
    return load_config_file(path, TrainConfig)


def names_method(name: str) -> bool:
    """Whether a method or a preset is called so."""
    return name in METHOD_CLASSES or (PRESET_FOLDER / f"{name}.toml").is_file()


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
