"""Every setting: the tree of dataclasses, files that fill it, presets and ranges. Nothing here acts on one."""

from clip_har.config.checking import range_problems, validate
from clip_har.config.converters import Augment, MethodNames, Precision, known_method, preset_names
from clip_har.config.legacy import HISTORIC_KEYS
from clip_har.config.methods import METHOD_NAMES
from clip_har.config.presets import apply_preset, load_preset, resolve
from clip_har.config.reading import load_config_file
from clip_har.config.tree import (
    DEFAULT_MODEL,
    AugmentConfig,
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    ExplainConfig,
    LoraConfig,
    OptimizerConfig,
    PromptsConfig,
    TrainConfig,
    flat_fields,
    to_flat_json,
)

__all__ = [
    "DEFAULT_MODEL",
    "HISTORIC_KEYS",
    "METHOD_NAMES",
    "Augment",
    "AugmentConfig",
    "BackboneConfig",
    "CompareConfig",
    "DataConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "LoraConfig",
    "MethodNames",
    "OptimizerConfig",
    "Precision",
    "PromptsConfig",
    "TrainConfig",
    "apply_preset",
    "flat_fields",
    "known_method",
    "load_config_file",
    "load_preset",
    "preset_names",
    "range_problems",
    "resolve",
    "to_flat_json",
    "validate",
]
