"""The cache of converted models: written once, checked, repaired, and never needed. Models are tiny and random."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from clip_har import known_models, pretrained
from clip_har.backbone import Backbone, load_backbone
from clip_har.errors import ModelError
from clip_har.integrity import write_sealed_json
from clip_har.pretrained import converted as cache
from clip_har.pretrained import hugging_face
from foreign_weights import SENTENCES, clip_model, images_BCHW, write_clip


@pytest.fixture
def name(tmp_path: Path) -> str:
    return write_clip(tmp_path / "clip", clip_model())


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of each conversion that takes place."""
    made: list[Path] = []
    convert = hugging_face.convert

    def counted(folder: Path, **options: Any) -> Any:
        made.append(folder)
        return convert(folder, **options)

    monkeypatch.setattr(hugging_face, "convert", counted)
    return made


def load(name: str, **options: Any) -> Backbone:
    return load_backbone(name, device="cpu", precision="float32", **options)


def embeddings(loaded: Backbone) -> torch.Tensor:
    return torch.cat([loaded.encode_images(images_BCHW()).embedding_BD, loaded.encode_text(SENTENCES)])


def the_conversion(own_cache: Path) -> Path:
    (folder,) = (own_cache / "converted").iterdir()
    return folder


def test_a_model_is_converted_once(name: str, conversions: list[Path], own_cache: Path) -> None:
    first = load(name)
    second = load(name, local_only=True)
    assert len(conversions) == 1
    assert torch.equal(embeddings(first), embeddings(second))
    assert first.info == second.info
    assert the_conversion(own_cache).name == first.info.files_sha256 == pretrained.fingerprint(name)
    assert {path.name for path in the_conversion(own_cache).iterdir()} == {
        "conversion.json",
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_changed_source_is_converted_again(name: str, conversions: list[Path], tmp_path: Path) -> None:
    before = embeddings(load(name))
    write_clip(tmp_path / "clip", clip_model(image="gelu"))
    after = load(name)
    assert len(conversions) == 2
    assert not torch.allclose(before, embeddings(after), atol=1e-4)


@pytest.mark.parametrize("damage", ["weights", "configuration", "tokenizer", "manifest", "missing", "extra", "version"])
def test_a_damaged_conversion_is_made_again(
    damage: str, name: str, conversions: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embeddings(load(name))
    folder = the_conversion(own_cache)
    weights = folder / cache.WEIGHTS
    if damage == "weights":
        content = bytearray(weights.read_bytes())
        content[-3] ^= 64
        weights.write_bytes(content)
    elif damage == "configuration":
        path = folder / "open_clip_config.json"
        path.write_text(path.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    elif damage == "tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif damage == "manifest":
        path = folder / cache.MANIFEST
        path.write_text(path.read_text().replace("quick_gelu", "gelu"))
    elif damage == "missing":
        weights.unlink()
    elif damage == "extra":
        (folder / "added_tokens.json").write_text("{}")
    else:
        monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert torch.equal(embeddings(load(name)), expected)
    assert torch.equal(embeddings(load(name)), expected)
    assert len(conversions) == 2
    assert len(list((own_cache / "converted").iterdir())) == 1, "no temporary folder is left"


def test_a_conversion_of_another_model_is_not_taken_for_this_one(
    name: str, conversions: list[Path], own_cache: Path
) -> None:
    loaded = load(name)
    folder = the_conversion(own_cache)
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    write_sealed_json(folder / cache.MANIFEST, {**manifest, "source_sha256": "0" * 64})
    assert load(name).info == loaded.info
    assert len(conversions) == 2


def test_a_process_that_finishes_second_uses_what_the_first_wrote(
    name: str, conversions: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(name)
    folder = the_conversion(own_cache)
    shutil.move(folder, own_cache / "first")
    rmtree = shutil.rmtree

    def meanwhile(path: Path, **options: Any) -> None:
        rmtree(path, **options)
        if Path(path) == folder and not folder.exists():
            shutil.copytree(own_cache / "first", folder)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    second = load(name)
    assert torch.equal(embeddings(second), embeddings(loaded))
    assert second.tokenizer._folder == folder
    assert list((own_cache / "converted").iterdir()) == [folder]


def test_without_a_cache_models_are_loaded_all_the_same(
    name: str, conversions: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embeddings(load(name))
    shutil.rmtree(own_cache)
    own_cache.write_text("a file where the cache's folder should be")
    loaded = load(name)
    assert torch.equal(embeddings(loaded), expected), "the tokenizer is still there"
    assert len(conversions) == 2
    temporary = Path(loaded.tokenizer._folder)
    assert temporary.is_dir()
    del loaded
    assert not temporary.exists()


def test_a_failed_conversion_leaves_nothing(name: str, own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError):
        load(name)
    assert not (own_cache / "converted").exists()


def test_changed_files_are_refused_before_they_are_read(name: str, conversions: list[Path], tmp_path: Path) -> None:
    expected = load(name).info.files_sha256
    assert load(name, expected_files=expected).info.files_sha256 == expected
    (tmp_path / "clip" / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="have changed"):
        load(name, expected_files=expected)
    assert len(conversions) == 1


def test_a_run_finds_a_converted_model_that_the_user_has_named(name: str, tmp_path: Path) -> None:
    named = known_models.load_named(name, device="cpu", precision="float32").info
    found = known_models.load_for_run(named.name, named.files_sha256, tmp_path, device="cpu", precision="float32")
    assert found.info == named


# --- the hub ---------------------------------------------------------------------------------------------


@pytest.fixture
def hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of someone/clip, into which files are only placed when they are asked for."""
    source = tmp_path / "clip"
    snapshot = tmp_path / "models--someone--clip" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "blobs").mkdir()

    def place(file: str) -> None:
        if not (snapshot / file).exists():
            shutil.copy(source / file, snapshot.parents[1] / "blobs" / file)
            (snapshot / file).symlink_to(f"../../blobs/{file}")

    def snapshot_download(_repository: str, **_options: Any) -> str:
        for path in source.glob("*.json"):
            place(path.name)
        return str(snapshot)

    def hf_hub_download(_repository: str, file: str, **_options: Any) -> None:
        if not (source / file).is_file():
            raise LocalEntryNotFoundError(file)
        place(file)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return snapshot


@pytest.mark.parametrize("form", ["one file", "parts", "pickle"])
def test_a_repository_of_the_hub_is_converted_too(
    form: str, hub: Path, name: str, tmp_path: Path, conversions: list[Path]
) -> None:
    source = tmp_path / "clip"
    if form == "parts":
        (source / "model.safetensors").unlink()
        write_clip(source, clip_model(), max_shard_size="50KB")
    elif form == "pickle":
        (source / "model.safetensors").unlink()
        torch.save(clip_model().state_dict(), source / "pytorch_model.bin")
    loaded = load("hf-hub:someone/clip")
    assert torch.equal(embeddings(loaded), embeddings(load(name)))
    assert loaded.info.files_sha256 == pretrained.fingerprint("hf-hub:someone/clip") == pretrained.fingerprint(name)
    assert len(conversions) == 1, "the same files, so the same conversion"
    load("hf-hub:someone/clip", local_only=True, expected_files=loaded.info.files_sha256)


@pytest.mark.parametrize("change", [{"auto_map": {"AutoModel": "a.B"}}, {"model_type": "blip"}])
def test_a_refused_repository_is_refused_before_its_weights_are_downloaded(
    change: dict[str, Any], hub: Path, tmp_path: Path
) -> None:
    path = tmp_path / "clip" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=r"auto_map|blip"):
        load("hf-hub:someone/clip")
    assert not list(hub.glob("*.safetensors"))


def test_local_only_never_asks_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_arguments: Any) -> NoReturn:
        pytest.fail("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    embeddings(load(name, local_only=True))
    embeddings(load(name))
