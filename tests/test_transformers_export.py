"""Exports for transformers: its pipelines give the run's probabilities and embeddings from a folder without code."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, pipeline

from clip_har import checkpoint, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, ExportConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError
from clip_har.exporting import timm_encoder, timm_folder
from clip_har.images import Preprocessing
from clip_har.known_models import load_named
from clip_har.methods.linear_probe import LinearProbe
from clip_har.methods.towers import Towers
from clip_har.predict import Predictor, recorded_calibration
from clip_har.projection import remove_projection
from families import write_family
from foreign_weights import clip_model, register_siglip_tower, siglip_model, write_clip, write_siglip
from samples import CLASSES, HUES, write_image

Train = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


@pytest.fixture(scope="module", name="photos")
def fixture_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured images, every third of them in the colour of another class, so that confidence needs calibration."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 14), ("test", 2)):
        for number, label in enumerate(CLASSES):
            for index in range(count):
                hue = HUES[CLASSES[(number + (index % 3 == 0)) % 3]]
                write_image(root / split / label / f"{index}.jpg", hue, seed=1000 * number + index + 500 * len(split))
    return root


@pytest.fixture(scope="module", name="train")
def fixture_train(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a run by a method, once for the module."""

    @functools.cache
    def train(method: str, model: str = tiny_model, *, templates: tuple[str, ...] = (), **changes: Any) -> Path:
        lr = {"lp-ft": 1e-3, "full": 1e-3, "two-tier": 1e-3, "lora-attention": 1e-2}.get(method)
        config = TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0, templates=templates),
            method=method,
            optimizer=OptimizerConfig(epochs=1, batch_size=12, lr=lr),
            out=tmp_path_factory.mktemp("runs") / method,
            **changes,
        )
        return commands.train(config).folder

    return train


