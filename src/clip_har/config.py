"""Every setting, as one tree of keyword-only dataclasses, and how a JSON or TOML file fills it.

Flags and config keys have the same names. No setting is read anywhere else, and nothing here acts on one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter

from clip_har.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Loss = Literal["cross-entropy", "supcon", "infonce"]
MethodName = Literal["zero-shot", "lora", "linear-probe"]
METHOD_NAMES: tuple[str, ...] = get_args(MethodName)
DEFAULT_MODEL = "ViT-B/32"


def _whole_number(_type: object, tokens: Sequence[Any]) -> int:
    """ "15" and "15.0" -> 15; 1.5 is refused, where cyclopts would round it."""
    text, source = tokens[0].value, tokens[0].source
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        if float(text).is_integer():
            return int(float(text))
    place = f" (in {source})" if source not in ("", "cli") else ""
    raise ValueError(f'unable to convert "{text}" into int, a whole number{place}')


WholeNumber = Annotated[int, Parameter(converter=_whole_number)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split."""

    data: Path
    """Folder of labelled images: class folders, or class folders under train/, val/ and test/."""
    val_fraction: float = 0.15
    """Share of the training images held out to choose by, where the folder has no val/. In (0, 0.5]."""
    test_fraction: float = 0.15
    """Share of all images held out for the final figures, where the folder has no split. In (0, 0.5]."""
    split_seed: WholeNumber = 0
    """Seed of the splits. Runs with other seeds still share the splits."""
    unreadable_limit: float = 0.05
    """Stop when more than this share of a split's images cannot be read. In [0, 1]."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which pretrained model, and how it runs."""

    model: str | None = None
    """Backbone: ViT-B/32, ViT-B/16, ViT-L/14, RN50, RN101 (OpenAI's weights), an open_clip name as
    NAME:PRETRAINED, hf-hub:REPO, local-dir:FOLDER, a weight file (NAME:FILE, or OpenAI's .pt alone), or demo.
    Default: the trained run's own, else ViT-B/32."""
    templates: tuple[str, ...] = ()
    """Prompt templates with {} for the class, or files with one per line. Default: seven on actions."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of the frozen image tower; auto picks bfloat16 where the hardware has it."""
    encode_batch_size: WholeNumber = 64
    """Images per forward pass while embeddings are computed."""
    workers: WholeNumber = -1
    """Processes that decode images; -1 means one per core, 0 decodes in the main process."""
    cache: Path | None = None
    """Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The low-rank residual on the embeddings (method lora)."""

    rank: WholeNumber = 16
    """Rank r of the update."""
    alpha: float = 32.0
    """Numerator of the scale alpha / r."""
    dropout: float = 0.1
    """Dropout on the update's input. In [0, 1)."""
    loss: Loss = "cross-entropy"
    """cross-entropy over the class prompts; supcon: class-aware contrastive loss within the batch; infonce:
    the historic one, which counts same-class captions as negatives (kept for the record)."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradient methods are trained."""

    epochs: WholeNumber = 15
    """Passes over the training images."""
    batch_size: WholeNumber = 64
    """Images per optimizer step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up before the cosine decay."""
    gradient_clip: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    vision_lr_multiplier: float = 1.0
    """Factor on lr for the image side."""
    text_lr_multiplier: float = 1.0
    """Factor on lr for the text side."""
    projection_lr_multiplier: float = 1.0
    """Factor on lr for what joins the two sides (the logit scale)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`clip-har train`: one method, one run folder."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodName = "lora"
    """Way of adapting the backbone."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: WholeNumber = 0
    """Seed of initialisation, batch order and dropout."""
    out: Path | None = None
    """Run folder to write. Default: runs/METHOD, then runs/METHOD-2, and so on."""
    resume: bool = False
    """Continue the interrupted run in --out."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """`clip-har evaluate`: a run, or the zero-shot baseline alone, on the test split."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    checkpoint: Path | None = None
    """Run folder, or a file inside it. Without it only the zero-shot baseline is scored."""
    out: Path | None = None
    """Where results go. Default: eval/ in the run folder, or eval/ here for the baseline alone."""
    seed: WholeNumber = 0
    """Seed of the bootstrap intervals."""


def _split_names(_type: object, tokens: Sequence[Any]) -> tuple[str, ...]:
    """ "a,b" or several values -> method names."""
    names = tuple(name.strip() for token in tokens for name in token.value.split(",") if name.strip())
    for name in names:
        if name not in METHOD_NAMES:
            near = difflib.get_close_matches(name, METHOD_NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(METHOD_NAMES)}"
            raise ValueError(f"there is no method {name!r}: {hint}")
    if not names:
        raise ValueError("no method is named")
    return names


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """`clip-har compare`: several methods under one protocol."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    methods: Annotated[tuple[MethodName, ...], Parameter(converter=_split_names)] = (
        "zero-shot",
        "linear-probe",
        "lora",
    )
    """Methods to compare, separated by commas."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: WholeNumber = 0
    """Seed of initialisation, batch order, dropout and the bootstrap intervals."""
    out: Path = Path("runs/comparison")
    """Folder for the tables, the report and one run folder per method."""


