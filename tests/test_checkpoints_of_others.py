"""Checkpoints of SLIP, A-CLIP, TinyCLIP and open_clip's training script, against models with the same weights."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from clip_har.backbone import load_backbone
from clip_har.errors import ModelError
from foreign_weights import CONTEXT, PATCH, SIZE, Slip, assert_embeddings, distributed, images_BCHW, randomise

TOKENS = torch.randint(0, 50, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


def load(path: Path, **options: Any) -> Any:
    return load_backbone(str(path), device="cpu", precision="float32", **options)


def save(path: Path, state: dict[str, Tensor], **rest: Any) -> Path:
    torch.save({"epoch": 25, "state_dict": distributed(state), **rest}, path)
    return path


def slip(**sizes: Any) -> Slip:
    model = randomise(Slip(**sizes))
    assert isinstance(model, Slip)
    return model


def assert_same(loaded: Any, model: Any) -> None:
    with torch.inference_mode():
        image, text = model.encode_image(images_BCHW()), model.encode_text(TOKENS)
    assert_embeddings(loaded, image, text, TOKENS)
    assert loaded.info.logit_scale == pytest.approx(float(torch.tensor(3.0).exp()))
    assert loaded.info.preprocessing.image_size == (SIZE, SIZE)


# --- SLIP and A-CLIP -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (384, 12)], ids=["128", "small: 12 heads of 32"])
def test_a_slip_checkpoint_has_its_models_embeddings(width: int, heads: int, tmp_path: Path) -> None:
    model = slip(width=width, heads=heads)
    arguments = argparse.Namespace(model="SLIP_VITS16", lr=3e-3, betas=(0.9, 0.98), resume="", distributed=True)
    path = save(tmp_path / "slip.pt", model.state_dict(), args=arguments, best_acc1=38.3, scaler={}, optimizer={})
    loaded = load(path)
    assert_same(loaded, model)
    assert loaded.notes == ()
    assert loaded.info.activation == "GELU, text encoder QuickGELU"
    assert loaded.info.preprocessing.mean == (0.485, 0.456, 0.406)
    assert loaded.info.preprocessing.std == (0.229, 0.224, 0.225)
    assert (loaded.info.preprocessing.interpolation, loaded.info.preprocessing.resize_mode) == ("bilinear", "shortest")
    words = ["someone running", "Cycling!"]
    assert torch.equal(loaded.tokenizer(words), open_clip.SimpleTokenizer(context_length=CONTEXT)(words))
    assert loaded.encode_images(images_BCHW()).hidden_BH.shape == (3, width)


def test_an_a_clip_checkpoint_gives_the_averaged_encoders_and_says_so(tmp_path: Path) -> None:
    trained, average = slip().state_dict(), randomise(Slip(), seed=9)
    shared = {key: trained[key] for key in ("logit_scale", "token_embedding.weight", "positional_embedding")}
    shared |= {key: value for key, value in trained.items() if key.startswith("ln_final")}
    average.load_state_dict(shared, strict=False)
    state = dict(trained)
    for name, tensor in average.state_dict().items():
        tower, _, rest = name.partition(".")
        new = {"visual": "visual_ema", "transformer": "transformer_e"}.get(tower, f"{tower}_e")
        if tower in ("visual", "transformer", "image_projection", "text_projection"):
            state[f"{new}.{rest}" if rest else new] = tensor
    for head in ("im_proj_byol", "im_pred_byol", "im_proj_byol_e"):
        state[f"{head}.0.weight"] = torch.randn(3, 3)
    loaded = load(save(tmp_path / "aclip.pt", state))
    assert_same(loaded, average)
    assert len(loaded.notes) == 1
    assert "aclip.pt is an A-CLIP checkpoint: using the moving averages" in loaded.notes[0]
    incomplete = {key: value for key, value in state.items() if key != "visual_ema.blocks.1.norm2.bias"}
    with pytest.raises(ModelError, match=r"has no tensor visual\.blocks\.1\.norm2\.bias"):
        load(save(tmp_path / "aclip.pt", incomplete))


def test_a_damaged_or_extended_slip_checkpoint_is_refused(tmp_path: Path) -> None:
    state = slip().state_dict()
    without = {key: value for key, value in state.items() if key != "visual.blocks.1.norm2.bias"}
    with pytest.raises(ModelError, match=r"slip\.pt has no tensor visual\.blocks\.1\.norm2\.bias"):
        load(save(tmp_path / "slip.pt", without))
    with pytest.raises(ModelError, match=r"contains tensor prompt\.0, which clip-har cannot assign"):
        load(save(tmp_path / "slip.pt", {**state, "prompt.0": torch.zeros(2)}))
    without = {key: value for key, value in state.items() if not key.startswith("token_embedding")}
    with pytest.raises(ModelError, match=r"not contain a complete SLIP model \('token_embedding\.weight'\)"):
        load(save(tmp_path / "slip.pt", without))


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('executed').write_text('executed')",))


class Harmless(argparse.Namespace):
    """Not argparse's own, so that it is not allowed either."""


@pytest.mark.parametrize("content", [Code(), Harmless(a=1), argparse.Namespace(a=Code())], ids=["code", "class", "in"])
def test_only_plain_arguments_are_unpickled(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "slip.pt", slip().state_dict(), args=content)
    with pytest.raises(ModelError, match=r"cannot be read as weights: it contains a Python object \(") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


# --- open_clip's training script -------------------------------------------------------------------------


def configuration(**vision: Any) -> dict[str, Any]:
    text = {"context_length": CONTEXT, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2}
    tower = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": PATCH, **vision}
    return {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}


