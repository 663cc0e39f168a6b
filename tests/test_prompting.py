"""`prompts`: scores on validation against those by hand, the files, the table, wrong input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip_har import cli, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, PromptsConfig, TrainConfig
from clip_har.dataset import load_dataset
from clip_har.evaluation import mcnemar_p
from clip_har.prompts import ACTION_TEMPLATES, HAR_PHRASES, TEMPLATE_SETS, class_phrase
from samples import CLASSES


def right_by_hand(model: str, photos: Path, templates: tuple[str, ...], phrases: dict[str, str]) -> list[bool]:
    """Whether zero-shot answers each validation image rightly, image by image and sentence by sentence."""
    backbone = load_backbone(model, device="cpu", precision="float32")
    transform, prompts = backbone.info.preprocessing.transform(), []
    for name in CLASSES:
        mean_D = backbone.encode_text([template.replace("{}", phrases[name]) for template in templates]).mean(dim=0)
        prompts.append(mean_D / mean_D.norm())
    right = []
    for record in load_dataset(photos).split("val"):
        embedding_BD = backbone.encode_images(transform(Image.open(str(record.path)))[None]).embedding_BD
        right.append(CLASSES[int((embedding_BD @ torch.stack(prompts).T).argmax())] == record.label)
    return right


def test_prompts_scores_every_wording_on_validation(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    config = PromptsConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32", templates=("see {} now",)),
        out=tmp_path,
    )
    trial, out = commands.try_prompts(config)
    assert trial.images == 6
    assert {(score.templates, score.phrasings) for score in trial.scores} == {
        *((name, "names") for name in ("single", "actions", "ucf101", "bare", "given")),
        *((name, "har") for name in ("bare", "whole", "given")),
    }
    names = {name: class_phrase(name) for name in CLASSES}
    default = right_by_hand(tiny_model, photos, ACTION_TEMPLATES, names)
    assert trial.default.accuracy == pytest.approx(sum(default) / 6)
    assert trial.default.mcnemar_p is None
    whole = next(score for score in trial.scores if score.templates == "whole")
    right = right_by_hand(tiny_model, photos, TEMPLATE_SETS["whole"], dict(HAR_PHRASES))
    assert whole.accuracy == pytest.approx(sum(right) / 6)
    assert whole.mcnemar_p == mcnemar_p(torch.tensor(default).numpy(), torch.tensor(right).numpy())
    assert whole.example == "a photo of a person riding a bicycle"
    accuracies = [score.accuracy for score in trial.scores]
    assert accuracies == sorted(accuracies, reverse=True)
    assert {path.name for path in out.iterdir()} == {"prompts.json", "prompts.csv"}
    assert json.loads((out / "prompts.json").read_text())["phrases"]["har"]["running"] == "a person running"
    with (out / "prompts.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 8


def test_only_validation_images_are_encoded(photos: Path, tiny_model: str, tmp_path: Path, own_cache: Path) -> None:
    config = PromptsConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        out=tmp_path,
    )
    commands.try_prompts(config)
    encoded = {sha for path in own_cache.glob("features/*/*-*.json") for sha in json.loads(path.read_text())["sha256"]}
    assert encoded == {record.sha256 for record in load_dataset(photos).split("val")}


def test_a_run_keeps_the_phrases_and_sentences_it_was_trained_with(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32", phrasings="har"),
        method="zero-shot",
        out=tmp_path / "run",
    )
    run = commands.train(config)
    assert run.card.phrasing == {name: HAR_PHRASES[name] for name in CLASSES}
    assert run.card.sentences["running"][0] == "a photo of a person running"
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    mean_D = backbone.encode_text(run.card.sentences["cycling"]).mean(dim=0)
    torch.testing.assert_close(run.prompts()[0], mean_D / mean_D.norm())


def test_the_command_prints_a_table(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["prompts", "--data", str(photos), "--model", tiny_model, "--out", str(tmp_path), "--workers", "0"]
    argv += ["--precision", "float32"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "Zero-shot accuracy on 6 validation images" in out
    assert "ucf101" in out and "a person riding a bicycle" in out
    assert cli.main([*argv, "--phrasings", "no.json"]) == 2
    assert "--phrasings no.json is neither names, har nor a readable JSON file" in capsys.readouterr().err
