"""Names of pretrained models, and what is known of them without their weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from clip_har.errors import ModelError
from clip_har.pretrained import architectures, opening
from clip_har.pretrained.catalogue import CURATED, describe, require_facts
from clip_har.pretrained.measuring import blank_model, measure
from clip_har.pretrained.names import HISTORIC_NAMES, SHORT_NAMES, is_built_in, meaning, parse
from clip_har.pretrained.on_disk import weights_on_disk
from clip_har.pretrained.provenance import Provenance, provenance

NAMES = {**HISTORIC_NAMES, **SHORT_NAMES}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_means_weights_that_open_clip_has(name: str) -> None:
    architecture, tag = parse(name)
    assert (architecture, tag) in open_clip.list_pretrained()
    assert f"{architecture}:{tag}" == NAMES[name] == meaning(name)
    assert is_built_in(name)


def test_quick_gelu_is_used_for_the_weights_that_were_trained_with_it() -> None:
    used = {name for name in SHORT_NAMES if opening._needs_quick_gelu(*SHORT_NAMES[name].split(":"))}
    assert used == {"dfn", "metaclip", "metaclip-b16"}
    for name in NAMES:
        listed = architectures.listed_weights()[NAMES[name]]
        assert listed.architecture.endswith("-quickgelu") == (name in used or name in HISTORIC_NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sigli", r"Unknown model 'sigli'\. Did you mean siglip\?"),
        ("PE-Cor", r"Did you mean pe-core\?"),
        ("rn50x4", r"Did you mean RN50x4\?"),
        ("siglip:mine.pt", r"siglip already specifies its weights, .* --model ViT-B-16-SigLIP:mine\.pt"),
        ("ViT-L/14@336px:nothing", r"ViT-L-14-336 has no weights 'nothing'\. Known for it: openai"),
    ],
)
def test_other_names_are_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(name)
    assert not is_built_in(name)
    assert describe(name) is None


def test_other_weights_of_an_original_name(tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    file.touch()
    assert parse(f"ViT-L/14@336px:{file}") == ("ViT-L-14-336", str(file))
    assert parse("ViT-B/32:laion2b_s34b_b79k") == ("ViT-B-32", "laion2b_s34b_b79k")
    own = require_facts(f"ViT-L/14@336px:{file}")
    assert own.licence == "not recorded in the files" and own.research_only is None and own.image_size == 336


def test_the_table_lists_what_open_clip_lists() -> None:
    listed = architectures.listed_weights()
    installed = {f"{architecture}:{tag}" for architecture, tag in open_clip.list_pretrained()}
    if open_clip.__version__ == architectures.measured_with():
        assert set(listed) == installed, "run scripts/measure_models.py"
    for name in set(listed) & installed:
        own = open_clip.get_pretrained_cfg(*name.split(":"))
        assert listed[name].hub == own["hf_hub"]
    assert all(architectures.known_architecture(entry.architecture) for entry in listed.values())


@pytest.mark.parametrize(
    ("name", "image", "total", "width", "side", "gflops"),
    [
        # millions of parameters as open_clip's docs/model_profile.csv has them, which counts a multiply-add twice
        ("ViT-B/32", 87.85, 151.28, 512, 224, 8.82 / 2),
        ("ViT-B/16", 86.19, 149.62, 512, 224, 35.13 / 2),
        ("RN50", 38.32, 102.01, 1024, 224, 12.22 / 2),
        ("RN50x64", 420.38, 623.26, 1024, 448, 529.11 / 2),
        ("siglip", 92.88, 203.16, 768, 224, 35.42 / 2),
        ("convnext", 88.22, 179.39, 640, 256, 40.11 / 2),
        ("coca", 89.16, 89.16 + 63.43, 512, 224, 9.19 / 2),
        ("roberta-ViT-B-32", 87.85, 212.72, 512, 224, 8.82 / 2),
    ],
)
def test_published_sizes(name: str, image: float, total: float, width: int, side: int, gflops: float) -> None:
    facts = require_facts(name)
    assert facts.image_parameters / 1e6 == pytest.approx(image, abs=0.006)
    assert (facts.image_parameters + facts.text_parameters) / 1e6 == pytest.approx(total, abs=0.02)
    assert (facts.embed_dim, facts.image_size) == (width, side)
    assert facts.gflops == pytest.approx(gflops, abs=0.01)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "RN50-quickgelu"])
def test_the_table_is_what_measuring_gives(name: str) -> None:
    assert measure(blank_model(name)) == architectures.known_architecture(name)


def test_stored_activations_are_those_of_a_real_forward_pass() -> None:
    """On the meta device nothing is computed; autograd must still keep the same tensors as on the CPU."""
    model = open_clip.create_model("ViT-B-32", precision="fp32").eval()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    stored: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.encode_image(torch.zeros(1, 3, 224, 224))
    assert output.requires_grad
    known = architectures.known_architecture("ViT-B-32")
    assert known is not None
    assert known.image_activation_bytes == sum(storage.nbytes() for storage in stored.values())


def test_a_folder_is_measured_without_its_weights(tiny_model: str) -> None:
    facts = require_facts(tiny_model)
    model: Any = open_clip.create_model(tiny_model)
    assert facts.image_parameters == sum(parameter.numel() for parameter in model.visual.parameters())
    assert facts.image_parameters + facts.text_parameters == sum(p.numel() for p in model.parameters())
    assert (facts.embed_dim, facts.image_size, facts.data) == (24, 32, "not recorded in the files")


def test_a_run_is_not_taken_for_a_model(tmp_path: Path) -> None:
    for name in ("card.json", "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match="is a run, whose size is that of the model"):
        require_facts(f"local-dir:{tmp_path}")


def test_data_and_licence() -> None:
    openai = require_facts("ViT-B/32")
    assert (openai.licence, openai.research_only, openai.meaning) == ("MIT", False, "ViT-B-32:openai")
    assert require_facts("metaclip").research_only and require_facts("mobileclip2").research_only
    assert not require_facts("siglip2").research_only and require_facts("siglip2").licence == "Apache-2.0"
    assert require_facts("dfn").research_only is None and "see model card" in require_facts("dfn").licence
    assert require_facts("ViT-H-14-CLIPA-336:laion2b").licence == "Apache-2.0"
    assert require_facts("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K").meaning == SHORT_NAMES["laion"]
    assert provenance("new", "unheard_of") == Provenance()
    unknown = [n for n in architectures.listed_weights() if provenance(*n.split(":")).data == Provenance().data]
    assert unknown == []


def test_what_would_have_to_be_downloaded_first_is_not_known() -> None:
    assert describe("hf-hub:someone/something") is None
    with pytest.raises(ModelError, match=r"Nothing is known of hf-hub:someone/something before it is downloaded"):
        require_facts("hf-hub:someone/something")


def test_the_curated_models_need_neither_torch_nor_a_network() -> None:
    program = """
