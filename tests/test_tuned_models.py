"""A run's folder as --model: its fine-tuned encoders are the model that another run starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clip_har import Predictor, checkpoint, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, OptimizerConfig, TrainConfig
from clip_har.dataset import load_dataset, split_novel
from clip_har.dataset.manifests import read_manifest
from clip_har.errors import ModelError, RunError
from clip_har.experiment.setup import _seen_before
from clip_har.methods.towers import Towers
from clip_har.progress import SILENT, Progress
from clip_har.seen_images import seen_images
from clip_har.tuned_models import FOLDER, load_given, model_of
from noted import Notes


def train(
    model: str, method: str, photos: Path, out: Path, *, progress: Progress = SILENT, **changes: Any
) -> checkpoint.Run:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        method=method,
        optimizer=OptimizerConfig(epochs=1, batch_size=12, lr=1e-2 if method == "lora-attention" else 1e-3),
        out=out,
        **changes,
    )
    return commands.train(config, progress=progress)


@pytest.fixture(scope="module")
def tuned(tiny_model: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    return train(tiny_model, "full", photos, tmp_path_factory.mktemp("tuned") / "run")


def embeddings(run: checkpoint.Run) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two random images, as the run's own classifier and as the model that its folder stands for gives them."""
    images_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    classifier = run.classifier()
    assert isinstance(classifier, Towers)
    backbone = load_given(str(run.folder), device="cpu", precision="float32")
    return classifier.encode_images(images_BCHW), backbone.encode_images(images_BCHW).embedding_BD


@pytest.mark.parametrize("method", ["full", "lora-attention", "wise-ft"])
def test_a_run_gives_its_own_embeddings(
    method: str, tuned: checkpoint.Run, tiny_model: str, photos: Path, tmp_path: Path
) -> None:
    start: dict[str, Any] = {"start_from": tuned.folder} if method == "wise-ft" else {}
    run = tuned if method == "full" else train(tiny_model, method, photos, tmp_path / "run", **start)
    own_BD, as_model_BD = embeddings(run)
    torch.testing.assert_close(as_model_BD, own_BD, rtol=1e-4, atol=1e-5)
    if method != "wise-ft":  # which may select the pretrained weights
        plain = load_backbone(tiny_model, device="cpu", precision="float32")
        images_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert not torch.allclose(plain.encode_images(images_BCHW).embedding_BD, own_BD, atol=1e-3)


def test_a_run_starts_from_a_run_and_its_card_names_the_chain(
    tuned: checkpoint.Run, tiny_model: str, photos: Path, tmp_path: Path
) -> None:
    second = train(str(tuned.folder), "lora", photos, tmp_path / "second")
    chain = json.loads((second.folder / "card.json").read_text())["backbone"]["chain"]
    assert chain == [f"full ({tuned.weights_sha256()[:12]})", tiny_model]
    again = train(str(tuned.folder), "full", photos, tmp_path / "full")
    third = train(str(again.folder), "ridge", photos, tmp_path / "third")
    assert [step.split()[0] for step in third.card.backbone.chain] == ["full", "full", tiny_model]
    photo = next((photos / "test").rglob("*.jpg"))
    (answer,) = Predictor(second.folder, device="cpu", precision="float32").predict(photo)
    (named,) = Predictor(second.folder, model=str(tuned.folder), device="cpu", precision="float32").predict(photo)
    assert answer == named and answer.error is None


def test_images_that_the_model_was_trained_on_do_not_judge_methods_on_its_features(
    tuned: checkpoint.Run, tiny_model: str, photos: Path, tmp_path: Path
) -> None:
    split = {row.sha256: row.split for row in read_manifest(tuned.folder / "manifest.csv")}
    of_split = {name: frozenset(sha256 for sha256, own in split.items() if own == name) for name in ("train", "val")}
    for name in (str(tuned.folder), model_of(str(tuned.folder)), f"{tiny_model}+{tuned.folder}"):
        seen = seen_images(name)
        assert (seen.trained, seen.selected) == (of_split["train"], of_split["val"])
    assert seen_images(tiny_model).trained == frozenset()

    noted = Notes()
    second = train(str(tuned.folder), "ridge", photos, tmp_path / "second", progress=noted)
    assert not second.settings.refit and any("--no-refit is the default" in said for said in noted.said)
    asked = train(str(tuned.folder), "ridge", photos, tmp_path / "asked", progress=noted, refit=True)
    assert asked.settings.refit and any("calibration are too optimistic" in said for said in noted.said)
    assert train(tiny_model, "ridge", photos, tmp_path / "plain").settings.refit

    again = train(str(tuned.folder), "full", photos, tmp_path / "full")
    shutil.rmtree(tmp_path / "second")
    assert seen_images(str(again.folder)).trained == of_split["train"], "also those of the model's own model"


