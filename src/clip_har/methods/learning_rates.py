"""Learning rates of a model's parameters: by side, by depth, and without decay for biases and norms."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from clip_har.config import OptimizerSettings

_JOINT = re.compile(
    r"logit_|visual\.(proj$|head\.|trunk\.(head|classifier|fc)\.|attnpool\.c_proj)"
    r"|text_projection|text\.(text_projection|proj)"
)


def side_of(name: str) -> str:
    """Which learning rate a parameter of the model follows: "image", "text", or "joint" for what joins the two."""
    if _JOINT.match(name):
        return "joint"
    return "image" if name.startswith("visual.") else "text"


def depth_of(name: str) -> int | None:
    """The number of the layer that a parameter of the model lies in, from the bottom; None outside the layers."""
    found = re.search(r"\.(?:resblocks|blocks?|stages|layers?)\.(\d+)\.|\.layer(\d)\.", name)
    return int(found.group(1) or found.group(2)) if found else None


def tower_groups(model: nn.Module, optimizer: OptimizerSettings) -> list[dict[str, Any]]:
    """AdamW's groups for all trained parameters of a model: per side, per layer, without decay for biases and norms.

    With --layer-decay f, layer k of n gets f ** (n - k) of its side's learning rate, what lies below the layers one
    factor less (Clark et al. 2020, arXiv 2003.10555, as BEiT fine-tunes, arXiv 2106.08254).
    """
    sides = {
        "image": optimizer.vision_lr_multiplier,
        "text": optimizer.text_lr_multiplier,
        "joint": optimizer.projection_lr_multiplier,
    }
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    depths = {side: max((depth_of(n) or 0 for n in named if side_of(n) == side), default=0) for side in sides}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        side = side_of(name)
        rate = optimizer.lr * sides[side]
        rate *= optimizer.layer_decay ** _distance_from_top(name, depths[side])
        decay = optimizer.weight_decay if parameter.ndim >= 2 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _distance_from_top(name: str, deepest: int) -> int:
    depth = depth_of(name)
    if depth is not None:
        return deepest - depth
    below = re.search(r"embed|conv1|conv_stem|bn1|ln_pre|patch", name) is not None
    return deepest + 1 if below else 0
