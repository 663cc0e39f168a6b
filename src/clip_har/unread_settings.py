"""The settings that a method does not read: a run fits a config that differs only in these.

What each method reads is declared in methods/; folders are compared in checkpoint.py.
"""

from __future__ import annotations

import dataclasses

from clip_har.config import AugmentConfig, LoraConfig, OptimizerConfig, TrainConfig
from clip_har.methods import method_class

_OF_TRAINING = frozenset(item.name for group in (LoraConfig, OptimizerConfig) for item in dataclasses.fields(group))
_OF_VIEWS = frozenset(item.name for item in dataclasses.fields(AugmentConfig))


def unread_settings(config: TrainConfig) -> frozenset[str]:
    """Names of settings that cannot change what the config's method becomes.

    Without weights nothing is trained, from no seed. A method that starts from runs depends on what these read.
    Augmented views count as read: they are cached for every method.
    """
    method = method_class(config.method, config)
    of_fit = {"features", "refit"} - method.settings_read() - ({"refit"} if method.refits else set())
    of_fit |= {"start_from", "members", "budget"}
    if not method.has_weights:
        return _OF_TRAINING | _OF_VIEWS | of_fit | {"seed"}
    if method.starts_from is not None or method.combines:
        return frozenset()
    return (_OF_TRAINING - method.settings_read()) | of_fit
