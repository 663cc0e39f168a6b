"""Config dataclasses as the flat mappings that config.json and card.json hold, and back."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


@functools.cache
def _hints(config_type: type) -> Mapping[str, Any]:
    """The types of a class's fields, evaluated once: that takes longer than all else here."""
    return get_type_hints(config_type)


def flat_fields(config_type: type) -> Iterator[dataclasses.Field[Any]]:
    """The settings of a config dataclass as the flags see them: nested groups opened up."""
    hints = _hints(config_type)
    for item in dataclasses.fields(config_type):
        groups = [kind for kind in _alternatives(hints[item.name]) if dataclasses.is_dataclass(kind)]
        if groups:
            yield from flat_fields(groups[0])  # type: ignore[arg-type]
        else:
            yield item


def to_flat_json(config: object) -> dict[str, Any]:
    """A config dataclass as one flat, JSON-ready mapping that `load_config_file` reads back."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat.update(to_flat_json(value))
        elif isinstance(value, Path):
            flat[item.name] = str(value)
        elif isinstance(value, tuple):
            flat[item.name] = list(value)
        else:
            flat[item.name] = value
    return flat


def from_flat_json(config_type: type[Config], flat: Mapping[str, Any]) -> Config:
    """The dataclass that `to_flat_json` wrote. What is absent, or null where nothing may be null, takes its default.

    Raises:
        ValueError: an entry is not of its field's type.
        TypeError: an entry without a default is absent.
    """
    hints = _hints(config_type)  # type: ignore[arg-type]  # mypy doubts that a class is hashable
    values: dict[str, Any] = {}
    for item in dataclasses.fields(config_type):  # type: ignore[arg-type]
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            values[item.name] = from_flat_json(hint, flat)  # type: ignore[arg-type]
        elif item.name in flat and (flat[item.name] is not None or _fits(None, hint)):
            value = flat[item.name]
            if not _fits(value, hint):
                raise ValueError(f"{item.name} cannot be {value!r}")
            values[item.name] = _from_json(value, hint)
    return config_type(**values)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value can be meant by a field's type."""
    for kind in _alternatives(hint):
        origin = get_origin(kind)
        if origin is Literal:
            fits = value in get_args(kind)
        elif origin is tuple:
            fits = isinstance(value, list) and all(_fits(element, get_args(kind)[0]) for element in value)
        elif kind is float:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            fits = type(value) is (str if kind is Path else kind)
        if fits:
            return True
    return False


def _from_json(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and Path in _alternatives(hint) else value
