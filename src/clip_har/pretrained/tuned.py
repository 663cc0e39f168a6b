"""A fine-tuned model as a folder: another model's architecture and tokenizer, with weights of its own.

tuned_model.json names the other model; the weights are open_clip's state dict as safetensors. torch is imported where
it is used: listing models needs none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clip_har.errors import ModelError
from clip_har.files import write_atomically
from clip_har.pretrained.configs import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

DESCRIPTION = "tuned_model.json"
WEIGHTS = "open_clip_model.safetensors"
MOST_TIMES = 8
"""A model may have been fine-tuned so often, one after the other; more is a circle."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that was fine-tuned."""

    name: str
    files_sha256: str
    """See `opening.fingerprint`."""
    chain: tuple[str, ...]
    """What it came from: each training and at last the pretrained model."""


def is_tuned(folder: Path) -> bool:
    """Whether a folder holds a fine-tuned model in this form."""
    return (folder / DESCRIPTION).is_file()


def write_tuned(folder: Path, base: Base, state: Mapping[str, Tensor]) -> None:
    """Write a fine-tuned model; the description last, so that a folder without it is unfinished."""
    from clip_har.tensor_files import write_tensors

    write_tensors(folder / WEIGHTS, state, {"format": "pt"})
    content = {"base": base.name, "base_files_sha256": base.files_sha256, "chain": list(base.chain)}
    write_atomically(folder / DESCRIPTION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_base(folder: Path) -> Base:
    """The model that a folder's was fine-tuned from.

    Raises:
        ModelError: the description is not what `write_tuned` writes.
    """
    path = folder / DESCRIPTION
    content = read_json(path, str(path))
    fits = isinstance(content, dict) and content.keys() == {"base", "base_files_sha256", "chain"}
    if not fits or not _are_texts([content["base"], content["base_files_sha256"]]) or not _are_texts(content["chain"]):
        raise ModelError(f"{path} is damaged", remedy="Remove its folder, and pass the run again with --model.")
    if not 0 < len(content["chain"]) <= MOST_TIMES:
        raise ModelError(f"{path} names {len(content['chain'])} models in a row", remedy="Start from an earlier one.")
    return Base(name=content["base"], files_sha256=content["base_files_sha256"], chain=tuple(content["chain"]))


def set_weights(model: nn.Module, folder: Path) -> None:
    """Give a model the folder's weights.

    Raises:
        ModelError: they are missing, damaged, or not of this architecture.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        with torch.no_grad():
            model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        remedy = "Remove its folder, and pass the run again with --model."
        raise ModelError(f"{path} is missing, damaged, or not of this model", remedy=remedy) from error


def _are_texts(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(v, str) for v in values)
