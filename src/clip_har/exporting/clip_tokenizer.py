"""The tokenizer of an exported CLIPModel or SiglipModel: files that transformers reads, without code.

open_clip cleans SigLIP's sentences before they are tokenized; here that is part of tokenizer.json.
"""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any

from clip_har.backbone import Backbone
from clip_har.light_imports import import_open_clip
from clip_har.pretrained.architecture import Architecture
from clip_har.pretrained.hugging_face_files import FAST, TOKENIZER

SETTINGS = "tokenizer_config.json"
_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
"""open_clip's names of CLIP's tokens -> transformers'."""


def write_tokenizer(architecture: Architecture, backbone: Backbone, config: Any, folder: Path) -> None:
    """Write a model's tokenizer into a folder.

    Args:
        config: the CLIPConfig or SiglipConfig of the model.
    """
    text_cfg, length = architecture.model_config["text_cfg"], config.text_config.max_position_embeddings
    if "hf_tokenizer_name" not in text_cfg:
        _write_vocabulary(length, folder)
        return
    if architecture.folder is None:
        backbone.tokenizer.tokenizer.save_pretrained(folder)
    else:
        for path in architecture.tokenizer_files:
            if str(path) in (*TOKENIZER, SETTINGS):
                shutil.copyfile(architecture.folder / path, folder / path)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) | {"model_max_length": length}
    if config.model_type == "siglip":
        settings["model_input_names"] = ["input_ids"]  # without a mask: SigLIP attends to the padding
    cleans = text_cfg.get("tokenizer_kwargs", {}).get("clean") == "canonicalize"
    if cleans and (folder / "tokenizer.json").is_file():
        settings["tokenizer_class"] = FAST
        _add_cleaning(folder / "tokenizer.json")
    _write_json(folder / SETTINGS, settings)


def _write_vocabulary(length: int, folder: Path) -> None:
    """CLIP's own, of which open_clip has a copy under other names of the two special tokens."""
    own, (start, end) = import_open_clip().SimpleTokenizer(), _SPECIAL.values()
    vocabulary = {_SPECIAL.get(token, token): index for token, index in own.encoder.items()}
    _write_json(folder / "vocab.json", vocabulary)
    merges = "".join(f"{first} {second}\n" for first, second in own.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8", newline="\n")
    tokens = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    _write_json(folder / SETTINGS, {"tokenizer_class": "CLIPTokenizer", **tokens, "model_max_length": length})


def _add_cleaning(path: Path) -> None:
    """Lower case, no punctuation and single spaces, in front of a tokenizer's own normalisation."""
    punctuation = "[" + "".join(f"\\{mark}" for mark in string.punctuation if mark != "_") + "]"
    steps = [
        _replace({"String": "_"}, " "),
        _replace({"Regex": punctuation}, ""),
        {"type": "Lowercase"},
        _replace({"Regex": r"\s+"}, " "),
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ]
    content = json.loads(path.read_text(encoding="utf-8"))
    old = content.get("normalizer")
    content["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *([old] if old else [])]}
    _write_json(path, content)


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
