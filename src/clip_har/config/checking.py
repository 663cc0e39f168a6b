"""What each setting may be; every problem is reported at once, before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clip_har.config.tree import (
    CompareConfig,
    EvaluateConfig,
    PromptsConfig,
    TrainConfig,
    to_flat_json,
)
from clip_har.errors import ConfigError


def validate(config: TrainConfig | EvaluateConfig | CompareConfig | PromptsConfig) -> None:
    """Refuse values that cannot work, all of them at once, before anything is loaded.

    Raises:
        ConfigError: naming every setting that is out of its range.
    """
    flat = to_flat_json(config)
    problems = range_problems(flat)
    for name in ("methods", "seeds"):
        if len(set(flat.get(name, ()))) < len(flat.get(name, ())):
            problems.append(f"--{name} names a {name[:-1]} twice")
    problems += _conflicts(flat)
    if problems:
        raise ConfigError("; ".join(problems), remedy="See --help for what each flag means.")


def range_problems(flat: Mapping[str, Any]) -> list[str]:
    """Flat settings that are out of their range, each with what it must be."""
    return [
        f"--{name.replace('_', '-')} must be {wanted}, not {flat[name]}"
        for name, (wanted, holds) in _RANGES.items()
        if flat.get(name) is not None and not holds(flat[name])
    ]


def _conflicts(flat: Mapping[str, Any]) -> Iterator[str]:
    """Settings that contradict each other."""
    if flat.get("mixup") and flat.get("loss") not in (None, "cross-entropy"):
        yield f"--mixup needs --loss cross-entropy, not {flat['loss']}"
    if flat.get("mixup") and flat.get("hard_pairs"):
        yield "--mixup and --hard-pairs cannot be combined"
    if flat.get("renormalise") is False and flat.get("placement") in ("attention", "all"):
        yield f"--no-renormalise requires --placement embedding, not {flat['placement']}"
    method = flat.get("method")
    if flat.get("precision") == "fp16-pure" and method not in WHOLE_TOWERS and "methods" not in flat:
        yield "--precision fp16-pure is for training full or two-tier only"
    if flat.get("train_batchnorm") and method is not None and method not in WHOLE_TOWERS:
        yield f"--train-batchnorm is for full and two-tier, not {method}"


WHOLE_TOWERS = ("full", "two-tier")
"""Methods that train every parameter of both towers."""


def _is_layers(text: str) -> bool:
    return text == "all" or re.fullmatch(r"last:[1-9]\d*", text) is not None


def _from_1_to(highest: int) -> tuple[str, Callable[[Any], bool]]:
    return f"from 1 to {highest}", lambda x: 1 <= x <= highest


MAX_BATCH = MAX_EPOCHS = 1_000_000
MAX_WORKERS = 256

_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "val_fraction": ("in (0, 0.5]", lambda x: 0 < x <= 0.5),
    "test_fraction": ("in (0, 0.5]", lambda x: 0 < x <= 0.5),
    "unreadable_limit": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "encode_batch_size": _from_1_to(MAX_BATCH),
    "workers": (f"from -1 to {MAX_WORKERS}", lambda x: -1 <= x <= MAX_WORKERS),
    "rank": ("from 1 to 65536", lambda x: 1 <= x <= 65536),
    "alpha": ("above 0", lambda x: 0 < x < float("inf")),
    "dropout": ("in [0, 1)", lambda x: 0 <= x < 1),
    "epochs": _from_1_to(MAX_EPOCHS),
    "batch_size": (f"auto or from 1 to {MAX_BATCH}", lambda x: x == "auto" or 1 <= x <= MAX_BATCH),
    "accumulate": _from_1_to(MAX_BATCH),
    "lr": ("above 0", lambda x: 0 < x < float("inf")),
    "weight_decay": ("0 or more", lambda x: 0 <= x < float("inf")),
    "warmup_epochs": (f"from 0 to {MAX_EPOCHS}", lambda x: 0 <= x <= MAX_EPOCHS),
    "betas": ("two numbers in [0, 1)", lambda x: len(x) == 2 and all(0 <= beta < 1 for beta in x)),
    "eps": ("above 0", lambda x: 0 < x < float("inf")),
    "gradient_clip": ("0 or more", lambda x: 0 <= x < float("inf")),
    "vision_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "text_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "projection_lr_multiplier": ("0 or more", lambda x: 0 <= x < float("inf")),
    "warmup_steps": ("0 or more", lambda x: x >= 0),
    "layer_decay": ("in (0, 1]", lambda x: 0 < x <= 1),
    "ema": ("in [0, 1)", lambda x: 0 <= x < 1),
    "patience": ("0 or more", lambda x: x >= 0),
    "layers": ("all or last:K", _is_layers),
    "towers": ("image, text or both", lambda x: 0 < len(x) == len(set(x)) and set(x) <= {"image", "text"}),
    "views": _from_1_to(1000),
    "train_image_size": ("from 16 to 8192", lambda x: 16 <= x <= 8192),
    "mixup": ("0 or more", lambda x: 0 <= x < float("inf")),
    "hard_pairs": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "hard_pairs_every": ("at least 1", lambda x: x >= 1),
    "hard_margin": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "save_steps": ("at least 1", lambda x: x >= 1),
    "robustness_images": ("0 or more", lambda x: x >= 0),
    "explain": ("0 or more", lambda x: x >= 0),
    "corruptions": ("at least one kind", lambda x: len(x) > 0),
    "shots": ("at least 1", lambda x: x >= 1),
    "seeds": ("from 0 to 4294967295", lambda x: all(0 <= seed < 2**32 for seed in x)),
    "seed": ("from 0 to 4294967295", lambda x: 0 <= x < 2**32),  # what scikit-learn takes as a seed
    "split_seed": ("from 0 to 4294967295", lambda x: 0 <= x < 2**32),
}
