"""The methods by name, imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from clip_har.config import Settings, TrainConfig
from clip_har.config.methods import METHOD_CLASSES
from clip_har.methods.base import Method


class _Methods(Mapping[str, type[Method]]):
    def __getitem__(self, name: str) -> type[Method]:
        module, _, class_name = METHOD_CLASSES[name].partition(":")
        found: type[Method] = getattr(importlib.import_module(module), class_name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(METHOD_CLASSES)

    def __len__(self) -> int:
        return len(METHOD_CLASSES)


METHODS = _Methods()


def method_class(name: str, config: TrainConfig | Settings) -> type[Method]:
    """The class behind a method's name, which may depend on its settings: LoRA has one for each placement."""
    return METHODS[name].variant(config)


def create_method(name: str, settings: Settings) -> Method:
    """A method with its settings."""
    return method_class(name, settings)(settings)
