"""Opening pretrained models: fingerprints, only what is on this machine, folders that move. Models are tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import open_clip
import pytest
import torch

from clip_har import commands, pretrained
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig
from clip_har.errors import ModelError
from clip_har.pretrained import names, opening
from samples import MODEL_CONFIG, write_model

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "running"]
BERT = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(tiny_model.partition(":")[2], target)
    return target


def write_text_encoder_model(folder: Path, encoder: str) -> str:
    """A timm image encoder and a BERT text encoder, whose configuration is in the folder text/."""
    (folder / "text").mkdir(parents=True)
    (folder / "text" / "config.json").write_text(json.dumps(BERT))
    for place in (folder, folder / "text"):
        (place / "vocab.txt").write_text("\n".join(VOCABULARY))
        (place / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "vocab_file": "x"})
        )
    text = {
        "hf_model_name": str(folder / "text"),
        "hf_tokenizer_name": str(folder / "text"),
        "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler",
        "hf_model_pretrained": False,
        "context_length": 8,
    }
    vision = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_pool": "", "image_size": 32}
    config = {**MODEL_CONFIG, "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}}
    name = write_model(folder, config, seed=2)
    text["hf_model_name"] = encoder
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return name


@pytest.mark.parametrize("encoder", ["text", "{folder}/text"])
def test_a_text_encoder_inside_the_folder_is_read_as_open_clip_reads_it(encoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "lite"
    name = write_text_encoder_model(folder, encoder.format(folder=folder))
    loaded = load_backbone(name, device="cpu", precision="float32", local_only=True)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder / "text")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    plain = open_clip.create_model(name).eval()
    tokens = open_clip.get_tokenizer(name)(["a person running"])
    assert torch.equal(loaded.tokenizer(["a person running"]), tokens)
    assert len(set(tokens[0].tolist()) & {5, 6, 7}) == 3
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(plain.encode_text(tokens), dim=-1)
    torch.testing.assert_close(loaded.encode_text(["a person running"]), expected)


def test_the_fingerprint_covers_every_file_that_is_read(folder: Path) -> None:
    name = f"local-dir:{folder}"
    before = pretrained.fingerprint(name)
    assert len(before) == 64
    (folder / "notes.md").write_text("not read")
    assert pretrained.fingerprint(name) == before
    moved = folder.with_name("moved")
    shutil.copytree(folder, moved)
    assert pretrained.fingerprint(f"local-dir:{moved}") == before, "the folder's own place does not count"
    found = {before}
    for file in ("vocab.txt", "text/config.json", "open_clip_config.json", "open_clip_model.safetensors"):
        (folder / file).parent.mkdir(exist_ok=True)
        with (folder / file).open("a") as stream:
            stream.write(" ")
        found.add(pretrained.fingerprint(name))
    assert len(found) == 5


def test_the_fingerprint_of_a_file_is_bound_to_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"1")
    names = (str(tmp_path / "a.pt"), f"ViT-B/32:{tmp_path / 'a.pt'}", f"ViT-B-32:{tmp_path / 'a.pt'}")
    assert len({pretrained.fingerprint(name) for name in names}) == 3
    assert [pretrained.fingerprint(name) for name in ("demo", "ViT-B/32", "ViT-B-32:laion2b_s34b_b79k")] == [""] * 3


def test_changed_files_are_refused_before_they_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local-dir:{folder}"
    card = load_backbone(name, device="cpu", precision="float32").info
    assert card.files_sha256 == pretrained.fingerprint(name)
    load_backbone(name, device="cpu", precision="float32", local_only=True, expected_files=card.files_sha256)
    (folder / "vocab.txt").write_text("new")

    def read(*_arguments: Any, **_keywords: Any) -> NoReturn:
        pytest.fail("open_clip read a changed model")

    monkeypatch.setattr(open_clip, "create_model", read)
    with pytest.raises(ModelError, match=f"files of the model {name} have changed"):
        load_backbone(name, device="cpu", expected_files=card.files_sha256)


def test_local_only_never_asks_the_network(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_arguments: Any) -> NoReturn:
        pytest.fail("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    assert load_backbone("demo", device="cpu", precision="float32", local_only=True).info.files_sha256 == ""
    for name in ("ViT-B/32", "ViT-B-16-SigLIP", "RN50-quickgelu:cc12m", "hf-hub:someone/something"):
        with pytest.raises(ModelError, match=rf"weights of {name} are not on this machine\. .* pass --model {name}"):
            load_backbone(name, device="cpu", local_only=True)
    backbone = BackboneConfig(model="demo+RN50", device="cpu", precision="float32", workers=0, offline=True)
    asked = EvaluateConfig(data=DataConfig(data=photos), backbone=backbone, out=tmp_path / "out")
    with pytest.raises(ModelError, match=r"^The weights of RN50 are not on this machine\."):
        commands.evaluate(asked)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with the snapshot of someone/model: its configurations, and its weights once asked for."""
    snapshot = tmp_path / "models--someone--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()

    def place(file: str) -> None:
        if not (snapshot / file).exists():
            shutil.copy(folder / file, snapshot.parents[1] / "blobs" / file)
            (snapshot / file).symlink_to(f"../../blobs/{file}")

    def snapshot_download(repository: str, **_keywords: Any) -> str:
        assert repository == "someone/model", repository
        place("open_clip_config.json")
        return str(snapshot)

    def hf_hub_download(_repository: str, file: str, **_keywords: Any) -> None:
        place(file)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return snapshot


def test_a_repository_of_the_hub_is_loaded_from_its_snapshot(hub: Path, tiny_model: str) -> None:
    card = load_backbone("hf-hub:someone/model", device="cpu", precision="float32").info
    local = load_backbone(tiny_model, device="cpu", precision="float32").info
    assert card.weights_hash == local.weights_hash
    assert card.files_sha256 == pretrained.fingerprint("hf-hub:someone/model") == local.files_sha256


def test_a_hostile_repository_is_refused_before_its_weights_are_downloaded(hub: Path) -> None:
    (hub / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["a.B", None]}}))
    with pytest.raises(ModelError, match="auto_map"):
        load_backbone("hf-hub:someone/model", device="cpu", precision="float32")
    assert not (hub / "open_clip_model.safetensors").exists()


def test_another_repository_is_only_read_for_a_model_that_the_user_named(hub: Path, folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "other/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"from another repository, other/tokenizer\. Pass --model hf-hub:someone"):
        load_backbone("hf-hub:someone/model", device="cpu", local_only=True)
    with pytest.raises(AssertionError, match="other/tokenizer"):
        opening._open_repository("hf-hub:someone/model", local_only=False, expected_files=None)


@pytest.mark.parametrize("name", ["siglip", "ViT-B", "demo", "RN50"])
def test_a_models_name_is_not_that_of_a_folder_called_so(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "ViT-B":
        (tmp_path / name / "32").mkdir(parents=True)
        name = "ViT-B/32"
    else:
        folder.rename(tmp_path / name)
    assert pretrained.absolute(name) == name
    assert not names.parse(name)[0].startswith(f"local-dir:{tmp_path}")
