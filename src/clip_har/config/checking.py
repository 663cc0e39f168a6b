"""What settings may be, alone and together; every problem is reported at once, before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from clip_har.config.commands import CompareConfig
from clip_har.config.flat import to_flat_json
from clip_har.config.ranges import range_of
from clip_har.config.settings import SETTINGS_OF
from clip_har.errors import ConfigError

WHOLE_TOWERS = ("full", "two-tier")
"""Methods that train every parameter of both towers."""


def validate(config: object) -> None:
    """Refuse values that cannot work, all of them at once, before anything is loaded.

    Raises:
        ConfigError: naming every setting that is out of its range.
    """
    problems = list(range_problems(config))
    if isinstance(config, CompareConfig):
        listed_values = {
            "models": config.models or (),
            "methods": config.methods,
            "seeds": config.seeds,
            "shots": config.shots_compared,
        }
        for name, values in listed_values.items():
            if len(set(values)) < len(values):
                listed = "number" if name == "shots" else name[:-1]
                problems.append(f"--{name} lists a {listed} twice")
    problems += _conflicts(to_flat_json(config))
    if problems:
        raise ConfigError("; ".join(problems), remedy="See --help for the allowed values.")


def range_problems(config: object) -> Iterator[str]:
    """The settings of a dataclass, its groups' included, that are out of their range, each with what it must be."""
    declared = {item.name: item for item in dataclasses.fields(SETTINGS_OF.get(type(config), type(config)))}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value, allowed = getattr(config, item.name), range_of(declared[item.name])
        if dataclasses.is_dataclass(value):
            yield from range_problems(value)
        elif value is not None and allowed is not None and not allowed.holds(value):
            shown = list(value) if isinstance(value, tuple) else value
            yield f"--{item.name.replace('_', '-')} must be {allowed.text}, not {shown}"


def _conflicts(flat: dict[str, Any]) -> Iterator[str]:
    """Settings that contradict each other."""
    for name in ("mixup", "label_smoothing"):
        if flat.get(name) and flat.get("loss") not in (None, "cross-entropy", "sigmoid"):
            yield f"--{name.replace('_', '-')} requires --loss cross-entropy or sigmoid, not {flat['loss']}"
    if flat.get("mixup") and flat.get("hard_pairs"):
        yield "--mixup and --hard-pairs cannot be combined"
    if flat.get("renormalise") is False and flat.get("placement") in ("attention", "all"):
        yield f"--no-renormalise requires --placement embedding, not {flat['placement']}"
    method = flat.get("method")
    if flat.get("precision") == "fp16-pure" and method not in WHOLE_TOWERS and "methods" not in flat:
        yield "--precision fp16-pure is for training full or two-tier only"
    if flat.get("train_batchnorm") and method is not None and method not in WHOLE_TOWERS:
        yield f"--train-batchnorm is for full and two-tier, not {method}"
