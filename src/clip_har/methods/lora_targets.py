"""Which layers of a tower LoRA adapts: --placement, --layers and --towers in terms of a model's modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from clip_har.errors import ConfigError
from clip_har.methods.learning_rates import depth_of
from clip_har.methods.towers import Towers

ADAPTER = "default"
"""The name that PEFT gives an adapter where none is said."""

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn")
_SQUEEZE = re.compile(r"\.se\.|squeeze")
_CONVOLUTIONS = ("Conv2d", "Conv2dSame")
"""Classes whose weights are used as they are; others standardise them on every use, so that nothing can be added."""
_PATCH_EMBEDDINGS = 2
"""A tower with no more convolutions than this only cuts the image into patches with them."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Names of the modules to adapt."""

    called: list[str]
    """Those that the model calls."""
    read: list[str]
    """Linear layers whose weights the model reads without calling them, such as an attention pool's."""


def find_targets(
    classifier: Towers, image_size: tuple[int, int], *, towers: Sequence[str], placement: str, layers: str
) -> Targets:
    """The layers that LoRA adapts.

    Placement "attention" means the attention layers; in a convolutional tower all convolutions, and in one without any
    attention also the linear layers between them. "all" adds every other linear layer, squeeze-and-excite and the
    projection. Grouped and depthwise convolutions are omitted: PEFT cannot merge an update into them. So are
    embeddings, a transformer's patch embedding among them.

    Args:
        image_size: height and width in pixels of an image to try the towers with.
        layers: "all" or "last:K".

    Raises:
        ConfigError: a tower has no such layers.
    """
    names: list[str] = []
    for tower in towers:
        modules = {name: m for name, m in classifier.model.named_modules() if name and tower_of(name) == tower}
        names += _within(layers, _placed(modules, placement), list(modules), tower)
    targets = _sorted_by_use(classifier, names, image_size)
    for tower in towers:
        if not any(tower_of(name) == tower for name in targets.called + targets.read):
            other = "image" if tower == "text" else "text"
            raise ConfigError(
                f"The {tower} encoder has no layer that --placement {placement} --layers {layers} can adapt",
                remedy=f"Use --towers {other}, or --placement embedding, which fits every model.",
            )
    return targets


def fused_layers(model: nn.Module, targets: Targets) -> list[str]:
    """Names of adapted linear layers that give query, key and value at once."""
    found = []
    for name in (*targets.called, *targets.read):
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear) and _is_attention(name) and module.out_features == 3 * module.in_features:
            found.append(name)
    return found


def tower_of(name: str) -> str:
    """The tower, "image" or "text", that a module of an open_clip model belongs to."""
    return "image" if name.startswith("visual.") else "text"


def _placed(modules: Mapping[str, nn.Module], placement: str) -> list[str]:
    """Names of a tower's modules that a placement means."""
    attention: list[str] = []
    others: list[str] = []
    within_layers: list[str] = []
    convolutions = sum(isinstance(module, nn.Conv2d) for module in modules.values())
    inside = tuple(f"{name}." for name, module in modules.items() if isinstance(module, nn.MultiheadAttention))
    for name, module in modules.items():
        if inside and name.startswith(inside):
            continue  # PEFT's adapter of the attention has its output projection within
        linear = isinstance(module, nn.Linear)
        if isinstance(module, nn.MultiheadAttention) or (linear and _is_attention(name)):
            attention.append(name)
        elif linear or (_is_convolution(module) and convolutions > _PATCH_EMBEDDINGS):
            fits = not linear or depth_of(f"{name}.") is not None
            (within_layers if fits and not _SQUEEZE.search(name) else others).append(name)
    if placement == "all":
        return attention + within_layers + others
    if not attention:
        return within_layers
    return attention + [name for name in within_layers if isinstance(modules[name], nn.Conv2d)]


def _is_attention(name: str) -> bool:
    return _ATTENTION.search(name) is not None and _MLP.search(name) is None


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == 1 and type(module).__name__ in _CONVOLUTIONS


def _within(layers: str, names: list[str], order: list[str], tower: str) -> list[str]:
    """Those of a tower's modules that lie in its last K layers or above them; `order` lists all from the bottom up."""
    depths = {name: depth for name in order if (depth := depth_of(f"{name}.")) is not None}
    known = sorted(set(depths.values()))
    if layers == "all":
        return names
    count = int(layers.removeprefix("last:")) if re.fullmatch(r"last:\d+", layers) else 0
    if not 1 <= count <= len(known):
        raise ConfigError(
            f"--layers {layers} does not fit: the {tower} encoder has {len(known)} layers",
            remedy=f"Use all, or last:K with K from 1 to {len(known)}." if known else "Use --layers all.",
        )
    kept = known[-count:]
    top = max(order.index(name) for name in depths)
    return [name for name in names if (depths[name] in kept if name in depths else order.index(name) > top)]


def _sorted_by_use(classifier: Towers, names: list[str], image_size: tuple[int, int]) -> Targets:
    """Sort modules by how the towers use them, found out with an image and a sentence; unused ones are dropped.

    PEFT acts when a layer is called. A layer whose weight is read instead would be adapted to no effect.
    """
    modules = {name: classifier.model.get_submodule(name) for name in names}
    called: set[str] = set()
    hooks = [_note_calls(module, name, called) for name, module in modules.items()]
    was_training = classifier.training
    classifier.eval()
    with torch.no_grad():
        _run(classifier, image_size)
    for hook in hooks:
        hook.remove()
    rest = {n: module.weight for n, module in modules.items() if n not in called and isinstance(module, nn.Linear)}
    read = _with_gradient(rest, classifier, image_size) if rest else set()
    classifier.train(was_training)
    return Targets(called=[n for n in names if n in called], read=[n for n in names if n in read])


def _note_calls(module: nn.Module, name: str, called: set[str]) -> RemovableHandle:
    return module.register_forward_pre_hook(lambda *_: called.add(name))


def _with_gradient(weights: Mapping[str, Tensor], classifier: Towers, image_size: tuple[int, int]) -> set[str]:
    """Names of those weights that the towers' output depends on."""
    for weight in weights.values():
        weight.requires_grad_(True)
    gradients: Sequence[Tensor | None] = [None] * len(weights)
    with torch.enable_grad():
        output = _run(classifier, image_size)
        if output.requires_grad:
            gradients = torch.autograd.grad(output, list(weights.values()), allow_unused=True)
    for weight in weights.values():
        weight.requires_grad_(False)
    return {name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None}


def _run(classifier: Towers, image_size: tuple[int, int]) -> Tensor:
    """A number that depends on both towers."""
    first = torch.zeros(1, dtype=torch.int64, device=classifier.device)
    image_BD = classifier.encode_images(torch.zeros(1, 3, *image_size, device=classifier.device))
    return (image_BD + classifier.encode_captions(first, first)).sum()
