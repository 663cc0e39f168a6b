"""Which settings of a search space are sampled for a trial: those that its method reads. How is study.py's concern."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clip_har.config import Choices, Searched, TrainConfig, apply_preset, validate, with_values
from clip_har.config.groups import BackboneConfig
from clip_har.config.search_space import DECIDING
from clip_har.errors import ConfigError
from clip_har.fusion import require_single_model
from clip_har.methods import method_class
from clip_har.unread_settings import unread_settings

Suggest = Callable[[str, Searched], Any]
"""Name of a setting and what it may be -> its value in a trial."""
_ALWAYS = ("method", "preset", *BackboneConfig.__dataclass_fields__)


def sampled(suggest: Suggest, search: Mapping[str, Searched], fixed: TrainConfig) -> tuple[TrainConfig, dict[str, Any]]:
    """One trial's config, and the values sampled for it: only of settings that its method reads."""
    config, values = fixed, {}
    for name, searched in search.items():
        if is_read(name, searched, config):
            values[name] = suggest(name, searched)
            config = with_values(config, {name: values[name]})
    return config, values


def trial_config(values: Mapping[str, Any], fixed: TrainConfig) -> TrainConfig:
    """The config of a trial with these values, its preset applied."""
    return apply_preset(with_values(fixed, values))


def is_read(name: str, searched: Searched, config: TrainConfig) -> bool:
    """Whether a setting has an effect on what the config's method becomes."""
    if name in _ALWAYS:
        return True
    config = apply_preset(config)
    if name in unread_settings(config):
        return False
    method = method_class(config.method, config)
    if name == "start_from":
        return method.starts_from is not None
    values = searched.values if isinstance(searched, Choices) else (searched.high,)
    whole = not isinstance(searched, Choices) and searched.whole
    tried = (with_values(config, {name: int(value) if whole else value}) for value in values)
    return not any(name in method.without_effect(given) for given in tried)


def check_space(search: Mapping[str, Searched], fixed: TrainConfig) -> None:
    """Refuse what can be known to be wrong before anything is loaded.

    Raises:
        ConfigError: a setting that no method of the search reads; fixed settings that a method cannot have.
    """
    configs = list(_variants(search, fixed))
    for config in configs:
        validate(config)
        method = method_class(config.method, config)
        if method.starts_from is not None and config.start_from is None and "start_from" not in search:
            raise ConfigError(f"{config.method} {method.purpose_of_source}", remedy="Pass it with --start-from RUN.")
        if method.works_inside(config):
            require_single_model(config.backbone.model)
    methods = ", ".join(dict.fromkeys(config.preset or config.method for config in configs))
    unread = [
        name for name, searched in search.items() if not any(is_read(name, searched, config) for config in configs)
    ]
    if unread:
        raise ConfigError(
            f"[search] lists settings without effect on {methods}: {', '.join(unread)}",
            remedy="Remove them, or set method to one that reads them.",
        )


def _variants(search: Mapping[str, Searched], fixed: TrainConfig) -> Iterator[TrainConfig]:
    """A config for each combination of the values that other settings depend on."""
    names = [name for name in search if name in (*DECIDING, "model")]
    lists = [_values(search[name]) for name in names]
    for values in itertools.product(*lists):
        yield trial_config(dict(zip(names, values, strict=True)), fixed)


def _values(searched: Searched) -> tuple[Any, ...]:
    assert isinstance(searched, Choices)  # none of these is a number
    return searched.values
