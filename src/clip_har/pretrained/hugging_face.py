"""Folders of Hugging Face transformers with a CLIP or SigLIP model, converted to open_clip's configuration and tensors.

transformers gives the defaults of a configuration that was checked, and never a model: nothing in the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_har.errors import ModelError, first_line
from clip_har.pretrained import openai, siglip
from clip_har.pretrained.configs import read_json, without_paths
from clip_har.pretrained.conversion import Conversion, Renaming, move_blocks, text_sizes
from clip_har.pretrained.files import check_link, is_torchscript, text_files, weight_files
from clip_har.pretrained.hugging_face_files import preprocessing, tokenizer_files

SUPPORTED = ("clip", "siglip")
"""Values of "model_type" in config.json."""

_ONE_ENCODER = {
    "clip_vision_model": "an image encoder",
    "clip_text_model": "a text encoder",
    "siglip_vision_model": "an image encoder",
    "siglip_text_model": "a text encoder",
}
_REASONS = {
    "siglip2": "takes patches of images of any shape (NaFlex), which open_clip has no encoder for",
}
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
"""transformers' name -> one of `conversion.ACTIVATIONS`; the first of two is written."""
_VOCABULARY = 49408
"""Size of CLIP's own vocabulary, which open_clip contains."""


def check(folder: Path, *, from_hub: bool = False) -> dict[str, Any]:
    """Check the folder's files and model type without reading weights.

    Args:
        folder: the model's folder, or its snapshot in the hub's cache.
        from_hub: see `files.text_files`.

    Returns:
        The content of config.json.

    Raises:
        ModelError: code in the folder, a refused configuration, or a model that is not supported.
    """
    for path in text_files(folder, from_hub=from_hub):
        if path.suffix.lower() == ".json":
            read_json(folder / path, str(folder / path))
    config = read_json(folder / "config.json", str(folder / "config.json"))
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind in _ONE_ENCODER:
        raise ModelError(
            f"{folder} contains only {_ONE_ENCODER[kind]} (model_type {kind!r})",
            remedy="Pass the complete model, with an image encoder and a text encoder.",
        )
    if kind not in SUPPORTED:
        known = isinstance(kind, str) and kind in _REASONS
        reason = f"which {_REASONS[str(kind)]}" if known else "which clip-har does not support"
        other = " For SigLIP 2, use one of fixed size, such as google/siglip2-base-patch16-224." if known else ""
        raise ModelError(
            f"{folder} contains a model of model_type {kind!r}, {reason}",
            remedy=f"Supported are {' and '.join(SUPPORTED)}, and open_clip's folders.{other}",
        )
    return config  # type: ignore[no-any-return]


