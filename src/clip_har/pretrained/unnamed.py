"""Which of open_clip's architectures a state dict without a name is of, judging by the shapes of its tensors.

Encoders of other libraries are built on torch's meta device, which allocates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_har.errors import ModelError
from clip_har.light_imports import import_open_clip
from clip_har.pretrained.conversion import shapes_of

_MOST_LISTED = 6


def matching_architecture(path: Path, weights: Mapping[str, Tensor]) -> str:
    """The one architecture of open_clip with exactly these tensors.

    Raises:
        ModelError: there is none, or there are several.
    """
    _check_parts(path, weights)
    found = {name: tuple(tensor.shape) for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    names = [name for name in import_open_clip().list_models() if _matches(name, found)]
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise ModelError(
            f"{path} does not say which architecture its weights are for, and no architecture of open_clip has their "
            "shapes",
            remedy=f"Specify it, for example --model ViT-B-32:{path}.",
        )
    listed = ", ".join(names[:_MOST_LISTED]) + (", ..." if len(names) > _MOST_LISTED else "")
    raise ModelError(
        f"{path} does not say which architecture its weights are for; their shapes fit {listed}",
        remedy=f"Specify the one they were trained with, for example --model {names[0]}:{path}.",
    )


def _check_parts(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse what is of a known kind but cannot be loaded as a file, with the reason."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in weights):
        raise ModelError(
            f"{path} contains weights of transformers, which are read with their config.json",
            remedy=f"Pass their folder: --model local-dir:{path.parent}.",
        )
    image = any(name.startswith("visual.") for name in weights)
    text = any(name.endswith("token_embedding.weight") or name.startswith("text.") for name in weights)
    if image != text:
        raise ModelError(
            f"{path} contains only {'an image' if image else 'a text'} encoder",
            remedy="Pass the weights of the complete model.",
        )


def _matches(name: str, found: Mapping[str, tuple[int, ...]]) -> bool:
    config = import_open_clip().get_model_config(name)
    if not _may_match(config, found):
        return False
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    try:
        expected = shapes_of(config)
    except Exception:  # timm raises many kinds for what it cannot build on the meta device
        return False
    shapes = _with_custom_text(found) if "text.positional_embedding" in expected else found
    return _without_scalars(expected) == _without_scalars(shapes)


def _without_scalars(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The logit scale may be saved as a scalar or as one element."""
    return {name: shape or (1,) for name, shape in shapes.items()}


def _with_custom_text(found: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The names that open_clip gives the text encoder of a model of its older format when it loads it."""
    own = ("token_embedding", "positional_embedding", "transformer.", "ln_final", "text_projection")
    return {f"text.{name}" if name.startswith(own) else name: shape for name, shape in found.items()}


def _may_match(config: dict[str, Any], found: Mapping[str, tuple[int, ...]]) -> bool:
    """A comparison that builds nothing: the text encoder's sizes, and whether the image encoder is open_clip's own."""
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "hf_model_name" in text or "multimodal_cfg" in config:  # would need the network; CoCa's are named
        return False
    prefix = "text." if "text.positional_embedding" in found else ""
    embedding = (text.get("vocab_size", 49408), text.get("width", 512))
    patches = found.get("visual.conv1.weight")
    return (
        found.get(f"{prefix}token_embedding.weight") == embedding
        and found.get(f"{prefix}positional_embedding") == (text.get("context_length", 77), text.get("width", 512))
        and ("timm_model_name" in vision) == any(name.startswith("visual.trunk.") for name in found)
        and (patches is None or not vision.get("patch_size") or patches[-1] == vision["patch_size"])
        and (patches is None or isinstance(vision.get("layers"), list) or patches[0] == vision.get("width", 768))
    )
