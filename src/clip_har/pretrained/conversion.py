"""What a converter makes of another library's weights: a configuration and tensors as open_clip has them.

A converter takes every tensor by its name in the source; what is missing or left over is an error, never a guess.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clip_har.errors import ModelError

ACTIVATIONS = {"gelu": "GELU", "gelu_tanh": "GELU (tanh)", "quick_gelu": "QuickGELU"}
"""GELU, its approximation with tanh, and its approximation with a sigmoid -> how they are shown."""

_LISTED = 3
_MODULES = frozenset({"GELU", "GELUTanh", "QuickGELU"})


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model in open_clip's format."""

    config: dict[str, Any]
    """Content of open_clip_config.json."""
    tensors: dict[str, Tensor]
    """State dict of the open_clip model."""
    image_activation: str
    """One of `ACTIVATIONS`. A model of open_clip has one for both encoders, and timm's encoders have their own."""
    text_activation: str
    notes: tuple[str, ...] = ()
    """What was assumed about the model; a line each."""
    tokenizer: dict[str, bytes] = field(default_factory=dict)
    """File name -> content; empty for CLIP's own vocabulary."""


class Renaming:
    """Moves the tensors of a source one by one to open_clip's names.

    Args:
        origin: how messages call the source.
        source: its tensors by name.
    """

    def __init__(self, origin: str, source: Mapping[str, Tensor]) -> None:
        self.origin = origin
        self._left = dict(source)
        self._missing: list[str] = []
        self._moved: dict[str, Tensor] = {}

    def take(self, name: str) -> Tensor | None:
        """One tensor of the source, or None if it is missing, which `finish` reports."""
        if name not in self._left:
            self._missing.append(name)
        return self._left.pop(name, None)

    def move(self, target: str, *names: str, change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Move a tensor, or several concatenated along their first dimension; `change` is applied to the result."""
        parts = [self.take(name) for name in names]
        found = [part for part in parts if part is not None]
        if len(found) < len(names):
            return
        try:
            tensor = found[0] if len(found) == 1 else torch.cat(found)
            self._moved[target] = tensor if change is None else change(tensor)
        except RuntimeError as error:
            raise ModelError(
                f"{self.origin}: the tensor {names[0]} has the unexpected shape {tuple(found[0].shape)}",
                remedy="Check that the file is complete.",
            ) from error

    def put(self, target: str, tensor: Tensor) -> None:
        """Add a tensor that was computed from others."""
        self._moved[target] = tensor

    def split(self, source: str, *targets: tuple[str, int]) -> None:
        """Cut a tensor along its first dimension; each target has a name and a number of equal shares."""
        tensor = self.take(source)
        if tensor is None:
            return
        share = len(tensor) // sum(shares for _, shares in targets)
        ends = [share * shares for shares in itertools.accumulate(shares for _, shares in targets)]
        for (name, _), part in zip(targets, tensor.tensor_split(ends[:-1]), strict=True):
            self.put(name, part)

    def drop(self, *prefixes: str) -> list[str]:
        """Leave out every remaining tensor with one of these prefixes; returns their names."""
        dropped = [name for name in self._left if name.startswith(prefixes)]
        for name in dropped:
            del self._left[name]
        return dropped

    def move_linear(self, target: str, source: str) -> None:
        """Move the weight and the bias of a linear layer or a layer norm."""
        for part in ("weight", "bias"):
            self.move(f"{target}.{part}", f"{source}.{part}")

    def finish(self) -> dict[str, Tensor]:
        """All that was moved.

        Raises:
            ModelError: tensors were missing, or some are left that no part of the model takes.
        """
        if self._missing:
            raise ModelError(
                f"{self.origin} has no {_listed(self._missing)}", remedy="Check that the file is complete, and a CLIP."
            )
        if self._left:
            raise ModelError(
                f"{self.origin} contains {_listed(sorted(self._left))}, which clip-har cannot assign",
                remedy="Pass an unmodified model; adapters and other additions are not supported.",
            )
        return self._moved


class Reversal(Renaming):
    """The same moves from open_clip's names back to those that a conversion takes them from.

    Args:
        origin: how messages call the source.
        source: open_clip's tensors by name.
        shapes: shape of each tensor that is wanted. A change other than a transposition is undone by reshaping.
    """

    def __init__(self, origin: str, source: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(origin, source)
        self._shapes = shapes

    def move(self, target: str, *names: str, change: Callable[[Tensor], Tensor] | None = None) -> None:
        tensor = self.take(target)
        if tensor is None:
            return
        if change is Tensor.t:
            tensor = tensor.t()
        elif change is not None and tensor.numel() == math.prod(self._shapes[names[0]]):
            tensor = tensor.reshape(self._shapes[names[0]])
        parts = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
        for name, part in zip(names, parts, strict=True):
            self.put(name, part)

    def split(self, source: str, *targets: tuple[str, int]) -> None:
        parts = [self.take(name) for name, _ in targets]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts):
            self.put(source, torch.cat(found))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"


def move_blocks(renaming: Renaming, target: str, source: str, layers: int) -> None:
    """Move the blocks of a transformers encoder to open_clip's; its attention has one matrix for three inputs."""
    for index in range(layers):
        block, old = f"{target}.resblocks.{index}", f"{source}.layers.{index}"
        for part in ("weight", "bias"):
            names = [f"{old}.self_attn.{role}_proj.{part}" for role in "qkv"]
            renaming.move(f"{block}.attn.in_proj_{part}", *names)
        renaming.move_linear(f"{block}.attn.out_proj", f"{old}.self_attn.out_proj")
        renaming.move_linear(f"{block}.ln_1", f"{old}.layer_norm1")
        renaming.move_linear(f"{block}.ln_2", f"{old}.layer_norm2")
        renaming.move_linear(f"{block}.mlp.c_fc", f"{old}.mlp.fc1")
        renaming.move_linear(f"{block}.mlp.c_proj", f"{old}.mlp.fc2")


def text_sizes(text: Any) -> dict[str, Any]:
    """The part of open_clip's `text_cfg` that every text encoder of transformers has, from its configuration."""
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": text.intermediate_size / text.hidden_size,
        "norm_kwargs": {"eps": text.layer_norm_eps},
    }


