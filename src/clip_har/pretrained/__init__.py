"""A pretrained model's name -> the model, through open_clip or from files: checked before anything in them is used.

What it names is imported when it is first used: the catalogue needs no torch, which takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_har.pretrained.names import (
        HISTORIC_NAMES,
        SHORT_NAMES,
        absolute,
        at_size,
        is_built_in,
        require_one_meaning,
        split_image_size,
    )
    from clip_har.pretrained.opening import Opened, fingerprint, open_pretrained

_OF_NAMES = (
    "HISTORIC_NAMES",
    "SHORT_NAMES",
    "absolute",
    "at_size",
    "is_built_in",
    "require_one_meaning",
    "split_image_size",
)
__all__ = [
    "HISTORIC_NAMES",
    "SHORT_NAMES",
    "Opened",
    "absolute",
    "at_size",
    "fingerprint",
    "is_built_in",
    "open_pretrained",
    "require_one_meaning",
    "split_image_size",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'names' if name in _OF_NAMES else 'opening'}"), name)