import json, socket, sys
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from clip_har.pretrained import catalogue, on_disk
facts = [catalogue.require_facts(name).name for name in catalogue.CURATED]
[on_disk.weights_on_disk(name) for name in catalogue.CURATED]
print(json.dumps([facts, sorted({"torch", "open_clip"} & set(sys.modules))]))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == [list(CURATED), []]


def test_weights_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert weights_on_disk("ViT-B/32") is None
    file = cached(tmp_path, "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")
    assert weights_on_disk("ViT-B/32") == weights_on_disk("ViT-B-32:openai") == weights_on_disk("ViT-B-32") == file
    assert weights_on_disk("ViT-B/16") is None
    older = cached(tmp_path, "timm/ViT-B-16-SigLIP", "open_clip_pytorch_model.bin")
    assert weights_on_disk("siglip") == weights_on_disk("hf-hub:timm/ViT-B-16-SigLIP") == older
    named = cached(tmp_path, "jienengchen/ViTamin-S", "pytorch_model.bin")
    assert weights_on_disk("vitamin") == named
    cached(tmp_path, "timm/ViT-B-32-SigLIP2-256", "open_clip_config.json")
    assert weights_on_disk("siglip2") is None, "a configuration is not the weights"
    assert weights_on_disk(tiny_model) == Path(tiny_model.partition(":")[2])
    assert weights_on_disk("local-dir:/does/not/exist") is None
    demo = weights_on_disk("demo")
    assert demo is not None and (demo / "open_clip_model.safetensors").is_file()
    assert weights_on_disk(f"ViT-B/32:{file}") == file and weights_on_disk("ViT-B/32:none.pt") is None


def cached(cache: Path, repository: str, name: str) -> Path:
    """A file in a hub cache laid out as the hub's client does."""
    root, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    file = root / "snapshots" / commit / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    return file


def test_facts_have_the_agreed_fields() -> None:
    names = [field.name for field in dataclasses.fields(require_facts("demo"))]
    sizes = ["image_parameters", "text_parameters", "embed_dim", "image_size", "gflops"]
    assert names == ["name", "meaning", *sizes, "data", "licence", "research_only"]
