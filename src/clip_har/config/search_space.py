"""The [search] table of `clip-har sweep`: the values to choose from for each setting, read and checked.

Which of them are sampled for which method, and how, is in sweeping/.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from clip_har.config.checking import range_problems
from clip_har.config.commands import TrainConfig
from clip_har.config.converters import preset_names
from clip_har.config.flat import flat_fields, from_flat_json, to_flat_json
from clip_har.config.groups import AugmentConfig, BackboneConfig, DataConfig, EngineConfig, LoraConfig, OptimizerConfig
from clip_har.config.methods import METHOD_NAMES
from clip_har.errors import ConfigError

DECIDING = ("method", "preset", "placement", "features")
"""What other settings depend on, in the order in which it is sampled: before them."""
_SCORES = "changes the validation images, so the trials' scores could not be compared"
_SPEED = "does not change what is trained"
_LUCK = "would be chosen by luck; to see how far results depend on it, pass several --seeds to clip-har compare"
_NOT_SEARCHED: Mapping[str, str] = {
    **{item.name: _SCORES for item in dataclasses.fields(DataConfig)},
    **{item.name: _SPEED for item in dataclasses.fields(EngineConfig)},
    **dict.fromkeys(("device", "encode_batch_size", "workers", "cache", "offline", "out", "resume"), _SPEED),
    **dict.fromkeys(("shots", "hold_out"), _SCORES),
    "seed": _LUCK,
}
_RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]
    """As config.json writes them: a setting that is a list is a list here."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number between two, both included."""

    low: float
    high: float
    log: bool = False
    """Whether its logarithm is sampled uniformly."""
    step: float | None = None
    whole: bool = False
    """Whether only whole numbers are meant."""


Searched = Choices | Interval


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The config with some settings replaced, which are named and written as in config.json.

    Raises:
        ValueError: a value is not of its setting's type.
    """
    return from_flat_json(TrainConfig, {**to_flat_json(config), **values})


def parse_search(table: Mapping[str, Any], fixed: TrainConfig) -> dict[str, Searched]:
    """The search space that a [search] table describes, what other settings depend on first.

    Args:
        table: setting -> list of values, or {low, high, log, step}.
        fixed: the settings that hold for all trials.

    Raises:
        ConfigError: naming every entry that cannot be used.
    """
    if not table:
        raise ConfigError(
            "There is nothing to search: [search] is missing or empty",
            remedy="Add a [search] table to --config, such as: [search] lr = {low = 1e-4, high = 1e-2, log = true}",
        )
    found: dict[str, Searched] = {}
    problems: list[str] = []
    for key, entry in table.items():
        name = str(key).replace("-", "_")
        try:
            if name in found:
                raise ValueError("is given twice")
            found[name] = _parsed(name, entry, fixed)
        except ValueError as error:
            problems.append(f"{key} {error}")
    if problems:
        raise ConfigError(f"[search]: {'; '.join(problems)}", remedy="Fix or remove these entries.")
    if "method" in found and ("preset" in found or fixed.preset is not None):
        raise ConfigError(
            "[search] lists methods, but preset already sets the method",
            remedy="Remove preset; presets can be listed as methods.",
        )
    return {name: found[name] for name in sorted(found, key=_order)}


def _order(name: str) -> int:
    return DECIDING.index(name) if name in DECIDING else len(DECIDING)


def _parsed(name: str, entry: Any, fixed: TrainConfig) -> Searched:
    """One entry.

    Raises:
        ValueError: it cannot be used; the message follows the setting's name.
    """
    known = sorted(item.name for item in flat_fields(TrainConfig))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError("is not a setting of train" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if name in _NOT_SEARCHED:
        raise ValueError(f"cannot be searched: it {_NOT_SEARCHED[name]}")
    empty = to_flat_json(TrainConfig(data=DataConfig(data=fixed.data.data)))
    if to_flat_json(fixed)[name] != empty[name]:
        raise ValueError("is also given a fixed value")
    if isinstance(entry, list | tuple):
        return _choices(name, entry, fixed)
    if isinstance(entry, Mapping):
        return _interval(name, entry, fixed)
    raise ValueError(f"= {entry!r} is a single value: write it above [search], or a list of several values")


def _choices(name: str, entry: Any, fixed: TrainConfig) -> Choices:
    values = [list(value) if isinstance(value, tuple) else value for value in entry]
    if not values:
        raise ValueError("has no values")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"lists {value!r} twice")
        _require_allowed(name, value, fixed)
    return Choices(values=tuple(values))


def _interval(name: str, entry: Mapping[str, Any], fixed: TrainConfig) -> Interval:
    if strange := sorted(entry.keys() - set(_RANGE_KEYS)):
        raise ValueError(f"has the unknown key {strange[0]!r}: a range has {', '.join(_RANGE_KEYS)}")
    kinds = _kinds(name)
    if not kinds & {int, float}:
        raise ValueError("is not a number: write a list of values")
    if missing := [key for key in ("low", "high") if key not in entry]:
        raise ValueError(f"needs {' and '.join(missing)}, as in {{low = 1, high = 10}}")
    low, high, step, log = entry["low"], entry["high"], entry.get("step"), entry.get("log", False)
    numbers = {"low": low, "high": high} | ({} if step is None else {"step": step})
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"has {key} = {value!r}, which is not a number")
    if not isinstance(log, bool):
        raise ValueError(f"has log = {log!r}: write true or false")
    if not low < high:
        raise ValueError(f"has low = {low}, which must be below high = {high}")
    if log and step is not None:
        raise ValueError("cannot have both log and step")
    if log and low <= 0:
        raise ValueError(f"has low = {low}: with log it must be above 0")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"has step = {step}, which must be above 0 and at most high - low = {high - low:g}")
    whole = float not in kinds
    if whole and (not_whole := [key for key, value in numbers.items() if value != int(value)]):
        raise ValueError(f"takes whole numbers, and {not_whole[0]} is {numbers[not_whole[0]]}")
    for value in (low, high):
        _require_allowed(name, int(value) if whole else float(value), fixed)
    return Interval(low=low, high=high, log=log, step=step, whole=whole)


def _require_allowed(name: str, value: Any, fixed: TrainConfig) -> None:
    """Refuse a value of a wrong type or out of its setting's range."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"cannot be {value}")
    if name in ("method", "preset") and isinstance(value, str):
        known = preset_names() if name == "preset" else (*METHOD_NAMES, *preset_names())
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            raise ValueError(f"cannot be {value!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    try:
        config = with_values(fixed, {name: value})
    except ValueError:
        raise ValueError(f"cannot be {value!r}") from None
    flag = f"--{name.replace('_', '-')} "
    for problem in range_problems(config):
        if problem.startswith(flag):
            raise ValueError(problem.removeprefix(flag))


def _kinds(name: str) -> frozenset[Any]:
    """The types that a setting may have."""
    return frozenset(_of_groups(name))


def _of_groups(name: str) -> Iterator[Any]:
    for group in (TrainConfig, LoraConfig, OptimizerConfig, AugmentConfig, BackboneConfig):
        hint = get_type_hints(group).get(name)
        if hint is not None:
            yield from get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