@pytest.fixture(autouse=True)
def surroundings(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is known in each test's own home, there is no network, and timm has the tests' encoders."""
    load_named(tiny_model, device="cpu", precision="float32")
    monkeypatch.setattr("socket.socket.connect", lambda *_arguments: pytest.fail("the network was asked"))
    register_siglip_tower(monkeypatch)
    byobnet = timm.models.byobnet
    block = functools.partial(byobnet.ByoBlockCfg, type="bottle", d=1, br=0.25)
    blocks = tuple(block(c=32 * 2**stage, s=1 if stage == 0 else 2) for stage in range(4))
    tiny = dataclasses.replace(byobnet.model_cfgs["resnet50_clip"], blocks=blocks, stem_chs=(4, 4, 8))
    monkeypatch.setitem(byobnet.model_cfgs, "resnet50x4_clip", tiny)


def export(run: Path, out: Path, **changes: Any) -> commands.Exported:
    return commands.export(run, ExportConfig(format="transformers", out=out, workers=0, **changes))


def write_photos(folder: Path, *, size: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_image(path, HUES[CLASSES[number % 3]], seed=900 + number, size=size)
    return paths


def probabilities(run: Path, images: list[Path]) -> np.ndarray[Any, Any]:
    """A run's calibrated probabilities [N, C]."""
    calibration = recorded_calibration(checkpoint.load_run(run))
    assert calibration is not None
    found = Predictor(run, precision="float32", device="cpu").predict(images, top=len(CLASSES))
    tops = [dict(item.top) for item in found]
    return calibration.confidence([[top[name] for name in CLASSES] for top in tops])


def scores(answers: list[list[dict[str, Any]]]) -> np.ndarray[Any, Any]:
    """What a pipeline answers, as [N, C]."""
    tops = [{item["label"]: item["score"] for item in answer} for answer in answers]
    return np.array([[top[name] for name in CLASSES] for top in tops])


# Image classification


def write(family: str, folder: Path) -> str:
    folder.mkdir()
    if family == "tanh":
        return write_clip(folder, clip_model(image="gelu_pytorch_tanh"))
    name = write_family(family, folder)
    if family == "ModifiedResNet":  # timm's heads have a width of 64
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["head_width"] = 64
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    return name


@pytest.mark.parametrize("family", ["ViT", "ModifiedResNet", "timm CNN", "tanh", "PE"])
def test_the_pipeline_gives_the_probabilities_of_the_run(family: str, train: Train, tmp_path: Path) -> None:
    run = train("lp-ft", write(family, tmp_path / "model"))
    exported = export(run, tmp_path / "out")
    assert exported.files == ("certificate.json", "config.json", "export.json", "model.safetensors")
    certificate = exported.certificate
    assert certificate is not None and certificate.agreement == 1.0
    assert certificate.largest_probability_difference < 1e-4
    side, _ = checkpoint.load_run(run).preprocessing.image_size
    classify = pipeline("image-classification", model=str(tmp_path / "out"))
    assert type(classify.model).__name__ == "TimmWrapperForImageClassification"
    for size, tolerance in ((side, 1e-4), (side + 9, 0.02)):  # PNGs of the model's size are not resized
        images = write_photos(tmp_path / str(size), size=size)
        expected_NC = probabilities(run, images)
        answers = classify([str(path) for path in images], top_k=len(CLASSES))
        np.testing.assert_allclose(scores(answers), expected_NC, atol=tolerance)
        assert [answer[0]["label"] for answer in answers] == [CLASSES[index] for index in expected_NC.argmax(axis=1)]
    assert np.ptp(expected_NC, axis=0).max() > 0.01, "the images can be told apart"
    calibration = recorded_calibration(checkpoint.load_run(run))
    assert calibration is not None and abs(calibration.temperature - 1) > 0.05


def test_a_mixture_of_lp_ft_and_its_probe_is_exported(train: Train, tmp_path: Path) -> None:
    run = train("wise-ft", start_from=train("lp-ft"))
    exported = export(run, tmp_path / "out")
    assert exported.certificate is not None and exported.certificate.largest_probability_difference < 1e-4


def test_a_probe_of_features_as_they_are_is_exported(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearProbe, "transforms", ("none",))
    run = train("linear-probe", refit=False)
    exported = export(run, tmp_path / "out")
    assert exported.certificate is not None and exported.certificate.largest_probability_difference < 1e-4
    images = write_photos(tmp_path / "images", size=32)
    answers = pipeline("image-classification", model=str(tmp_path / "out"))([str(path) for path in images])
    np.testing.assert_allclose(scores(answers), probabilities(run, images), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "name", "arguments"),
    [
        ("ViT-B-32-quickgelu", "vit_base_patch32_clip_quickgelu_224", 0),
        ("ViT-B-32", "vit_base_patch32_clip_224", 0),
        ("ViT-L-14-336", "vit_large_patch14_clip_336", 0),
        ("ViT-B-16-plus-240", "vit_base_patch32_clip_224", 7),
        ("RN50-quickgelu", "resnet50_clip", 0),
        ("RN101", "resnet101_clip", 0),
    ],
)
def test_standard_encoders_have_the_names_of_timm(model: str, name: str, arguments: int) -> None:
    with torch.device("meta"):
        visual = open_clip.model.CLIP(**open_clip.get_model_config(model)).visual
    remove_projection(visual)
    unused: Any = None
    named = timm_encoder.encoder_in_timm(visual, unused)
    assert (named.name, len(named.arguments)) == (name, arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {"resize_mode": "squash"},
        {"resize_mode": "shortest"},
        {"interpolation": "bilinear", "mean": (0.4, 0.5, 0.6)},
        {"image_size": (32, 48), "interpolation": "bilinear"},
    ],
)
def test_timm_preprocesses_as_the_run(changes: dict[str, Any], train: Train, tmp_path: Path) -> None:
    values: dict[str, Any] = {"image_size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.3, 0.25)}
    preprocessing = Preprocessing(**values | changes)
    export(train("lp-ft"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    config["pretrained_cfg"] = timm_folder.pretrained_cfg(preprocessing)
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 255, (9, 13, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((93, 61), Image.Resampling.BICUBIC)
    found = AutoImageProcessor.from_pretrained(tmp_path / "out")(photo)["pixel_values"][0]
    torch.testing.assert_close(found, preprocessing.transform()(photo), atol=1.01 / 255 / 0.2, rtol=0)


# Both encoders


@pytest.mark.parametrize(
    "method",
    [
        "full",
        "lora-attention",
        "zero-shot",
        "two-tier",
        "clip-lora",
    ],
)
def test_a_clip_folder_has_the_embeddings_as_fine_tuned(method: str, train: Train, tmp_path: Path) -> None:
    run = train(method)
    exported = export(run, tmp_path / "out")
    certificate = exported.certificate
    assert certificate is not None and certificate.agreement == 1.0
    assert certificate.largest_probability_difference < 1e-4
    model = CLIPModel.from_pretrained(tmp_path / "out").eval()
    images_BCHW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")(list(CLASSES), padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=images_BCHW, **tokens)
    classifier = checkpoint.load_run(run).classifier()
    tensors = load_file(tmp_path / "out" / "class_weights.safetensors")
    logits_BC = tensors["logit_scale"] * output.image_embeds @ tensors["class_weights_CD"].T
    if isinstance(classifier, Towers):
        torch.testing.assert_close(output.image_embeds, classifier.encode_images(images_BCHW), rtol=0, atol=1e-4)
        torch.testing.assert_close(logits_BC, classifier(images_BCHW), rtol=1e-4, atol=1e-3)
    again = load_backbone(f"local-dir:{tmp_path / 'out'}", device="cpu", precision="float32")
    torch.testing.assert_close(again.encode_images(images_BCHW).embedding_BD, output.image_embeds, rtol=0, atol=1e-4)
    torch.testing.assert_close(again.encode_text(list(CLASSES)), output.text_embeds, rtol=0, atol=1e-4)


def test_the_zero_shot_pipeline_gives_the_probabilities_of_the_run(train: Train, tmp_path: Path) -> None:
    run = train("full", templates=("A photo of someone {}!",))
    export(run, tmp_path / "out")
    images = write_photos(tmp_path / "images", size=32)
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path / "out"))
    labels = [checkpoint.load_run(run).phrasing[name] for name in CLASSES]
    answers = classify(
        [str(path) for path in images], candidate_labels=labels, hypothesis_template="A photo of someone {}!"
    )
    found = Predictor(run, precision="float32", device="cpu").predict(images, top=len(CLASSES))
    expected_NC = np.array([[dict(item.top)[name] for name in CLASSES] for item in found])
    tops = [{item["label"]: item["score"] for item in answer} for answer in answers]
    np.testing.assert_allclose([[top[label] for label in labels] for top in tops], expected_NC, atol=1e-4)


SENTENCES = [
    "a person running",
    "Someone's DRINKING, twice!",
    "a",
    "caf\u00e9  \u00fcber 42 \U0001f600 it'll",
    "snake_case",
]


def test_the_tokenizer_of_clip_is_open_clips(train: Train, tmp_path: Path) -> None:
    export(train("zero-shot"), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 16
    expected = open_clip.SimpleTokenizer()(SENTENCES, context_length=77)
    for sentence, tokens in zip(SENTENCES, expected, strict=True):
        assert tokenizer(sentence).input_ids == [token for token in tokens.tolist() if token], sentence


@pytest.mark.parametrize(
    ("image", "text"), [("quick_gelu", "quick_gelu"), ("gelu", "gelu"), ("gelu_pytorch_tanh", "quick_gelu")]
)
def test_a_transformers_clip_comes_back_as_it_was(image: str, text: str, train: Train, tmp_path: Path) -> None:
    name = write_clip(tmp_path / "model", clip_model(image=image, text=text))
    export(train("zero-shot", name), tmp_path / "out")
    assert_same_folder(tmp_path / "model", tmp_path / "out")


def test_a_transformers_siglip_comes_back_as_it_was(train: Train, tmp_path: Path) -> None:
    name = write_siglip(tmp_path / "model", siglip_model())
    export(train("zero-shot", name), tmp_path / "out")
    assert_same_folder(tmp_path / "model", tmp_path / "out")
    own = load_backbone(name, device="cpu", precision="float32").tokenizer(SENTENCES)
    given = AutoTokenizer.from_pretrained(tmp_path / "out")(SENTENCES, padding="max_length", truncation=True)
    assert "attention_mask" not in given
    assert given["input_ids"] == own.tolist(), "case and punctuation are removed"


def assert_same_folder(model: Path, out: Path) -> None:
    """The same tensors, and the same configuration of each encoder."""
    before, after = load_file(model / "model.safetensors"), load_file(out / "model.safetensors")
    assert set(before) == set(after)
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key
    ignored = {"bos_token_id", "eos_token_id", "pad_token_id", "dtype", "architectures"}
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (model, out))
    for part in ("text_config", "vision_config"):
        assert {key: value for key, value in old[part].items() if key not in ignored} == {
            key: value for key, value in new[part].items() if key not in ignored
        }
    assert old["model_type"] == new["model_type"] and old.get("projection_dim") == new.get("projection_dim")
    again = load_backbone(f"local-dir:{out}", device="cpu", precision="float32")
    own = load_backbone(f"local-dir:{model}", device="cpu", precision="float32")
    torch.testing.assert_close(again.encode_text(SENTENCES), own.encode_text(SENTENCES))
    assert again.info.preprocessing == own.info.preprocessing and again.info.activation == own.info.activation


def test_trained_siglip_encoders_are_exported(train: Train, tmp_path: Path) -> None:
    exported = export(train("full", write_siglip(tmp_path / "model", siglip_model())), tmp_path / "out")
    assert exported.certificate is not None and exported.certificate.largest_probability_difference < 1e-4


def test_siglip_encoders_are_exported_at_another_size(train: Train, tmp_path: Path) -> None:
    model = write_siglip(tmp_path / "model", siglip_model())
    exported = export(train("full", f"{model}@48"), tmp_path / "out")
    assert exported.certificate is not None and exported.certificate.largest_probability_difference < 1e-4
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vision_config"]["image_size"] == 48


# The folder, and what is refused


def test_the_folder_has_no_code_and_can_be_read_by_others(train: Train, tmp_path: Path) -> None:
    exported = export(train("full"), tmp_path / "out")
    names = {"config.json", "model.safetensors", "class_weights.safetensors", "preprocessor_config.json"}
    names |= {"vocab.json", "merges.txt", "tokenizer_config.json", "export.json", "certificate.json"}
    assert set(exported.files) == names == {path.name for path in (tmp_path / "out").iterdir()}
    text = "".join(path.read_text() for path in (tmp_path / "out").glob("*.json") if path.name != "vocab.json")
    assert "auto_map" not in text and str(tmp_path.parent) not in text
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize(
    ("method", "family", "said"),
    [
        ("ridge", "ViT", "classifies features of unit length.*--format onnx"),
        ("lora", "ViT", "classifier no model of transformers contains.*--format onnx"),
        ("lp-ft", "SigLIP", "classifies features of unit length.*--format onnx"),
        ("zero-shot", "timm CNN", "encoders are not those of CLIP or SigLIP.*--format openclip or onnx"),
        ("zero-shot", "ModifiedResNet", "encoders are not those of CLIP or SigLIP.*--format openclip or onnx"),
        ("zero-shot", "PE", "image encoder is timm's test_vit.*--format openclip or onnx"),
    ],
)
def test_what_transformers_cannot_express_is_refused(
    method: str, family: str, said: str, train: Train, tmp_path: Path
) -> None:
    run = train(method, write(family, tmp_path / "model"))
    with pytest.raises(ConfigError, match=said) as caught:
        export(run, tmp_path / "place" / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("place/*"))


def test_a_wrong_activation_is_noticed(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("lp-ft", write("tanh", tmp_path / "model"))
    monkeypatch.setattr(timm_encoder, "activation_of", lambda _: "quick_gelu")
    with pytest.raises(ConfigError, match="timm's model gives other probabilities"):
        export(run, tmp_path / "out", certificate=False)


def test_a_resnet_that_timm_does_not_have_is_refused(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("lp-ft", write("ModifiedResNet", tmp_path / "model"))
    monkeypatch.setattr(timm_encoder, "RESNETS", ("resnet50_clip",))
    with pytest.raises(ConfigError, match="timm has no ResNet of this size"):
        export(run, tmp_path / "out", certificate=False)
