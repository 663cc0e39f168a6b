"""The settings of one training without gaps, each with its default and range: what methods and the trainer read.

A method's defaults are these dataclasses with other values; what is given for a training wins over both. Settings of
LoRA are here too, and not in its own file, because flags are known and checked before torch is imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from clip_har.config.commands import TrainConfig
from clip_har.config.converters import Augment, Features, Loss, Placement
from clip_har.config.flat import from_flat_json, to_flat_json
from clip_har.config.groups import AugmentConfig, BackboneConfig, DataConfig, EngineConfig, LoraConfig, OptimizerConfig
from clip_har.config.ranges import (
    BATCH,
    BATCH_OR_AUTO,
    BETAS,
    LAYERS,
    MAX_EPOCHS,
    NOT_NEGATIVE,
    POSITIVE,
    TOWERS,
    at_least,
    from_to,
    setting,
    within,
)

Group = TypeVar("Group")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """`LoraConfig` without gaps."""

    placement: Placement = "embedding"
    towers: tuple[str, ...] = setting(("image", "text"), TOWERS)
    rank: int = setting(16, from_to(1, 65536))
    alpha: float = setting(32.0, POSITIVE)
    dropout: float = setting(0.1, within("[0, 1)"))
    rslora: bool = False
    dora: bool = False
    separate_qkv: bool = False
    layers: str = setting("all", LAYERS)
    renormalise: bool = True
    loss: Loss = "cross-entropy"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """`OptimizerConfig` without gaps."""

    epochs: int = setting(15, from_to(1, MAX_EPOCHS))
    batch_size: int | Literal["auto"] = setting(64, BATCH_OR_AUTO)
    accumulate: int = setting(1, BATCH)
    lr: float = setting(1e-3, POSITIVE)
    weight_decay: float = setting(0.01, NOT_NEGATIVE)
    warmup_epochs: float = setting(0.0, from_to(0, MAX_EPOCHS))
    warmup_steps: int | None = setting(None, at_least(0))
    gradient_clip: float = setting(1.0, NOT_NEGATIVE)
    # As CLIP was trained (arXiv 2103.00020, table 19) and the historic recipe used them.
    betas: tuple[float, ...] = setting((0.9, 0.98), BETAS)
    eps: float = setting(1e-8, POSITIVE)
    vision_lr_multiplier: float = setting(1.0, NOT_NEGATIVE)
    text_lr_multiplier: float = setting(1.0, NOT_NEGATIVE)
    projection_lr_multiplier: float = setting(1.0, NOT_NEGATIVE)
    layer_decay: float = setting(1.0, within("(0, 1]"))
    ema: float = setting(0.0, within("[0, 1)"))
    patience: int = setting(0, at_least(0))
    train_batchnorm: bool = False


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """`AugmentConfig` without gaps."""

    augment: Augment = "none"
    views: int = setting(4, from_to(1, 1000))
    train_image_size: int | None = setting(None, from_to(16, 8192))
    text_augment: bool = False
    label_smoothing: float = setting(0.0, within("[0, 1)"))
    mixup: float = setting(0.0, NOT_NEGATIVE)
    hard_pairs: float = setting(0.0, within("[0, 1]"))
    hard_pairs_every: int = setting(1, at_least(1))
    hard_margin: float = setting(0.05, within("[0, 1]"))


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for a method where nothing is given."""

    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentSettings = AugmentSettings()
    features: Features = "embedding"


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """The run that a training starts from, as it was then."""

    method: str
    settings: Settings
    trainable_params: int = 0
    weights_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """As card.json holds it."""
        return {
            "method": self.method,
            "settings": self.settings.to_json(),
            "trainable_params": self.trainable_params,
            "weights_sha256": self.weights_sha256,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SourceSettings:
        """What `to_json` wrote, now or in an earlier version.

        Raises:
            KeyError, ValueError, TypeError: it is something else.
        """
        return cls(
            method=str(content["method"]),
            settings=Settings.from_json(dict(content.get("settings", {}))),
            trainable_params=int(content.get("trainable_params", 0)),
            weights_sha256=str(content.get("weights_sha256", "")),
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run was trained with: a `TrainConfig` without gaps."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: str = "lora"
    preset: str | None = None
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentSettings = AugmentSettings()
    engine: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    shots: int | None = setting(None, at_least(1))
    features: Features = "embedding"
    refit: bool = False
    hold_out: tuple[str, ...] | None = None
    seed: int = 0
    out: Path | None = None
    source: SourceSettings | None = None
    members: tuple[SourceSettings, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Flat, as card.json holds it."""
        flat = to_flat_json(dataclasses.replace(self, source=None, members=()))
        del flat["source"], flat["members"]
        if self.source is not None:
            flat |= {f"source_{key}": value for key, value in self.source.to_json().items()}
        if self.members:
            flat["members"] = [member.to_json() for member in self.members]
        return flat

    @classmethod
    def from_json(cls, flat: Mapping[str, Any]) -> Settings:
        """What `to_json` wrote, now or in an earlier version, which lacks what came later.

        Raises:
            ValueError, TypeError: these are no settings.
        """
        own = {key: value for key, value in flat.items() if key not in ("source", "members")}
        settings = from_flat_json(cls, own)
        members = tuple(SourceSettings.from_json(dict(member)) for member in flat.get("members") or ())
        settings = dataclasses.replace(settings, members=members)
        if "source_method" not in flat:
            return settings
        prefix = "source_"
        source = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
        return dataclasses.replace(settings, source=SourceSettings.from_json(source))


SETTINGS_OF: Mapping[type, type] = {
    LoraConfig: LoraSettings,
    OptimizerConfig: OptimizerSettings,
    AugmentConfig: AugmentSettings,
}
"""Group of a config -> the same without gaps."""


def resolve(
    config: TrainConfig, defaults: Defaults, *, refits: bool = False, refits_by_default: bool = True
) -> Settings:
    """Settings without gaps: what the config gives, else the defaults.

    Args:
        refits: whether the method can be fitted on train and val together.
        refits_by_default: whether it is where nothing is said of it.
    """
    refit = (refits_by_default and config.shots is None) if config.refit is None else config.refit
    return Settings(
        data=config.data,
        backbone=config.backbone,
        method=config.method,
        preset=config.preset,
        lora=_filled(config.lora, defaults.lora),
        optimizer=_filled(config.optimizer, defaults.optimizer),
        augmentation=_filled(config.augmentation, defaults.augmentation),
        engine=config.engine,
        start_from=config.start_from,
        shots=config.shots,
        features=config.features or defaults.features,
        refit=refits and refit,
        hold_out=config.hold_out,
        seed=config.seed,
        out=config.out,
    )


def _filled(given: object, defaults: Group) -> Group:
    values = {item.name: getattr(given, item.name) for item in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    return dataclasses.replace(
        defaults,  # type: ignore[type-var]
        **{name: value for name, value in values.items() if value is not None},
    )


# What does not decide what comes out of a training: where it runs, and how fast.
_FREE = frozenset(
    {
        "out",
        "resume",
        "data",
        "device",
        "workers",
        "encode_batch_size",
        "cache",
        "offline",
        "layer_cache",
        "save_steps",
        "tensorboard",
        "wandb",
    }
)


def deciding_settings(config: object) -> dict[str, Any]:
    """The settings of a config that decide what comes out of a training, flat."""
    return {key: value for key, value in to_flat_json(config).items() if key not in _FREE}


def differing_settings(
    saved: Mapping[str, Any], config: TrainConfig, *, unread: frozenset[str] = frozenset()
) -> list[str]:
    """What decides the outcome and differs between a run's config.json and a config, as "epochs 5 -> 15".

    Args:
        unread: settings that have no effect on the config's method.
    """
    now = to_flat_json(config)
    keys = sorted((saved.keys() | now.keys()) - _FREE - unread)
    return [f"{key} {saved.get(key)} -> {now.get(key)}" for key in keys if saved.get(key) != now.get(key)]
