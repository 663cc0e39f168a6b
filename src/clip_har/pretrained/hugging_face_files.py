"""A transformers folder's tokenizer and image processor, as open_clip needs them.

Every JSON file is checked by `read_json`; the model's configuration and its weights are for `hugging_face`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clip_har.errors import ModelError
from clip_har.pretrained.configs import read_json, without_paths
from clip_har.pretrained.files import text_files

TOKENIZER = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files of a tokenizer besides tokenizer_config.json."""
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"})
_CLASSES = {"clip": "CLIPTokenizer", "siglip": "SiglipTokenizer"}
FAST = "PreTrainedTokenizerFast"
"""transformers' class for any tokenizer.json."""
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_center_crop": True,
    },
    "siglip": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_center_crop": False},
}


def tokenizer_files(folder: Path, kind: str, *, from_hub: bool = False) -> dict[str, bytes]:
    """Name -> content of the tokenizer's files; empty if there is no vocabulary.

    The Python class that is named is one of transformers' own. SigLIP's first tokenizer needs a package that clip-har
    does not, so that its file for the tokenizers library is preferred.

    Args:
        folder: the model's folder.
        kind: "clip" or "siglip".
        from_hub: see `files.text_files`.
    """
    present = {str(path) for path in text_files(folder, from_hub=from_hub)}
    if not present & _VOCABULARIES:
        return {}
    files = {name: (folder / name).read_bytes() for name in TOKENIZER if name in present}
    config: Any = {}
    if "tokenizer_config.json" in present:
        config = without_paths(read_json(folder / "tokenizer_config.json", str(folder / "tokenizer_config.json")))
        if not isinstance(config, dict):
            raise ModelError(f"{folder / 'tokenizer_config.json'} is not a JSON object", remedy="Download it again.")
    name = str(config.get("tokenizer_class") or _CLASSES[kind]).removesuffix("Fast")
    if name == "SiglipTokenizer" and "tokenizer.json" in files:
        name = FAST
        for token in ("eos_token", "unk_token", "pad_token"):
            config.setdefault(token, "<unk>" if token == "unk_token" else "</s>")
    config["tokenizer_class"] = FAST if name == FAST.removesuffix("Fast") else name
    files["tokenizer_config.json"] = json.dumps(config).encode()
    return files


def preprocessing(folder: Path, kind: str, image_size: int, notes: list[str]) -> dict[str, Any]:
    """The image processor as open_clip's `preprocess_cfg`.

    Args:
        folder: the model's folder.
        kind: "clip" or "siglip".
        image_size: side of the image encoder's input in pixels.
        notes: gains a line if the folder has no image processor.

    Raises:
        ModelError: the processor does something that clip-har does not.
    """
    values = _processor(folder)
    if values is None:
        notes.append(f"{folder.name} has no preprocessor_config.json: using the preprocessing of {kind}")
        values = {}
    values = {**_DEFAULTS[kind], **{key: value for key, value in values.items() if value is not None}}
    crop = bool(values["do_center_crop"])
    squash = _check_size(folder, values, image_size, crop=crop)
    resample = values.get("resample", 3)
    factor = values.get("rescale_factor", 1 / 255)
    on = all(values.get(step, True) is True for step in ("do_resize", "do_rescale", "do_normalize"))
    if resample not in _INTERPOLATIONS or not on or abs(factor - 1 / 255) > 1e-6:
        raise _unsupported(folder, f"resample {resample!r}, rescale_factor {factor!r}, or a step that is switched off")
    return {
        "mean": values["image_mean"],
        "std": values["image_std"],
        "interpolation": _INTERPOLATIONS[resample],
        "resize_mode": "squash" if squash else "shortest",
    }


def _processor(folder: Path) -> dict[str, Any] | None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name, str(folder / name))
            if isinstance(content, dict) and isinstance(content.get("image_processor"), dict):
                content = content["image_processor"]
            if isinstance(content, dict) and ("image_mean" in content or "size" in content):
                return content
    return None


def _check_size(folder: Path, values: dict[str, Any], image_size: int, *, crop: bool) -> bool:
    """Whether the image is resized to the model's frame without keeping its aspect ratio.

    Raises:
        ModelError: neither that, nor resized to the frame by its shorter side and cropped.
    """
    size, frame = values.get("size", image_size), values.get("crop_size", image_size)
    size = {"shortest_edge" if crop else "height": size, **({} if crop else {"width": size})} if _number(size) else size
    frame = {"height": frame, "width": frame} if _number(frame) else frame
    square = {"height": image_size, "width": image_size}
    if size == square:  # a crop of the same size changes nothing
        return True
    if crop and size == {"shortest_edge": image_size} and frame == square:
        return False
    raise _unsupported(
        folder, f"size {size} and crop {frame if crop else None} for a model of {image_size} x {image_size} pixels"
    )


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unsupported(folder: Path, what: str) -> ModelError:
    return ModelError(
        f"The image processor of {folder} is not supported: {what}",
        remedy="Images must be resized to the model's size, bicubic or bilinear, and normalised.",
    )
