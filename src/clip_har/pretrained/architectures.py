"""Size and cost of the models that open_clip has weights for, as measured once and shipped in architectures.json.

How they are measured is in measuring.py; no torch is needed to read them.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).parent / "architectures.json"
DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The size and cost of both encoders, whatever their weights."""

    image_parameters: int
    """Parameters of the image encoder, with its projection."""
    text_parameters: int
    """All other parameters that embed a sentence, with the text projection and the logit scale."""
    embed_dim: int
    """Width of the shared embedding space."""
    image_size: int
    """Side of the input image in pixels."""
    gflops: float
    """Billion multiply-adds of the image encoder for one image."""
    image_activation_bytes: int
    """What a forward pass over one image stores for the backward pass, in float32, when all weights are trained."""
    frozen_activation_bytes: int
    """The same when all weights are frozen and gradients only pass through, as to LoRA in the first layer."""
    token_activation_bytes: int
    """What the text encoder stores for one token of its context, when all weights are trained."""
    context: int
    """Tokens that the text encoder reads."""
    decoder_parameters: int = 0
    """Parameters that embed neither images nor sentences: CoCa's caption decoder."""


def known_architecture(name: str) -> Architecture | None:
    """One of open_clip's architectures, or "demo"; None if it was not measured."""
    values = _table()["architectures"].get(name)
    return None if values is None else Architecture(**values)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One of open_clip's own weights."""

    name: str
    """NAME:TAG."""
    architecture: str
    """What it is measured as: a -quickgelu architecture for weights that were trained with QuickGELU."""
    hub: str
    """Repository of the Hugging Face Hub and, after another slash, its file if that is not open_clip's usual one."""


@functools.cache
def listed_weights() -> dict[str, Listed]:
    """Every NAME:TAG of the open_clip that architectures.json was written with, in its order."""
    return {name: Listed(name=name, **entry) for name, entry in _table()["weights"].items()}


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


def measured_with() -> str:
    """The version of open_clip that architectures.json was written with."""
    return str(_table()["open_clip"])