def test_judging_by_images_that_the_model_was_trained_on_is_warned_about(
    tuned: checkpoint.Run, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "swapped")
    for one, other in (("train", "aside"), ("test", "train"), ("aside", "test")):
        (tmp_path / "swapped" / one).rename(tmp_path / "swapped" / other)
    trained = len(seen_images(str(tuned.folder)).trained)
    noted = Notes()
    run = train(str(tuned.folder), "zero-shot", tmp_path / "swapped", tmp_path / "run", progress=noted)
    said = "\n".join(noted.said)
    assert f"was fine-tuned on {trained} of the" in said
    assert "test images, which makes the accuracy too optimistic" in said
    assert "were validation images of" in said
    noted = Notes()
    backbone = BackboneConfig(device="cpu", precision="float32", workers=0)
    given = EvaluateConfig(data=DataConfig(data=tmp_path / "swapped"), backbone=backbone, checkpoint=run.folder)
    commands.evaluate(given, progress=noted)
    assert f"was fine-tuned on {trained} of the" in "\n".join(noted.said)


def test_held_out_classes_that_the_model_was_trained_on_are_warned_about(tuned: checkpoint.Run, photos: Path) -> None:
    whole = load_dataset(photos)
    dataset, novel = split_novel(whole, whole.classes[:1])
    said = "\n".join(_seen_before(dataset, novel, seen_images(str(tuned.folder)), "own"))
    assert (
        said == f"own was fine-tuned on images of {whole.classes[0]}: accuracies on held-out classes are too optimistic"
    )
    assert not list(_seen_before(dataset, None, seen_images(str(tuned.folder)), "own"))


def test_a_models_name_does_not_mean_a_run_of_that_name(
    tuned: checkpoint.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "siglip", "own"):
        shutil.copytree(tuned.folder, tmp_path / name)
    assert [model_of(name) for name in ("demo", "siglip")] == ["demo", "siglip"]
    assert model_of("own") == model_of("local-dir:own") == f"local-dir:{tmp_path / 'own' / FOLDER}"


def test_a_run_that_changes_no_encoder_is_refused_with_its_model(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    run = train(tiny_model, "ridge", photos, tmp_path / "run")
    with pytest.raises(RunError, match="is a run of ridge, which cannot serve as a model") as caught:
        model_of(str(run.folder))
    assert caught.value.remedy.endswith(f"--model {tiny_model}")
    assert not (run.folder / FOLDER).exists()


@pytest.mark.parametrize("file", ["tuned_model.json", "open_clip_model.safetensors", "of_run.json"])
def test_damage_is_noticed_and_mended_from_the_run(
    file: str, tuned: checkpoint.Run, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tuned.folder, folder)
    name = model_of(str(folder))
    second = train(name, "ridge", photos, tmp_path / "second")
    path = folder / FOLDER / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((ModelError, RunError)) as caught:  # what its card names has changed
        Predictor(second.folder, device="cpu", precision="float32")
    assert str(folder / FOLDER) in str(caught.value)
    assert model_of(str(folder)) == name
    (answer,) = Predictor(second.folder, device="cpu", precision="float32").predict(next(photos.rglob("*.jpg")))
    assert answer.error is None


def test_a_description_that_leads_back_to_itself_is_refused(tuned: checkpoint.Run, tmp_path: Path) -> None:
    folder = tmp_path / "circle"
    shutil.copytree(Path(model_of(str(tuned.folder)).partition(":")[2]), folder)
    description = json.loads((folder / "tuned_model.json").read_text())
    circle: dict[str, Any] = {"base": f"local-dir:{folder}", "base_files_sha256": ""}
    changes: list[dict[str, Any]] = [circle, {"chain": []}, {"chain": 3}, {"more": 1}]
    for change in changes:
        (folder / "tuned_model.json").write_text(json.dumps(description | change))
        with pytest.raises(ModelError):
            load_backbone(f"local-dir:{folder}", device="cpu", precision="float32")


def test_zero_shot_with_a_tuned_model_is_the_runs_own_answer(tuned: checkpoint.Run) -> None:
    backbone = load_given(str(tuned.folder), device="cpu", precision="float32")
    texts_TD = backbone.encode_text(["a photo of a person running"])
    classifier = tuned.classifier()
    assert isinstance(classifier, Towers)
    torch.testing.assert_close(texts_TD.norm(dim=1), torch.ones(1))
    assert backbone.info.logit_scale == pytest.approx(float(classifier.scale()), rel=1e-5)
    assert F.cosine_similarity(texts_TD, classifier.class_embeddings().detach()).max() > 0.5
