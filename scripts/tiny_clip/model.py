"""The tiny CLIP itself: its configuration, its tokenizer, and how both are written to a folder.

Training is in training.py. The folder is open_clip's local-dir format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

IMAGE_SIZE = 72
PATCH_SIZE = 12
CONTEXT_LENGTH = 24
EMBEDDING = 128
PAD, START, END = "<pad>", "<start>", "<end>"

Config = dict[str, Any]


def build_tokenizer(sentences: list[str], vocabulary: int) -> Tokenizer:
    """Train a lower-casing byte-level BPE, so that any text can be encoded.

    The end token gets the highest id because open_clip's default text pooling takes the position of the
    highest id; with the causal mask, padding behind it then has no influence.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=[PAD, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)],
    )
    return tokenizer


def build_config(tokenizer: Tokenizer, *, width: int, layers: int) -> Config:
    """open_clip's configuration; every path in it is relative to its own folder."""
    return {
        "model_cfg": {
            "embed_dim": EMBEDDING,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": layers,
                "width": width,
                "head_width": 32,
                "patch_size": PATCH_SIZE,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": tokenizer.get_vocab_size(),
                "hf_tokenizer_name": "tiny-clip",
                "tokenizer_kwargs": {"clean": "whitespace"},
                "width": 128,
                "heads": 4,
                "layers": 3,
                "pad_id": tokenizer.token_to_id(PAD),
                "eos_id": tokenizer.token_to_id(END),
                "pool_type": "argmax",
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def build_model(config: Config) -> torch.nn.Module:
    """A freshly initialised model in open_clip's own architecture."""
    settings = config["model_cfg"]
    model: torch.nn.Module = open_clip.CLIP(
        embed_dim=settings["embed_dim"],
        vision_cfg=open_clip.CLIPVisionCfg(**settings["vision_cfg"]),
        text_cfg=open_clip.CLIPTextCfg(**settings["text_cfg"]),
    )
    return model


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files as transformers reads them, in version 4 as in version 5."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": START,
        "eos_token": END,
        "padding_side": "right",
        "truncation_side": "right",
        "model_max_length": CONTEXT_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def write_model(model: torch.nn.Module, config: Config, tokenizer: Tokenizer, folder: Path) -> None:
    """Write configuration, tokenizer and weights (as float16) to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, folder)
    weights = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    (folder / "open_clip_model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Read weights that write_model wrote."""
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
