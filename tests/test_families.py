"""Every command on one tiny random model of each family of CLIP, and what distinguishes the families."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clip_har import Predictor, checkpoint, commands
from clip_har.backbone import Backbone, load_backbone
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    ExplainConfig,
    OptimizerConfig,
    RunModelConfig,
)
from clip_har.projection import projection_of
from families import FAMILIES, write_family

METHODS = ("zero-shot", "linear-probe", "gda", "lora", "lora-attention", "full", "lp-ft")
WITHOUT_PROJECTION = frozenset({"SigLIP"})


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_family(family, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def backbone(model: str) -> Backbone:
    return load_backbone(model, device="cpu", precision="float32")


def images_of(backbone: Backbone) -> torch.Tensor:
    height, width = backbone.info.preprocessing.image_size
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_hidden_features_times_the_projection_are_the_embeddings(family: str, backbone: Backbone) -> None:
    images_BCHW = images_of(backbone)
    with torch.inference_mode():
        plain_BD = F.normalize(backbone.model.encode_image(images_BCHW), dim=-1)  # type: ignore[operator]
    features = backbone.encode_images(images_BCHW)
    torch.testing.assert_close(features.embedding_BD, plain_BD, rtol=1e-4, atol=1e-5)
    projection = projection_of(backbone.model.visual)  # type: ignore[arg-type]
    if family in WITHOUT_PROJECTION:
        assert projection is None and features.hidden_BH is None and backbone.info.projection == ""
        return
    assert projection is not None and features.hidden_BH is not None and backbone.info.projection
    weight_HD, bias_D = projection
    projected_BD = F.normalize(features.hidden_BH @ weight_HD + bias_D, dim=-1)
    torch.testing.assert_close(features.embedding_BD, projected_BD, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        again_BD = F.normalize(backbone.model.encode_image(images_BCHW), dim=-1)  # type: ignore[operator]
    torch.testing.assert_close(again_BD, plain_BD, msg="the encoder must be left as it was")


def test_the_scores_are_those_of_open_clip(backbone: Backbone) -> None:
    images_BCHW, sentences = images_of(backbone), ["a photo of a person running", "someone drinking"]
    with torch.inference_mode():
        expected = backbone.model.get_logits(images_BCHW, backbone.tokenizer(sentences))[0]  # type: ignore[operator]
    image_BD, text_TD = backbone.encode_images(images_BCHW).embedding_BD, backbone.encode_text(sentences)
    logits_BT = backbone.info.logit_scale * image_BD @ text_TD.T + (backbone.info.logit_bias or 0.0)
    torch.testing.assert_close(logits_BT, expected, rtol=1e-4, atol=1e-4)


def test_siglip_keeps_its_bias_context_and_preprocessing(tmp_path: Path) -> None:
    loaded = load_backbone(write_family("SigLIP", tmp_path), device="cpu", precision="float32")
    assert loaded.info.logit_bias == -10
    assert loaded.tokenizer(["a person running"]).shape == (1, 64)
    assert loaded.info.preprocessing.to_json()["resize_mode"] == "squash"


def row_of(table: Path, photo: Path) -> dict[str, str]:
    """The row of an image in predictions.csv."""
    with table.open(newline="") as stream:
        return next(row for row in csv.DictReader(stream) if row["path"].endswith(photo.name))


@pytest.mark.slow  # seven methods with their evaluation on each of six models
def test_every_command_works(model: str, photos: Path, tmp_path: Path) -> None:
    config = CompareConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        methods=METHODS,
        optimizer=OptimizerConfig(epochs=1, batch_size=12),
        out=tmp_path / "out",
    )
    compared = commands.compare(config)
    assert [row.name for row in compared.rows] == list(METHODS)
    photo = next((photos / "test").rglob("*.jpg"))
    for name in METHODS[1:]:
        run = checkpoint.load_run(tmp_path / "out" / "runs" / name)
        assert run.card.backbone.projection is not None
        expected = compared.results[name].finetuned
        assert expected is not None
        (answer,) = Predictor(run.folder, device="cpu", precision="float32").predict([photo])
        row = row_of(run.folder / "eval" / "predictions.csv", photo)
        assert answer.label == row["finetuned"], name
    for name in ("full", "linear-probe"):
        folder = tmp_path / "out" / "runs" / name
        asked = EvaluateConfig(checkpoint=folder, data=config.data, backbone=config.backbone, out=tmp_path / name)
        again, _ = commands.evaluate(asked)
        assert again.best.metrics.accuracy == compared.results[name].best.metrics.accuracy
        shown = ExplainConfig(
            model=RunModelConfig(precision="float32"), workers=0, embedding_map="pca", out=tmp_path / f"{name}-shown"
        )
        result, out = commands.explain(folder, shown, [photo])
        assert result.map_method is not None and (out / str(result.explanations[0].overlay)).is_file()
