"""The JSON files of a pretrained model, checked before a library reads them: nothing in them may run code or fetch.

Knows the configuration formats of open_clip, timm and transformers; which files there are is for `files`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_har.errors import ModelError, first_line

MAX_JSON_BYTES = 256 * 2**20
"""A configuration larger than this is not one; the largest tokenizers in use have 40 MB."""
MAX_DEPTH = 64
"""Nesting beyond this is an attack on the parser."""

# the last four specify further files to read in place of the ones that were checked
_CODE_KEYS = frozenset(
    {
        "trust_remote_code",
        "auto_map",
        "custom_pipelines",
        "custom_pipeline",
        "custom_generate",
        "code_revision",
        "code_paths",
        "use_kernels",
        "kernel_config",
        "use_kernel_forward_from_hub",
        "__reduce__",
        "_target_",
        "configuration_files",
        "fast_tokenizer_files",
        "gguf_file",
        "mistral_format",
    }
)
_DROPPED_KEYS = frozenset(
    {
        "name_or_path",
        "_name_or_path",
        "_commit_hash",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
    }
)
_TOKENIZER_KEYS = {
    "clean": str,
    "strip_sep_token": bool,
    "language": str,
    "reduction_mask": str,
    "additional_special_tokens": list,
    "add_prefix_space": bool,
}
_SMALL_DICTIONARIES = {"act_kwargs": {"approximate"}, "norm_kwargs": {"eps", "elementwise_affine", "bias"}}
_PREPROCESS_WORDS = ("mode", "interpolation", "resize_mode")
_PRETRAINED_KEYS = ("timm_model_pretrained", "hf_model_pretrained")
_REMEDY = "Use a model that consists of configurations and weights only, from a source you trust."


def read_json(path: Path, name: str) -> Any:
    """Read one JSON file of a model, and refuse it if it names code.

    Args:
        path: the file.
        name: how messages call it.

    Raises:
        ModelError: it is not JSON, too large, nested too deep, or names code.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise _refused(name, f"is larger than {MAX_JSON_BYTES // 2**20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise _refused(name, "is nested too deeply") from error
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ModelError(f"{name} is not readable JSON: {reason}", remedy="Download the model again.") from error
    _check_values(content, name)
    return content


def _check_values(content: Any, name: str) -> None:
    for depth, key, value in _items(content):
        if depth > MAX_DEPTH:
            raise _refused(name, "is nested too deeply")
        # in a vocabulary any word may be a key, and its value is a number
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in _CODE_KEYS and value not in (None, False) and not is_number:
            raise _refused(name, f'asks to run code or to read other files ("{key}")')


def _items(content: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value in a parsed JSON with its depth and key, without recursion."""
    waiting: list[tuple[int, str, Any]] = [(0, "", content)]
    while waiting:
        depth, key, value = waiting.pop()
        yield depth, key, value
        if isinstance(value, dict):
            waiting.extend((depth + 1, inner, below) for inner, below in value.items())
        elif isinstance(value, list):
            waiting.extend((depth + 1, "", below) for below in value if isinstance(below, (dict, list)))


def without_paths(content: Any) -> Any:
    """The same configuration without keys that name files or kernels elsewhere; transformers would follow them."""
    if isinstance(content, dict):
        return {
            key: without_paths(value)
            for key, value in content.items()
            if key not in _DROPPED_KEYS and not (key.endswith("_file") and isinstance(value, str))
        }
    return [without_paths(value) for value in content] if isinstance(content, list) else content


def check_open_clip_config(config: Any, name: str, *, from_hub: bool) -> dict[str, Any]:
    """Check an open_clip_config.json key by key.

    Args:
        config: what `read_json` gave.
        name: how messages call the file.
        from_hub: whether the flags that ask for pretrained towers are switched off instead of refused. A repository's
            complete weights replace those towers anyway.

    Returns:
        The configuration, in which no tower fetches weights.

    Raises:
        ModelError: an unknown key or value.
    """
    from open_clip.coca_model import CoCa, MultimodalCfg
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from open_clip.transform import PreprocessCfg

    model = _dictionary(_dictionary(config, name, "The file").get("model_cfg"), name, "model_cfg")
    known = {key for kind in (CLIP, CustomTextCLIP, CoCa) for key in inspect.signature(kind).parameters}
    _known(model, known - {"cast_dtype", "output_dict"} | {"custom_text"}, name, "model_cfg")
    for section, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg), ("multimodal_cfg", MultimodalCfg)):
        if section != "multimodal_cfg" or section in model:
            values = _dictionary(model.get(section), name, section)
            _known(values, {field.name for field in dataclasses.fields(kind)}, name, section)
            _check_section(values, name, from_hub=from_hub)
    preprocess = _dictionary(config.get("preprocess_cfg", {}), name, "preprocess_cfg")
    _known(preprocess, {field.name for field in dataclasses.fields(PreprocessCfg)}, name, "preprocess_cfg")
    _check_preprocessing(preprocess, name)
    _check_timm(model["vision_cfg"].get("timm_model_name"), name)
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def _check_section(values: dict[str, Any], name: str, *, from_hub: bool) -> None:
    for key, value in values.items():
        if key in _PRETRAINED_KEYS and value:
            if not from_hub:
                raise _refused(name, f'asks to download other weights ("{key}": true)')
            values[key] = False
        elif key in _SMALL_DICTIONARIES and value is not None:
            _known(_dictionary(value, name, key), _SMALL_DICTIONARIES[key], name, key)
        elif key == "tokenizer_kwargs" and value is not None:
            _known(_dictionary(value, name, key), set(_TOKENIZER_KEYS), name, key)
            for inner, below in value.items():
                if not isinstance(below, _TOKENIZER_KEYS[inner]):
                    raise _refused(name, f'has an invalid value for "{inner}" in {key}')
        elif isinstance(value, dict) or (
            key in ("hf_model_name", "hf_tokenizer_name") and not isinstance(value, (str, type(None)))
        ):
            raise _refused(name, f'has an invalid value for "{key}"')


def _check_preprocessing(values: dict[str, Any], name: str) -> None:
    for key, value in values.items():
        numbers = value if isinstance(value, list) else [value]
        are_numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
        if value is not None and not (isinstance(value, str) if key in _PREPROCESS_WORDS else are_numbers):
            raise _refused(name, f'has an invalid value for "{key}" in preprocess_cfg')


def _check_timm(architecture: Any, name: str) -> None:
    """timm also takes "hf-hub:REPO" and "local-dir:FOLDER" here, which name a configuration and code elsewhere."""
    if architecture is None:
        return
    import timm

    if not isinstance(architecture, str) or set(architecture) & set(":/\\") or not timm.is_model(architecture):
        raise _refused(
            name, f'specifies an image encoder that timm does not contain ("timm_model_name": {architecture!r})'
        )


def check_text_config(path: Path, name: str) -> None:
    """Check the config.json of a transformers text encoder.

    Raises:
        ModelError: missing, or not one of the encoders that open_clip supports.
    """
    from open_clip.hf_configs import arch_dict

    if not path.is_file():
        raise ModelError(f"{name} is missing; it describes the text encoder", remedy="Download the model again.")
    kind = _dictionary(read_json(path, name), name, "The file").get("model_type")
    if not isinstance(kind, str) or kind not in arch_dict:
        raise _refused(name, f"describes a text encoder that open_clip does not support ({kind!r})")


def _dictionary(value: Any, name: str, section: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(name, f"has no valid {section}" if section != "The file" else "is not a JSON object")
    return value


def _known(values: dict[str, Any], known: set[str], name: str, section: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise _refused(name, f'has an unknown key "{unknown[0]}" in {section}')


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(f"The model's file {name} {reason}", remedy=_REMEDY)