def check_shapes(origin: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Compare tensors with what open_clip builds for a configuration, without allocating it.

    Raises:
        ModelError: a tensor is missing, superfluous or of another shape.
    """
    expected = shapes_of(config)
    for name in sorted(set(expected) | set(tensors)):
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != expected.get(name):
            raise ModelError(
                f"{origin}: the tensor {name} has the shape {shape}, expected {expected.get(name)}",
                remedy="Check that the configuration and the weights are of the same model.",
            )


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the state dict of the model that open_clip builds for a `model_cfg`."""
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    text = config["text_cfg"]
    custom = bool(config.get("custom_text")) or "hf_model_name" in text
    with torch.device("meta"):
        model = (CustomTextCLIP if custom else CLIP)(**arguments)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def shown_activations(image: str, text: str) -> str:
    """How both encoders' activations are shown; the text encoder's if it differs."""
    shown = ACTIVATIONS[image]
    return shown if image == text else f"{shown}, text encoder {ACTIVATIONS[text]}"


def activation_of(encoder: nn.Module) -> str | None:
    """Which of `ACTIVATIONS` an encoder applies, by its modules; None if there are several, none, or another."""
    found = {_kind(module) for module in encoder.modules() if type(module).__name__ in _MODULES}
    return found.pop() if len(found) == 1 else None


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    if name == "GELU":
        return "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu"
    return "gelu_tanh" if name == "GELUTanh" else "quick_gelu"


def set_activations(model: nn.Module, *, image: str, text: str) -> None:
    """Give both encoders of an open_clip model the activations that the source model has."""
    _set_activation(model.get_submodule("visual"), image)
    _set_activation(model.get_submodule("text" if hasattr(model, "text") else "transformer"), text)


def _set_activation(tower: nn.Module, kind: str) -> None:
    from open_clip.transformer import QuickGELU

    kinds: dict[str, Callable[[], nn.Module]] = {
        "gelu": nn.GELU,
        "gelu_tanh": functools.partial(nn.GELU, approximate="tanh"),
        "quick_gelu": QuickGELU,
    }
    for parent in list(tower.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in _MODULES:
                setattr(parent, name, kinds[kind]())
