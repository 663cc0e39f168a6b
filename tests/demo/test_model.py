"""The tiny CLIP: it loads offline from any folder, reads any words, and leaves room for adaptation."""

from __future__ import annotations

import json
import shutil
from random import Random
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from clip_har.demo import ACTIONS, MODEL_DIR
from clip_har.demo.scenes import draw_action

TEMPLATES = ("a photo of a person {}.", "someone {}.", "a person performing {}.", "{} action", "human {}")
SIZE_LIMIT = 6_000_000
"""Bytes."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer from a copied folder, with the network forbidden."""
    folder = tmp_path_factory.mktemp("elsewhere") / "copy of model"
    shutil.copytree(MODEL_DIR, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("socket.socket.connect", _refuse)
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return model.eval(), preprocess, tokenizer


def _refuse(*arguments: object) -> None:
    raise OSError("the network is forbidden in this test")


@torch.no_grad()
def class_embeddings(model: Any, tokenizer: Any) -> Tensor:
    rows = []
    for action in ACTIONS:
        words = action.replace("_", " ")
        text_TD = model.encode_text(tokenizer([template.format(words) for template in TEMPLATES]), normalize=True)
        rows.append(torch.nn.functional.normalize(text_TD.mean(0), dim=0))
    return torch.stack(rows)


def test_the_folder_is_small_and_names_no_path() -> None:
    assert sum(path.stat().st_size for path in MODEL_DIR.rglob("*") if path.is_file()) <= SIZE_LIMIT
    config = (MODEL_DIR / "open_clip_config.json").read_text()
    assert str(MODEL_DIR) not in config
    assert "/" not in json.loads(config)["model_cfg"]["text_cfg"]["hf_tokenizer_name"]


def test_the_image_tower_is_a_vision_transformer_in_float32(loaded: tuple[Any, Any, Any]) -> None:
    model, _, _ = loaded
    assert isinstance(model, open_clip.CLIP)
    assert isinstance(model.visual, open_clip.transformer.VisionTransformer)
    assert model.visual.proj.shape[1] == model.text_projection.shape[1]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@torch.no_grad()
def test_padding_has_no_influence(loaded: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = loaded
    ids_BL = tokenizer(["a photo of a person running"])
    end = int(ids_BL.argmax())
    assert (ids_BL[0, end + 1 :] == 0).all() and end + 1 < ids_BL.shape[1]
    changed_BL = ids_BL.clone()
    changed_BL[0, end + 1 :] = 5
    torch.testing.assert_close(model.encode_text(changed_BL), model.encode_text(ids_BL))


@torch.no_grad()
def test_any_words_can_be_read(loaded: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = loaded
    unknown = ["zumba", "Τάι Τσι", "太極拳", "🏄", "", "a " * 500]
    ids_BL = tokenizer(unknown)
    assert ids_BL.shape == (len(unknown), model.context_length)
    assert int(ids_BL.max()) == model.vocab_size - 1
    assert (ids_BL == model.vocab_size - 1).sum(dim=1).tolist() == [1] * len(unknown)
    assert len({tuple(row.tolist()) for row in ids_BL}) == len(unknown)
    assert torch.isfinite(model.encode_text(ids_BL)).all()


@torch.no_grad()
def test_zero_shot_is_above_chance_and_below_adaptation(loaded: tuple[Any, Any, Any]) -> None:
    model, preprocess, tokenizer = loaded
    text_CD = class_embeddings(model, tokenizer)
    images, labels = [], []
    for label, action in enumerate(ACTIONS):
        for number in range(16):
            images.append(preprocess(draw_action(action, Random(f"zero-shot/{action}/{number}"))))
            labels.append(label)
    image_BD = model.encode_image(torch.stack(images), normalize=True)
    accuracy = ((image_BD @ text_CD.T).argmax(1) == torch.tensor(labels)).float().mean().item()
    assert 0.35 <= accuracy <= 0.75
