"""Every setting: the tree of dataclasses, files that fill it, presets and ranges. Nothing here acts on one."""

from clip_har.config.checking import range_problems, validate
from clip_har.config.commands import (
    CompareConfig,
    EvaluateConfig,
    ExplainConfig,
    ImportConfig,
    ModelsConfig,
    PromptsConfig,
    QuickstartConfig,
    TrainConfig,
)
from clip_har.config.converters import Augment, AutoBudget, Features, MethodNames, Precision, known_method, preset_names
from clip_har.config.data_commands import (
    AuditConfig,
    AuditLimits,
    AuditSettings,
    CleanConfig,
    FetchConfig,
    SplitConfig,
    VerifyConfig,
)
from clip_har.config.embed_command import EmbedConfig
from clip_har.config.flat import flat_fields, to_flat_json
from clip_har.config.groups import (
    DEFAULT_MODEL,
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EngineConfig,
    LoraConfig,
    OptimizerConfig,
    RayConfig,
    RunModelConfig,
)
from clip_har.config.legacy import HISTORIC_KEYS
from clip_har.config.methods import METHOD_NAMES
from clip_har.config.presets import apply_preset, load_preset, names_method
from clip_har.config.reading import load_config_file, load_table
from clip_har.config.run_commands import STANDARD_INPUT, ExportConfig, PredictConfig, ServeConfig
from clip_har.config.search_space import Choices, Interval, Searched, parse_search, with_values
from clip_har.config.settings import (
    AugmentSettings,
    Defaults,
    LoraSettings,
    OptimizerSettings,
    Settings,
    SourceSettings,
    deciding_settings,
    differing_settings,
    resolve,
)
from clip_har.config.sweep_command import SweepConfig
from clip_har.config.video_command import VideoConfig

__all__ = [
    "DEFAULT_MODEL",
    "HISTORIC_KEYS",
    "METHOD_NAMES",
    "STANDARD_INPUT",
    "AuditConfig",
    "AuditLimits",
    "AuditSettings",
    "Augment",
    "AugmentConfig",
    "AugmentSettings",
    "AutoBudget",
    "BackboneConfig",
    "Choices",
    "CleanConfig",
    "CompareConfig",
    "DataConfig",
    "Defaults",
    "EmbedConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "ExportConfig",
    "Features",
    "FetchConfig",
    "ImportConfig",
    "Interval",
    "LoraConfig",
    "LoraSettings",
    "MethodNames",
    "ModelsConfig",
    "OptimizerConfig",
    "OptimizerSettings",
    "Precision",
    "PredictConfig",
    "PromptsConfig",
    "QuickstartConfig",
    "RayConfig",
    "RunModelConfig",
    "Searched",
    "ServeConfig",
    "Settings",
    "SourceSettings",
    "SplitConfig",
    "SweepConfig",
    "TrainConfig",
    "VerifyConfig",
    "VideoConfig",
    "apply_preset",
    "deciding_settings",
    "differing_settings",
    "flat_fields",
    "known_method",
    "load_config_file",
    "load_preset",
    "load_table",
    "names_method",
    "parse_search",
    "preset_names",
    "range_problems",
    "resolve",
    "to_flat_json",
    "validate",
    "with_values",
]
