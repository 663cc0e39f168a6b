"""Whether a run fits what is here now: the same model, images, classes and prompts, and what to do where not.

Asked before a run is continued, reused, mixed with zero-shot weights, or predicts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clip_har.errors import RunError
from clip_har.projection import NEW_PROJECTIONS

Aspect = Literal["model", "activation", "features", "images", "classes", "prompts"]
ASPECTS: tuple[Aspect, ...] = ("model", "activation", "features", "images", "classes", "prompts")

_TRAINED: Mapping[Aspect, str] = {
    "features": "was trained by an earlier version, which did not know this model's features before the projection",
    "images": "was trained on other images or another split of them",
    "classes": "was trained on other classes",
    "prompts": "was trained with other prompts",
}
_REMEDIES: Mapping[Aspect, str] = {
    "model": "Pass the model the run was trained on with --model, or train a run on this one.",
    "activation": "Pass the model the run was trained on with --model, or train a run on this one.",
    "features": "Train it again.",
    "images": "Pass the --data and split it was trained on.",
    "classes": "Pass the --data and --hold-out it was trained with.",
    "prompts": "Pass the --templates and --phrasings it was trained with.",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a training depends on besides its settings. None where it is not known or not asked."""

    model: str | None = None
    """Hash of the pretrained model's weights."""
    model_name: str = ""
    """For messages."""
    activation: str | None = None
    """QuickGELU or GELU; the same weights answer otherwise with the other. None where it is neither, or not known."""
    features: str | None = None
    """Where the features before the projection come from (`projection.NEW_PROJECTIONS`), for a method that reads them.
    None where every version knew them."""
    images: str | None = None
    """Hash of the manifest: every image with its class and split."""
    classes: tuple[str, ...] | None = None
    prompts: str | None = None
    """Hash of the prompts, or of their embeddings; only compared with the same."""


def new_features(projection: str) -> str | None:
    """`Protocol.features` of a model whose projection is there."""
    return projection if projection in NEW_PROJECTIONS else None


def known_activation(name: str) -> str | None:
    """`Protocol.activation` of a model whose card or description says this."""
    return name if name in ("QuickGELU", "GELU") else None


def hash_prompts(templates: Sequence[str], phrasing: Mapping[str, str]) -> str:
    """SHA-256 of the templates and of what stands for each class in them."""
    return hashlib.sha256(json.dumps([list(templates), dict(phrasing)], sort_keys=True).encode()).hexdigest()


def differing(then: Protocol, now: Protocol) -> Aspect | None:
    """The first aspect known of both that differs."""
    for aspect in ASPECTS:
        before, after = getattr(then, aspect), getattr(now, aspect)
        if before is not None and after is not None and before != after:
            return aspect
    return None


def require_same(run: object, then: Protocol, now: Protocol, *, remedy: str | None = None) -> None:
    """Refuse a run that was trained on or with something else.

    Args:
        run: its folder, for the message.
        remedy: in place of the one that fits what differs.

    Raises:
        RunError: naming what differs.
    """
    aspect = differing(then, now)
    if aspect is None:
        return
    if aspect == "model":
        was, here = (str(protocol.model)[:12] for protocol in (then, now))
        what = f"{run} was trained on {then.model_name} (weights {was}), but {now.model_name} has weights {here}"
    elif aspect == "activation":
        what = (
            f"{run} was trained on {then.model_name} with {then.activation}, but {now.model_name} has {now.activation}"
        )
    else:
        what = f"{run} {_TRAINED[aspect]}"
    raise RunError(what, remedy=remedy or _REMEDIES[aspect])
