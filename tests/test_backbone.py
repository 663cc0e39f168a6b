"""Backbones: names, towers, precision and what goes wrong on loading. Models are tiny and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clip_har import backbone, pretrained
from clip_har.backbone import load_backbone, resolve_precision
from clip_har.errors import ModelError
from clip_har.pretrained import names, opening
from samples import MODEL_CONFIG, write_model


@pytest.fixture(scope="module")
def images_BCHW() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_embeddings_are_those_of_a_plain_open_clip_loop(tiny_model: str, images_BCHW: torch.Tensor) -> None:
    plain = open_clip.create_model(tiny_model).eval()
    tokenizer = open_clip.get_tokenizer(tiny_model)
    loaded = load_backbone(tiny_model, precision="float32")
    sentences = ["someone running", "a photo of a person using laptop"]
    with torch.inference_mode():
        expected_image = F.normalize(plain.encode_image(images_BCHW), dim=-1)
        expected_text = F.normalize(plain.encode_text(tokenizer(sentences)), dim=-1)
    torch.testing.assert_close(loaded.encode_images(images_BCHW).embedding_BD, expected_image)
    torch.testing.assert_close(loaded.encode_text(sentences, batch_size=1), expected_text)


def test_bfloat16_embeddings_have_a_cosine_of_0_999_with_float32(tiny_model: str, images_BCHW: torch.Tensor) -> None:
    exact = load_backbone(tiny_model, precision="float32").encode_images(images_BCHW)
    rough = load_backbone(tiny_model, precision="bfloat16").encode_images(images_BCHW)
    assert rough.embedding_BD.dtype == torch.float32
    cosine_B = (exact.embedding_BD * rough.embedding_BD).sum(dim=1)
    assert cosine_B.min() >= 0.999
    assert not torch.equal(exact.embedding_BD, rough.embedding_BD), "bfloat16 was not used"


def test_auto_precision_asks_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(backbone, "_cpu_multiplies_bfloat16", lambda: True)
    assert resolve_precision("auto", cpu) == "bfloat16"
    monkeypatch.setattr(backbone, "_cpu_multiplies_bfloat16", lambda: False)
    assert resolve_precision("auto", cpu) == "float32"
    assert resolve_precision("float16", cpu) == "float16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    assert resolve_precision("auto", torch.device("cuda")) == "bfloat16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert resolve_precision("auto", torch.device("cuda")) == "float16"


def test_the_card_identifies_the_weights(tiny_model: str, tmp_path: Path) -> None:
    card = load_backbone(tiny_model, precision="float32").info
    assert card.weights_hash == load_backbone(tiny_model, precision="bfloat16").info.weights_hash
    other = load_backbone(write_model(tmp_path, MODEL_CONFIG, seed=1), precision="float32").info
    assert other.weights_hash != card.weights_hash
    assert card.embed_dim == 24
    assert card.activation == "GELU"
    assert card.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)
    assert card.preprocessing.image_size == (32, 32)
    assert card.parameters == sum(p.numel() for p in open_clip.create_model(tiny_model).parameters())


@pytest.mark.parametrize("name", sorted(pretrained.HISTORIC_NAMES))
def test_historic_names_mean_openai_weights_with_quick_gelu(name: str) -> None:
    architecture, tag = names.parse(name)
    assert architecture in open_clip.list_models()
    assert tag == "openai"
    assert opening._needs_quick_gelu(architecture, tag)


def test_weights_that_were_trained_with_plain_gelu_keep_it() -> None:
    assert not opening._needs_quick_gelu("ViT-B-32", "laion2b_s34b_b79k")


@pytest.fixture
def small_rn50(monkeypatch: pytest.MonkeyPatch) -> None:
    """RN50 with one block a layer and narrow towers: what is asked of its name takes no 100 M weights."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "RN50-quickgelu", {**config, "quick_gelu": True})


@pytest.mark.usefixtures("small_rn50")
def test_quick_gelu_is_in_the_model_that_openai_weights_load_into(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole path of a historic name, with the download replaced by a file of random RN50 weights."""
    blank = open_clip.create_model("RN50", force_quick_gelu=True)
    torch.save(blank.state_dict(), tmp_path / "RN50.pt")
    asked = []

    def download(cfg: dict[str, Any], cache_dir: str | None = None) -> str:
        asked.append(cfg["hf_hub"])
        return str(tmp_path / "RN50.pt")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", download)
    card = load_backbone("RN50", precision="float32").info
    assert asked == ["timm/resnet50_clip.openai/"]
    assert card.activation == "ReLU"  # of the image tower; its text tower uses QuickGELU
    assert card.weights_hash == backbone.hash_weights(blank)


@pytest.mark.usefixtures("small_rn50")
def test_a_weight_file_by_architecture_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank = open_clip.create_model("RN50")
    torch.save(blank.state_dict(), tmp_path / "mine.pt")
    monkeypatch.chdir(tmp_path)
    card = load_backbone("RN50:mine.pt", precision="float32").info
    assert card.weights_hash == backbone.hash_weights(blank)
    assert card.name == f"RN50:{tmp_path / 'mine.pt'}", "the card's name must work from any folder"
    with pytest.raises(ModelError, match="does not say which architecture"):
        load_backbone(str(tmp_path / "mine.pt"))


@pytest.mark.usefixtures("small_rn50")
def test_an_openai_archive_is_read_when_named(tmp_path: Path) -> None:
    pytest.importorskip("torch.jit")
    blank = open_clip.create_model("RN50", force_quick_gelu=True).eval()

    class Archive(torch.nn.Module):
        """OpenAI's archives hold the weights under CLIP's own names."""

        def __init__(self) -> None:
            super().__init__()
            for name, child in blank.named_children():
                self.add_module(name, child)
            for name, parameter in blank.named_parameters(recurse=False):
                self.register_parameter(name, parameter)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.trace(Archive(), torch.zeros(1)).save(str(tmp_path / "RN50.pt"))
    card = load_backbone(str(tmp_path / "RN50.pt"), precision="float32").info
    assert card.embed_dim == 32
    assert card.preprocessing.image_size == (224, 224)


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/33", r"Unknown model 'ViT-B/33'\. Did you mean ViT-B/32\?"),
        ("nonsense", r"Unknown model 'nonsense'\. Use ViT-B/32"),
        ("ViT-B-32:nothing", r"no weights 'nothing'\. Known for it: openai"),
        ("local-dir:/does/not/exist", r"contains no open_clip model"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_backbone(name)


def test_a_download_that_fails_says_what_to_do_offline() -> None:
    with pytest.raises(ModelError, match=r"could not be downloaded.*--model ViT-B-32:FILE.*--model demo"):
        load_backbone("ViT-B/32")
    with pytest.raises(ModelError, match=r"could not be downloaded.*local-dir:FOLDER"):
        load_backbone("hf-hub:someone/something")


def test_a_model_without_weights_is_refused_not_run_at_random(tiny_model: str, tmp_path: Path) -> None:
    folder = Path(tiny_model.partition(":")[2])
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(f"local-dir:{tmp_path}")


def test_damaged_weights_are_refused(tiny_model: str, tmp_path: Path) -> None:
    folder = Path(tiny_model.partition(":")[2])
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    content = (folder / "open_clip_model.safetensors").read_bytes()
    (tmp_path / "open_clip_model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(f"local-dir:{tmp_path}")


def test_a_device_that_is_not_there_is_refused(tiny_model: str) -> None:
    with pytest.raises(ModelError, match="--device telepathy cannot be used"):
        load_backbone(tiny_model, device="telepathy")