# What the historic config files call it -> what it is called here.
HISTORIC_KEYS = {
    "model_name": "model",
    "learning_rate": "lr",
    "data_dir": "data",
    "checkpoint_dir": "out",
    "optimization.vision_lr_multiplier": "vision_lr_multiplier",
    "optimization.text_lr_multiplier": "text_lr_multiplier",
    "optimization.projection_lr_multiplier": "projection_lr_multiplier",
}


def flat_fields(config_type: type) -> Iterator[dataclasses.Field[Any]]:
    """The settings of a config dataclass as the flags see them: nested groups opened up."""
    for item in dataclasses.fields(config_type):
        group = _GROUPS.get(str(item.type))
        if group is None:
            yield item
        else:
            yield from flat_fields(group)


def load_config_file(path: Path, config_type: type) -> dict[str, Any]:
    """Read a JSON or TOML file of settings, in today's flat form or the historic nested one.

    Hyphens and underscores are the same. A null counts as not given, and so does `resume`, which a run's own
    config.json holds but which is for the command line to say.

    Returns:
        Setting name -> raw value.

    Raises:
        ConfigError: the file is missing or malformed, or holds unknown keys (all named, each with the nearest
            known one).
    """
    raw = _read_mapping(path)
    known = {item.name for item in flat_fields(config_type)}
    values: dict[str, Any] = {}
    problems = []
    for key, value in _flatten(raw):
        name = key.replace("-", "_")
        name = HISTORIC_KEYS.get(name, name)
        if name not in known:
            problems.append(_unknown_key(key, known))
        elif name in values:
            problems.append(f"{key!r} is given twice")
        elif value is not None:
            values[name] = value
    values.pop("resume", None)
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}", remedy="Mend or remove what is named here.")
    return values


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


def validate(config: TrainConfig | EvaluateConfig | CompareConfig) -> None:
    """Refuse values that cannot work, all of them at once, before anything is loaded.

    Raises:
        ConfigError: naming every setting that is out of its range.
    """
    flat = to_flat_json(config)
    problems = [
        f"--{name.replace('_', '-')} must be {wanted}, not {flat[name]}"
        for name, (wanted, holds) in _RANGES.items()
        if name in flat and not holds(flat[name])
    ]
    if isinstance(config, CompareConfig) and len(set(config.methods)) < len(config.methods):
        problems.append("--methods names a method twice")
    if problems:
        raise ConfigError("; ".join(problems), remedy="See --help for what each flag means.")


_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "val_fraction": ("in (0, 0.5]", lambda x: 0 < x <= 0.5),
    "test_fraction": ("in (0, 0.5]", lambda x: 0 < x <= 0.5),
    "unreadable_limit": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "encode_batch_size": ("at least 1", lambda x: x >= 1),
    "workers": ("-1 or more", lambda x: x >= -1),
    "rank": ("at least 1", lambda x: x >= 1),
    "alpha": ("above 0", lambda x: 0 < x < float("inf")),
    "dropout": ("in [0, 1)", lambda x: 0 <= x < 1),
    "epochs": ("at least 1", lambda x: x >= 1),
    "batch_size": ("at least 1", lambda x: x >= 1),
    "lr": ("above 0", lambda x: 0 < x < float("inf")),
    "weight_decay": ("0 or more", lambda x: 0 <= x < float("inf")),
    "warmup_epochs": ("0 or more", lambda x: 0 <= x < float("inf")),
    "gradient_clip": ("0 or more", lambda x: 0 <= x < float("inf")),
    "vision_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "text_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "projection_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "seed": ("from 0 to 4294967295", lambda x: 0 <= x < 2**32),  # what scikit-learn takes as a seed
    "split_seed": ("from 0 to 4294967295", lambda x: 0 <= x < 2**32),
}

_GROUPS: dict[str, type] = {
    group.__name__: group for group in (DataConfig, BackboneConfig, LoraConfig, OptimizerConfig)
}


def _read_mapping(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise ConfigError(f"Cannot read the config file {path}: {error}", remedy="Check --config.") from error
    kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
    try:
        raw = tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid {kind}: {error}", remedy="Mend the file.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no settings", remedy="Write an object of names and values.")
    return raw


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key given twice JSON itself would silently keep the second value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {repeated!r} is given twice")
    return found


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_key(key: str, known: set[str]) -> str:
    """What is wrong with a key, and the key of today or of the historic files that was probably meant."""
    last = key.rpartition(".")[2].replace("-", "_")
    last = HISTORIC_KEYS.get(last, last)
    candidates = sorted(known | {old for old, new in HISTORIC_KEYS.items() if new in known})
    nearest = [last] if last in known else difflib.get_close_matches(key.replace("-", "_"), candidates, n=1)
    if any(last == item.name for command in _COMMANDS for item in flat_fields(command)) and not nearest:
        return f"{key!r} is not a setting of this command"
    return f"unknown key {key!r}" + (f" (did you mean {nearest[0]!r}?)" if nearest else "")


_COMMANDS = (TrainConfig, EvaluateConfig, CompareConfig)
