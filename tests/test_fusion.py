"""--model A+B: several backbones as one for the methods on cached features."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip_har import Predictor, commands
from clip_har.backbone import Backbone, load_backbone
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    ExplainConfig,
    OptimizerConfig,
    RunModelConfig,
    TrainConfig,
)
from clip_har.errors import ConfigError, ModelError
from clip_har.fusion import FusedBackbone, part_names
from clip_har.images import FusedPreprocessing, preprocessing_from_json
from clip_har.progress import Silent
from families import write_family
from samples import MODEL_CONFIG, write_model


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A ViT, and a ResNet with another frame and logit scale."""
    first, second = tmp_path_factory.mktemp("a+b"), tmp_path_factory.mktemp("second")
    return [write_model(first, MODEL_CONFIG, seed=3), write_family("ModifiedResNet", second, seed=4)]


@pytest.fixture(scope="module")
def parts(names: list[str]) -> list[Backbone]:
    return [load_backbone(name, device="cpu", precision="float32") for name in names]


@pytest.fixture(scope="module")
def fused(parts: list[Backbone]) -> FusedBackbone:
    return FusedBackbone(parts)


def picture() -> Image.Image:
    generator = torch.Generator().manual_seed(1)
    return Image.fromarray(torch.randint(0, 255, (50, 70, 3), generator=generator).byte().numpy())


def config(names: list[str], photos: Path, out: Path, **changes: Any) -> TrainConfig:
    backbone = BackboneConfig(model="+".join(names), device="cpu", precision="float32", workers=0)
    return TrainConfig(data=DataConfig(data=photos), backbone=backbone, out=out, **changes)


def test_its_zero_shot_logits_are_the_mean_of_the_models(parts: list[Backbone], fused: FusedBackbone) -> None:
    scaled = FusedBackbone([parts[0], parts[1]])
    sentences = ["someone running", "someone drinking", "someone cycling"]
    fused_image = scaled.encode_images(scaled.info.preprocessing.transform()(picture())[None])
    logits = scaled.info.logit_scale * fused_image.embedding_BD @ scaled.encode_text(sentences).T
    expected = torch.stack(
        [
            part.info.logit_scale
            * part.encode_images(part.info.preprocessing.transform()(picture())[None]).embedding_BD
            @ part.encode_text(sentences).T
            for part in parts
        ]
    ).mean(dim=0)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused_image.embedding_BD.norm(dim=1), torch.ones(1))
    assert fused.info.embed_dim == sum(part.info.embed_dim for part in parts)


def test_hidden_features_weigh_alike(parts: list[Backbone], fused: FusedBackbone) -> None:
    hidden = fused.encode_images(fused.info.preprocessing.transform()(picture())[None]).hidden_BH
    own = [part.encode_images(part.info.preprocessing.transform()(picture())[None]).hidden_BH for part in parts]
    assert hidden is not None
    torch.testing.assert_close(
        hidden, torch.cat([F.normalize(each, dim=-1) for each in own if each is not None], dim=1)
    )


def test_a_plus_sign_in_a_path_separates_nothing(names: list[str], tmp_path: Path) -> None:
    assert "+" in names[0] and part_names(names[0]) == names[:1]
    assert part_names("+".join(names)) == names and part_names("+".join(names[::-1])) == names[::-1]
    assert part_names("+") == ["+"] and part_names("RN50+") == ["RN50+"]
    assert part_names("ViT-B/32+RN50") == ["ViT-B/32", "RN50"] and part_names("RN50") == ["RN50"]
    weights = tmp_path / "a+b.pt"
    weights.touch()
    assert part_names(str(weights)) == [str(weights)]


def test_the_preprocessing_survives_its_card(fused: FusedBackbone) -> None:
    own = fused.info.preprocessing
    again = preprocessing_from_json(json.loads(json.dumps(own.to_json())))
    assert again == own and isinstance(again, FusedPreprocessing)
    torch.testing.assert_close(again.transform()(picture()), own.normalise(own.pixel_transform()(picture())))
    damaged: list[Any] = [[], [own.to_json()], own.to_json()["parts"][:1], 3, [{}] * 2]
    for parts in damaged:
        with pytest.raises(ConfigError):
            preprocessing_from_json({"parts": parts})


def test_a_run_is_trained_reused_and_predicts_like_its_evaluation(
    names: list[str], photos: Path, tmp_path: Path
) -> None:
    model = "+".join(names)
    asked = CompareConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        methods=("zero-shot", "ridge", "lora"),
        optimizer=OptimizerConfig(epochs=2),
        out=tmp_path / "out",
    )
    compared = commands.compare(asked)
    assert [row.name for row in compared.rows] == ["zero-shot", "ridge", "lora"]
    photo = next((photos / "test").rglob("*.jpg"))
    for name in ("ridge", "lora"):
        run = tmp_path / "out" / "runs" / name
        card = json.loads((run / "card.json").read_text())
        assert card["backbone"]["name"].count("local-dir:") == 2 and len(card["preprocessing"]["parts"]) == 2
        (answer,) = Predictor(run, device="cpu", precision="float32").predict(photo)
        with (run / "eval" / "predictions.csv").open(newline="") as stream:
            row = next(row for row in csv.DictReader(stream) if row["path"].endswith(photo.name))
        assert answer.label == row["finetuned"]
        assert answer.probability == pytest.approx(float(row["finetuned_confidence"]), abs=2e-5)


def test_auto_tries_what_works_on_combined_features(names: list[str], photos: Path, tmp_path: Path) -> None:
    run = commands.train(config(names, photos, tmp_path / "run", method="auto", budget="minutes"))
    assert {member.method for member in run.settings.members} <= {"ridge", "gda", "proker", "linear-probe"}


class Noting(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_each_models_features_are_reused(names: list[str], photos: Path, tmp_path: Path) -> None:
    for number, name in enumerate((*names, "+".join(names), "+".join(names))):
        told = Noting()
        commands.train(config([name], photos, tmp_path / str(number), method="ridge"), progress=told, command="")
        encoded = [note for note in told.notes if "cached" in note]
        assert encoded and encoded[-1].startswith("All") == (number >= 2), "joining what is cached is no encoding"


@pytest.mark.parametrize("method", ["full", "lora-attention", "lp-ft", "coop", "prolip"])
def test_methods_inside_an_encoder_refuse_several_before_anything_is_read(method: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="combines several models") as caught:
        commands.train(config(["demo", "RN50"], tmp_path / "missing", tmp_path / "run", method=method))
    assert "--model" in caught.value.remedy
    asked = CompareConfig(
        data=DataConfig(data=tmp_path / "missing"),
        backbone=BackboneConfig(model="demo+RN50"),
        methods=("ridge", method),
        out=tmp_path / "out",
    )
    with pytest.raises(ModelError, match="combines several models"):
        commands.compare(asked)


def test_a_combined_run_has_no_maps_but_all_else(names: list[str], photos: Path, tmp_path: Path) -> None:
    run = commands.train(config(names, photos, tmp_path / "run", method="ridge"))
    photo = next((photos / "test").rglob("*.jpg"))
    asked = ExplainConfig(model=RunModelConfig(precision="float32"), workers=0, embedding_map="pca", out=tmp_path / "e")
    result, _ = commands.explain(run.folder, asked, [photo])
    assert result.map_method is None and result.explanations[0].overlay is None
    predictor = Predictor(run.folder, device="cpu", precision="float32")
    assert predictor.model.relevance(predictor.model.preprocessing.transform()(picture()), None, 0) is None
