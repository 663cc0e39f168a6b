"""transformers folders against transformers' own models, tokenizers and image processors. Models are tiny."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessor, Siglip2Config, Siglip2Model, SiglipImageProcessor

from clip_har import pretrained
from clip_har.backbone import load_backbone
from clip_har.errors import ModelError
from foreign_weights import (
    CONTEXT,
    SENTENCES,
    SIGLIP_TOWER,
    SIZE,
    assert_embeddings,
    clip_model,
    register_siglip_tower,
    siglip_model,
    siglip_tokenizer,
    transformers_embeddings,
    write_clip,
    write_siglip,
)

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")

load = load_backbone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip", clip_model())
    return tmp_path / "clip"


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> None:
    register_siglip_tower(monkeypatch)


def tokens_of(folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(  # type: ignore[no-any-return]
        SENTENCES, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    ).input_ids


@pytest.mark.parametrize(
    ("image", "text", "activation"),
    [
        ("quick_gelu", "quick_gelu", "QuickGELU"),
        ("gelu", "gelu", "GELU"),
        ("gelu", "quick_gelu", "GELU, text encoder QuickGELU"),
        ("gelu_pytorch_tanh", "gelu", "GELU (tanh), text encoder GELU"),
    ],
)
def test_a_clip_has_transformers_embeddings(image: str, text: str, activation: str, tmp_path: Path) -> None:
    model = clip_model(image=image, text=text)
    loaded = load(write_clip(tmp_path, model), device="cpu", precision="float32")
    tokens = tokens_of(tmp_path)
    assert torch.equal(loaded.tokenizer(SENTENCES), tokens)
    assert_embeddings(loaded, *transformers_embeddings(model, tokens), tokens)
    assert loaded.info.logit_scale == pytest.approx(float(torch.tensor(3.0).exp()))
    assert loaded.info.activation == activation
    assert loaded.info.embed_dim == 24
    assert loaded.notes == ()


def test_the_activations_can_be_told_apart_by_these_tests(tmp_path: Path) -> None:
    model = clip_model(image="quick_gelu")
    name = write_clip(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(name, device="cpu", precision="float32")
    with pytest.raises(AssertionError, match="not close"):
        assert_embeddings(loaded, *transformers_embeddings(model, tokens_of(tmp_path)), tokens_of(tmp_path))


@pytest.mark.parametrize("end", [2, 5])
def test_the_end_token_is_found_as_transformers_finds_it(end: int, tmp_path: Path) -> None:
    model = clip_model(eos_token_id=end)
    loaded = load(write_clip(tmp_path, model), device="cpu", precision="float32")
    tokens = torch.randint(6, 50, (4, CONTEXT), generator=torch.Generator().manual_seed(1))
    tokens[torch.arange(4), torch.tensor([3, 9, 15, 1])] = end
    assert_embeddings(loaded, *transformers_embeddings(model, tokens), tokens)


@pytest.mark.parametrize("form", ["safetensors", "parts", "bin", "bin parts", "half"])
def test_every_form_of_the_weights_is_read(form: str, tmp_path: Path) -> None:
    model = clip_model()
    name = write_clip(tmp_path, model)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    if form in ("safetensors", "half"):
        tensors = {key: value.half() if form == "half" else value for key, value in tensors.items()}
        save_file(tensors, tmp_path / "model.safetensors")
    elif form == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        suffix, stem = ("bin", "pytorch_model") if form == "bin parts" else ("safetensors", "model")
        parts = {f"{stem}-0000{part + 1}-of-00002.{suffix}": sorted(tensors)[part::2] for part in (0, 1)}
        for file, names in parts.items():
            held = {key: tensors[key] for key in names}
            torch.save(held, tmp_path / file) if suffix == "bin" else save_file(held, tmp_path / file)
        index = {"metadata": {}, "weight_map": {key: file for file, names in parts.items() for key in names}}
        (tmp_path / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    if form == "half":
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
    loaded = load(name, device="cpu", precision="float32")
    assert_embeddings(loaded, *transformers_embeddings(model, tokens_of(tmp_path)), tokens_of(tmp_path))


def test_the_fingerprint_covers_every_part(tmp_path: Path) -> None:
    name = write_clip(tmp_path, clip_model(), max_shard_size="50KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    found = {pretrained.fingerprint(name)}
    for path in (*parts, tmp_path / "config.json", tmp_path / "preprocessor_config.json"):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        found.add(pretrained.fingerprint(name))
        path.write_bytes(content)
    assert len(found) == len(parts) + 3
    assert load(name, device="cpu", precision="float32").info.files_sha256 == pretrained.fingerprint(name)


def test_a_folder_may_be_given_by_its_path_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    loaded = load("clip", device="cpu", precision="float32")
    assert loaded.info.name == f"local-dir:{folder}"
    (folder.parent / "RN50").mkdir()
    with pytest.raises(ModelError, match="weights of RN50 are not on this machine"):
        load("RN50", device="cpu", local_only=True)


def test_siglip_has_transformers_embeddings(tmp_path: Path, tower: None) -> None:
    model = siglip_model()
    loaded = load(write_siglip(tmp_path, model), device="cpu", precision="float32")
    tokens = siglip_tokenizer()(
        ["a person running", "someone drinking", "a", "cycling"],
        padding="max_length",
        max_length=CONTEXT,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert torch.equal(loaded.tokenizer(SENTENCES), tokens), "case and punctuation are removed"
    assert_embeddings(loaded, *transformers_embeddings(model, tokens), tokens)
    assert float(loaded.model.logit_bias) == -7.5  # type: ignore[arg-type]
    assert loaded.info.logit_scale == pytest.approx(float(torch.tensor(3.0).exp()))
    assert loaded.info.activation == "GELU (tanh)"
    assert loaded.model.context_length == CONTEXT


def test_the_tokenizer_of_siglip_2_keeps_punctuation(tmp_path: Path, tower: None) -> None:
    name = write_siglip(tmp_path, siglip_model())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GemmaTokenizerFast"}))
    (tmp_path / "preprocessor_config.json").unlink()
    from clip_har.pretrained import hugging_face

    found = hugging_face.convert(tmp_path)
    assert found.config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] == {"clean": "lower"}
    assert json.loads(found.tokenizer["tokenizer_config.json"])["tokenizer_class"] == "GemmaTokenizer"
    assert found.notes == (f"{tmp_path.name} has no preprocessor_config.json: using the preprocessing of siglip",)
    assert found.config["preprocess_cfg"]["resize_mode"] == "squash"
    assert name


def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((93, 61), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_preprocessing_is_that_of_the_image_processor(kind: str, resample: int, tmp_path: Path, tower: None) -> None:
    """clip-har resizes 8-bit pixels with torch, transformers with torchvision: they may differ by a grey level."""
    square = {"height": SIZE, "width": SIZE}
    if kind == "clip":
        name = write_clip(tmp_path, clip_model())
        processor: Any = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square, resample=resample)
    else:
        name = write_siglip(tmp_path, siglip_model())
        processor = SiglipImageProcessor(size=square, resample=resample, image_mean=[0.4, 0.5, 0.6])
    processor.save_pretrained(tmp_path)
    preprocessing = load(name, device="cpu", precision="float32").info.preprocessing
    expected = processor(photo(), return_tensors="pt")["pixel_values"][0]
    grey_level = 1 / 255 / min(processor.image_std)
    torch.testing.assert_close(preprocessing.transform()(photo()), expected, atol=1.01 * grey_level, rtol=0)


# --- what is refused -------------------------------------------------------------------------------------


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('executed').write_text('executed')",))


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return spoil


def config(**values: Any) -> Callable[[Path], None]:
    return edit("config.json", lambda content: content.update(values))


def processor(**values: Any) -> Callable[[Path], None]:
    return edit("preprocessor_config.json", lambda content: content.update(values))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = load_file(folder / "model.safetensors")
        change(content)
        save_file(content, folder / "model.safetensors")

    return spoil


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Pickled()}, folder / "pytorch_model.bin")


def scripted(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.jit.script(torch.nn.Identity()).save(str(folder / "pytorch_model.bin"))


def code(folder: Path) -> None:
    (folder / "modeling.py").write_text("import pathlib; pathlib.Path('executed').write_text('executed')")


def remove(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def truncated(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x" * 99)


def index(*parts: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        weight_map = {str(number): part for number, part in enumerate(parts)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def link_out(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


def siglip_2(folder: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 40, "eos_token_id": 1, "bos_token_id": 2}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=small)).save_pretrained(folder)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another model type": (config(model_type="blip"), "model_type 'blip', which clip-har does not support"),
    "no model type": (edit("config.json", lambda content: content.pop("model_type")), "model_type None"),
    "an image encoder": (config(model_type="clip_vision_model"), "only an image encoder"),
    "a text encoder": (config(model_type="siglip_text_model"), "only a text encoder"),
    "naflex": (siglip_2, r"model_type 'siglip2', which takes patches .*google/siglip2-base-patch16-224"),
    "siglip of another shape": (
        config(model_type="siglip", vision_config={"hidden_size": 64, "image_size": SIZE, "patch_size": 8}),
        "SigLIP image encoder that timm does not contain: width 64, 12 blocks, patches of 8",
    ),
    "activation": (
        edit("config.json", lambda content: content["text_config"].update(hidden_act="relu")),
        "activation 'relu'",
    ),
    "remote code": (config(auto_map={"AutoModel": "modeling.Model"}), "auto_map"),
    "remote tokenizer": (
        edit("tokenizer_config.json", lambda content: content.update(auto_map={"AutoTokenizer": ["a.B", None]})),
        "auto_map",
    ),
    "remote processor": (processor(auto_map={"AutoImageProcessor": "a.B"}), "auto_map"),
    "code": (code, "contains Python code"),
    "pickle": (pickled, r"contains a Python object \(exec\), which could run code"),
    "TorchScript": (scripted, "is a TorchScript archive"),
    "link out": (link_out, "link out of the model's folder"),
    "no weights": (remove("model.safetensors"), "contains no model.safetensors"),
    "no tokenizer": (
        remove("tokenizer.json", "tokenizer_config.json"),
        r"has no tokenizer\. Copy tokenizer\.json and tokenizer_config\.json",
    ),
    "parts elsewhere": (index("../elsewhere.safetensors"), "lists no weight files of its folder"),
    "absolute parts": (index("/etc/passwd"), "lists no weight files of its folder"),
    "missing part": (index("model-1.safetensors"), r"model-1\.safetensors is missing"),
    "missing tensor": (
        tensors(lambda content: content.pop("visual_projection.weight")),
        "has no tensor visual_projection.weight",
    ),
    "missing tensors": (
        tensors(lambda content: [content.pop(name) for name in list(content) if "layers.1.mlp" in name]),
        r"has no tensors vision_model\.encoder\.layers\.1\.mlp\.fc1\.weight, .* and 5 more",
    ),
    "extra tensor": (
        tensors(lambda content: content.update({"lora.A": torch.zeros(2)})),
        "contains tensor lora.A, which clip-har cannot assign",
    ),
    "shape": (
        tensors(lambda content: content.update({"logit_scale": torch.zeros(3)})),
        r"tensor logit_scale has the unexpected shape \(3,\)",
    ),
    "another configuration": (config(projection_dim=20), r"tensor text_projection has the shape .*24.*, expected .*20"),
    "not a configuration": (config(text_config=7), "is not a valid configuration"),
    "processor": (processor(resample=0), "image processor .* not supported: resample 0"),
    "no normalisation": (processor(do_normalize=False), "step that is switched off"),
    "larger before the crop": (processor(size={"shortest_edge": 40}), r"size \{'shortest_edge': 40\} and crop"),
    "damaged": (truncated, "cannot be read as weights"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_one_line(
    kind: str, folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("socket.socket.connect", lambda *_arguments: pytest.fail("the network was asked"))
    spoil, message = REFUSED[kind]
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(f"local-dir:{folder}", device="cpu", precision="float32")
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "executed").exists(), "code of the model was executed"
    assert not (own_cache / "converted").exists()


def test_a_weight_file_of_transformers_alone_points_to_its_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=rf"weights of transformers.*--model local-dir:{folder}"):
        load(str(folder / "model.safetensors"))


def test_the_tower_of_these_tests_is_found_by_its_shape(tower: None, tmp_path: Path) -> None:
    name = write_siglip(tmp_path, siglip_model())
    load(name, device="cpu", precision="float32")
    from clip_har.files import cache_folder

    (config_file,) = (cache_folder(None) / "converted").glob("*/open_clip_config.json")
    assert json.loads(config_file.read_text())["model_cfg"]["vision_cfg"]["timm_model_name"] == SIGLIP_TOWER