def convert(folder: Path, *, from_hub: bool = False) -> Conversion:
    """The open_clip model of a transformers folder.

    Raises:
        ModelError: refused, or not a complete model.
    """
    raw = check(folder, from_hub=from_hub)
    config = _with_defaults(folder, raw)
    renaming = Renaming(str(folder), read_weights(folder))
    _drop_position_ids(renaming)
    image, text = (_activation(folder, part) for part in (config.vision_config, config.text_config))
    if raw["model_type"] == "siglip":
        model = siglip.convert(renaming, config)
    else:
        model = _convert_clip(renaming, config)
        if text == "quick_gelu":
            model["quick_gelu"] = True
    notes: list[str] = []
    tokenizer = tokenizer_files(folder, raw["model_type"], from_hub=from_hub)
    if tokenizer:
        model["text_cfg"]["hf_tokenizer_name"] = "tokenizer"  # open_clip reads it from the folder, whatever the name
        model["text_cfg"]["tokenizer_kwargs"] = {"clean": _cleaning(raw["model_type"], tokenizer)}
    elif raw["model_type"] == "clip" and config.text_config.vocab_size == _VOCABULARY:
        notes.append(f"{folder.name} has no tokenizer: using CLIP's")
    else:
        raise ModelError(f"{folder} has no tokenizer", remedy="Copy tokenizer.json and tokenizer_config.json into it.")
    preprocess = preprocessing(folder, raw["model_type"], int(config.vision_config.image_size), notes)
    return Conversion(
        config={"model_cfg": model, "preprocess_cfg": preprocess},
        tensors=renaming.finish(),
        image_activation=image,
        text_activation=text,
        notes=tuple(notes),
        tokenizer=tokenizer,
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of all weight files, without unpickling.

    Raises:
        ModelError: missing, unreadable, a TorchScript archive, or a link out of the folder.
    """
    paths = weight_files(folder)
    if not paths:
        raise ModelError(
            f"{folder} contains no model.safetensors or pytorch_model.bin", remedy="Download the model again."
        )
    weights: dict[str, Tensor] = {}
    for path in paths:
        check_link(path, folder)
        if not path.is_file():
            raise ModelError(f"{path} is missing", remedy="Download the model again.")
        if is_torchscript(path):
            raise ModelError(
                f"{path} is a TorchScript archive, which contains code", remedy="Save its tensors with safetensors."
            )
        weights.update(openai.read_weights(path))
    return weights


def _with_defaults(folder: Path, raw: dict[str, Any]) -> Any:
    """The configuration with the defaults that transformers does not write out."""
    from transformers import CLIPConfig, SiglipConfig

    kind = SiglipConfig if raw["model_type"] == "siglip" else CLIPConfig
    try:
        return kind.from_dict(without_paths(raw))
    except Exception as error:  # transformers validates with exceptions of several libraries
        raise ModelError(
            f"{folder / 'config.json'} is not a valid configuration: {first_line(error)}",
            remedy="Download the model again.",
        ) from error


def _activation(folder: Path, part: Any) -> str:
    if part.hidden_act not in ACTIVATIONS:
        raise ModelError(
            f"{folder} uses the activation {part.hidden_act!r}, which clip-har does not support",
            remedy=f"Supported are {', '.join(ACTIVATIONS)}.",
        )
    return ACTIVATIONS[part.hidden_act]


def _cleaning(kind: str, tokenizer: dict[str, bytes]) -> str:
    """What happens to a sentence before it is tokenized.

    SigLIP's tokenizer removes case and punctuation in Python code; that of SigLIP 2 only lowers the case.
    """
    if kind == "clip":
        return "whitespace"
    if json.loads(tokenizer["tokenizer_config.json"]).get("tokenizer_class") in ("GemmaTokenizer", "Siglip2Tokenizer"):
        return "lower"
    return "canonicalize"


def _drop_position_ids(renaming: Renaming) -> None:
    """Older versions of transformers saved these; they only count."""
    renaming.drop("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")


# --- CLIP ------------------------------------------------------------------------------------------------


def _convert_clip(renaming: Renaming, config: Any) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    move_clip_tensors(renaming, config)
    return {
        "embed_dim": config.projection_dim,
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            **text_sizes(text),
            **_pooling(text),
        },
    }


def move_clip_tensors(renaming: Renaming, config: Any) -> None:
    """Move the tensors of a CLIPModel with this configuration, or back with a `Reversal`."""
    vision, text = config.vision_config, config.text_config
    renaming.move("visual.class_embedding", "vision_model.embeddings.class_embedding")
    renaming.move("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")
    renaming.move("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight")
    renaming.move_linear("visual.ln_pre", "vision_model.pre_layrnorm")  # so spelt by transformers
    move_blocks(renaming, "visual.transformer", "vision_model.encoder", vision.num_hidden_layers)
    renaming.move_linear("visual.ln_post", "vision_model.post_layernorm")
    renaming.move("visual.proj", "visual_projection.weight", change=Tensor.t)
    renaming.move("token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    renaming.move("positional_embedding", "text_model.embeddings.position_embedding.weight")
    move_blocks(renaming, "transformer", "text_model.encoder", text.num_hidden_layers)
    renaming.move_linear("ln_final", "text_model.final_layer_norm")
    renaming.move("text_projection", "text_projection.weight", change=Tensor.t)
    renaming.move("logit_scale", "logit_scale", change=lambda tensor: tensor.reshape(()))


def _pooling(text: Any) -> dict[str, Any]:
    """A sentence's features are those of its end token: the last of the vocabulary, or another that is named.

    transformers takes the highest token of a sentence if the configuration has its former, wrong value 2.
    """
    if text.eos_token_id in (2, text.vocab_size - 1):
        return {}
    return {"pool_type": "eos", "eos_id": text.eos_token_id}
