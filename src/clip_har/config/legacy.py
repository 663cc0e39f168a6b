"""The predecessor project's config files: what their keys mean here, and which have no meaning here.

Only names are known here; files are read in reading.py.
"""

from __future__ import annotations

from collections.abc import Iterable

HISTORIC_KEYS = {
    "model_name": "model",
    "learning_rate": "lr",
    "data_dir": "data",
    "checkpoint_dir": "out",
    "num_workers": "workers",
    "gradient_clip_norm": "gradient_clip",
    "dataset_config.text_templates": "templates",
    "optimization.vision_lr_multiplier": "vision_lr_multiplier",
    "optimization.text_lr_multiplier": "text_lr_multiplier",
    "optimization.projection_lr_multiplier": "projection_lr_multiplier",
    "optimization.betas": "betas",
    "optimization.eps": "eps",
}
"""Key of the predecessor's config files -> the setting's name."""

_EVERY_EPOCH = "every epoch is validated"
_BY_STEPS = "states are saved by steps (--save-steps)"
_FIXED = "the log interval is fixed"
_WITHOUT_MEANING = {
    "save_every_n_epochs": _BY_STEPS,
    "eval_every_n_epochs": _EVERY_EPOCH,
    "logging.log_interval": _FIXED,
    "logging.eval_interval": _EVERY_EPOCH,
}
_SHARED_KEYS = frozenset({"epochs", "batch_size", "weight_decay", "warmup_epochs", "seed"})
"""Keys that have the same name in both projects."""
_MARKS = ("optimization.", "dataset_config.", "logging.")
_MARKING_KEYS = frozenset({"num_workers", "gradient_clip_norm", "save_every_n_epochs", "eval_every_n_epochs"})


def is_legacy(keys: Iterable[str]) -> bool:
    """Whether keys, with underscores and dots, are those of one of the predecessor's files."""
    return any(key in _MARKING_KEYS or key.startswith(_MARKS) for key in keys)


def ignored_because(key: str, known: Iterable[str]) -> str | None:
    """Why a key of a predecessor's file has no effect on a command, or None if it has one or is not known.

    Args:
        known: the command's settings.
    """
    if key in _WITHOUT_MEANING:
        return _WITHOUT_MEANING[key]
    known = set(known)
    if key == "checkpoint_dir" and "epochs" not in known:
        return "pass --checkpoint RUN" if "checkpoint" in known else "no run is written"
    if (key in HISTORIC_KEYS or key in _SHARED_KEYS) and HISTORIC_KEYS.get(key, key) not in known:
        return "for training only"
    return None


def ignored_line(path: str, ignored: Iterable[tuple[str, str]]) -> str:
    """One line on the keys that are ignored, those with the same reason together.

    Args:
        ignored: key and reason.
    """
    by_reason: dict[str, list[str]] = {}
    for key, reason in ignored:
        by_reason.setdefault(reason, []).append(key)
    said = "; ".join(f"{', '.join(keys)} ({reason})" for reason, keys in by_reason.items())
    return f"{path}: ignored {said}"
