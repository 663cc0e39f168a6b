"""One tiny random model of each family of CLIP, with encoders of the libraries that the family's own come from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

from samples import CLASSES, MODEL_CONFIG, write_model

_NATIVE = MODEL_CONFIG["model_cfg"]
_TEXT = _NATIVE["text_cfg"]
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "person", "someone", *CLASSES]
_TIMM: dict[str, Any] = {"image_size": 160, "timm_model_pretrained": False}
_WIDTH_OF_TEST_VIT = 64
_MODELS: dict[str, dict[str, Any]] = {
    "ViT": {"embed_dim": 24, "vision_cfg": _NATIVE["vision_cfg"], "text_cfg": _TEXT},
    "ModifiedResNet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
        "text_cfg": _TEXT,
    },
    "timm CNN": {
        "embed_dim": 24,
        "vision_cfg": {
            **_TIMM,
            "image_size": 64,
            "timm_model_name": "resnet10t",
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": _TEXT,
    },
    "SigLIP": {
        "embed_dim": _WIDTH_OF_TEST_VIT,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {**_TIMM, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {
            "context_length": 64,
            "vocab_size": len(_WORDS),
            "hf_tokenizer_name": "words",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": 32,
            "heads": 2,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
        },
    },
    "PE": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**_TIMM, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": None},
        "text_cfg": {**_TEXT, "context_length": 32},
    },
    "HF text": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": _NATIVE["vision_cfg"],
        "text_cfg": {
            "context_length": 12,
            "hf_model_name": "bert",
            "hf_tokenizer_name": "words",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
        },
    },
}
FAMILIES = tuple(_MODELS)


def write_family(family: str, folder: Path, *, seed: int = 0) -> str:
    """Write a randomly initialised model of a family; returns its name."""
    config = copy.deepcopy({**MODEL_CONFIG, "model_cfg": _MODELS[family]})
    if family == "SigLIP":
        config["preprocess_cfg"]["resize_mode"] = "squash"
    text = config["model_cfg"]["text_cfg"]
    if "hf_tokenizer_name" in text:
        _word_tokenizer().save_pretrained(folder)
        text["hf_tokenizer_name"] = str(folder)
    if "hf_model_name" in text:
        bert = BertConfig(
            vocab_size=len(_WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
        bert.save_pretrained(folder / "bert")
        text["hf_model_name"] = str(folder / "bert")
    name = write_model(folder, config, seed=seed)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    for key in tensors:
        if key.endswith("bn3.weight"):
            tensors[key].fill_(1.0)  # open_clip starts them at zero, which keeps a new ResNet's blocks out of use
    save_file(tensors, weights)
    return name


def _word_tokenizer() -> PreTrainedTokenizerFast:
    words = models.WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="[UNK]")
    splitting = Tokenizer(words)
    splitting.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=splitting, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