def register(patch: pytest.MonkeyPatch, name: str, config: dict[str, Any]) -> None:
    patch.setitem(open_clip.factory._MODEL_CONFIGS, name, json.loads(json.dumps(config)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of open_clip's architecture "tiny", with random weights."""
    register(monkeypatch, "tiny", configuration())
    return randomise(open_clip.create_model("tiny"))


@pytest.mark.parametrize("form", ["training checkpoint", "state dict", "safetensors"])
def test_a_checkpoint_of_open_clips_training_is_loaded_by_name_or_by_its_shapes(
    form: str, tiny: Any, tmp_path: Path
) -> None:
    state = tiny.state_dict()
    path = tmp_path / ("epoch_3.safetensors" if form == "safetensors" else "epoch_3.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "state dict":
        torch.save(state, path)
    else:
        save(path, state, name="run", optimizer={"state": {0: torch.zeros(3)}, "param_groups": [{"lr": 1e-3}]})
    for name, notes in ((f"tiny:{path}", 1), (str(path), 2)):
        loaded = load_backbone(name, device="cpu", precision="float32")
        assert_same(loaded, tiny)
        assert len(loaded.notes) == notes
        assert loaded.info.name == name
        assert "does not record its activation: using GELU" in loaded.notes[-1]
    assert f"{path.name} does not record its architecture: using tiny," in loaded.notes[0]


def test_several_architectures_with_the_same_shapes_are_listed(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "tiny-quickgelu", {**configuration(), "quick_gelu": True})
    register(monkeypatch, "tiny-wide", configuration(width=128))
    register(monkeypatch, "tiny-16", configuration(patch_size=16))
    path = save(tmp_path / "w.pt", tiny.state_dict())
    expected = rf"their shapes fit tiny, tiny-quickgelu\. Specify .* --model tiny:{path}"
    with pytest.raises(ModelError, match=expected):
        load(path)


def test_an_image_encoder_of_timm_is_found_by_its_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_pool": "", "image_size": 32}
    config = configuration()
    register(monkeypatch, "tiny-timm", {**config, "vision_cfg": tower})
    model = open_clip.create_model("tiny-timm").eval()
    loaded = load(save(tmp_path / "w.pt", model.state_dict()))
    assert "using tiny-timm" in loaded.notes[0]
    with torch.inference_mode():
        assert_embeddings(loaded, model.encode_image(images_BCHW()), model.encode_text(TOKENS), TOKENS)


def test_weights_of_one_encoder_or_of_no_known_shape_are_refused(tiny: Any, tmp_path: Path) -> None:
    state = tiny.state_dict()
    image = {key: value for key, value in state.items() if key.startswith("visual.")}
    text = {key: value for key, value in state.items() if not key.startswith("visual.")}
    with pytest.raises(ModelError, match="contains only an image encoder"):
        load(save(tmp_path / "w.pt", image))
    with pytest.raises(ModelError, match="contains only a text encoder"):
        load(save(tmp_path / "w.pt", text))
    with pytest.raises(ModelError, match="no architecture of open_clip has their shapes"):
        load(save(tmp_path / "w.pt", {**state, "adapter.weight": torch.zeros(3)}))


def test_weights_of_a_timm_classifier_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no architecture of open_clip has their shapes"):
        load(tmp_path / "w.pt")


# --- TinyCLIP --------------------------------------------------------------------------------------------


def tinyclip_state(model: Any, *, inner: str) -> dict[str, Tensor]:
    """open_clip's tensors under TinyCLIP's names; `inner` is what distributed training puts behind the first."""
    state = {}
    for name, tensor in model.state_dict().items():
        part = "_image_encoder" if name.startswith("visual.") else "_text_encoder"
        state[f"{'_logit_scale' if name == 'logit_scale' else part}.{inner}{name}"] = tensor
    return state


@pytest.mark.parametrize("inner", ["module.", ""])
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_tinyclip_checkpoint_has_the_same_embeddings(kind: str, inner: str, tmp_path: Path) -> None:
    vision = {} if kind == "vit" else {"layers": [1, 2, 1, 1], "width": 8, "patch_size": None}
    config = configuration(**vision)
    model: Any = randomise(open_clip.model.CLIP(**config))
    path = tmp_path / "tinyclip.pt"
    torch.save({"state_dict": tinyclip_state(model, inner=inner), "epoch": 1}, path)
    loaded = load(path)
    assert_same(loaded, model)
    (note,) = loaded.notes
    assert note == ("tinyclip.pt does not record its activation: using GELU, as in TinyCLIP's own configurations")
    assert loaded.info.preprocessing.interpolation == "bicubic"
    assert loaded.info.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_a_pruned_or_incomplete_tinyclip_is_refused(tmp_path: Path) -> None:
    model: Any = randomise(open_clip.model.CLIP(**configuration()))
    state = tinyclip_state(model, inner="module.")
    name = "_image_encoder.module.visual.transformer.resblocks.0.attn.in_proj_weight"
    path = tmp_path / "w.pt"
    for pruned in (
        {**state, name: torch.zeros(96, 64)},
        {**state, "_image_encoder.module.l0_module.x": torch.zeros(1)},
    ):
        torch.save({"state_dict": pruned}, path)
        with pytest.raises(ModelError, match=r"pruned to different widths.*TinyCLIP-ViT-39M-16-Text-19M"):
            load(path)
    torch.save({"state_dict": {key: value for key, value in state.items() if "ln_post.bias" not in key}}, path)
    with pytest.raises(ModelError, match=re.escape("tensor visual.ln_post.bias has the shape None, expected (64,)")):
        load(path)
