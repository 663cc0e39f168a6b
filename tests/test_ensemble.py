"""Ensembles, auto and the fit on all images, from training to prediction; and the mathematics of the weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_har import Predictor, checkpoint, commands
from clip_har.backbone import load_backbone
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    OptimizerConfig,
    TrainConfig,
    apply_preset,
)
from clip_har.errors import ConfigError, RunError, UserError
from clip_har.experiment import auto, training
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import prepare
from clip_har.integrity import sealed
from clip_har.methods.ensemble import EnsembleClassifier, greedy_weights, pooled
from clip_har.out_of_fold import OUT_OF_FOLD_FILE
from clip_har.progress import SILENT, Silent
from samples import write_dataset


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    given = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, precision="float32", device="cpu", workers=0),
        optimizer=OptimizerConfig(epochs=2, batch_size=8),
        out=out,
    )
    return replace(given, **changes)


@pytest.fixture(scope="module")
def ensemble(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Run:
    """An ensemble of members on cached features, which are trained for it."""
    out = tmp_path_factory.mktemp("ensemble") / "run"
    return commands.train(config(photos, tiny_model, out, method="ensemble", members=("gda", "ridge", "lora")))


# --- the weights ----------------------------------------------------------------------------------------


def answers(seed: int, skill: float, labels_N: torch.Tensor) -> torch.Tensor:
    noise_NC = torch.randn(len(labels_N), 4, generator=torch.Generator().manual_seed(seed))
    return (skill * F.one_hot(labels_N, 4).float() + noise_NC).log_softmax(dim=1)


def test_pooling() -> None:
    labels_N = torch.arange(4).repeat(5)
    logs_KNC = torch.stack([answers(0, 1.0, labels_N), answers(1, 2.0, labels_N)])
    weights_K = torch.tensor([0.25, 0.75])
    mean_NC = 0.25 * logs_KNC[0].exp() + 0.75 * logs_KNC[1].exp()
    torch.testing.assert_close(pooled(logs_KNC, weights_K, "probabilities").exp(), mean_NC)
    product_NC = logs_KNC[0].exp() ** 0.25 * logs_KNC[1].exp() ** 0.75
    expected_NC = product_NC / product_NC.sum(dim=1, keepdim=True)
    torch.testing.assert_close(pooled(logs_KNC, weights_K, "log-probabilities").exp(), expected_NC)


@pytest.mark.parametrize("pooling", ["probabilities", "log-probabilities"])
def test_greedy_weights_beat_every_member_and_equal_weights(pooling: Any) -> None:
    labels_N = torch.arange(4).repeat(100)
    logs_KNC = torch.stack([answers(0, 2.0, labels_N), answers(1, 2.5, labels_N), answers(2, 0.0, labels_N)])

    def loss(weights_K: torch.Tensor) -> float:
        return float(F.nll_loss(pooled(logs_KNC, weights_K, pooling), labels_N))

    weights_K = greedy_weights(logs_KNC, labels_N, pooling)
    assert float(weights_K.sum()) == pytest.approx(1.0)
    assert loss(weights_K) < min(loss(member) for member in torch.eye(3)) - 0.005
    assert loss(weights_K) <= loss(torch.full((3,), 1 / 3)) + 1e-3
    assert weights_K[1] > weights_K[0] > weights_K[2]


def test_useless_members_get_no_weight() -> None:
    labels_N = torch.arange(4).repeat(100)
    perfect_NC = (8.0 * F.one_hot(labels_N, 4).float()).log_softmax(dim=1)
    logs_KNC = torch.stack([answers(2, -1.0, labels_N), perfect_NC])
    assert greedy_weights(logs_KNC, labels_N, "probabilities").tolist() == [0.0, 1.0]


# --- the run --------------------------------------------------------------------------------------------


def test_the_run_holds_all_that_it_needs(ensemble: checkpoint.Run, photos: Path, tmp_path: Path) -> None:
    """Its members' folders may go."""

    copied = tmp_path / "run"
    shutil.copytree(ensemble.folder, copied, ignore=shutil.ignore_patterns("members"))
    picture = next((photos / "test").rglob("*.*"))
    kept = next(iter(Predictor(ensemble.folder).predict([picture])))
    assert next(iter(Predictor(copied).predict([picture]))) == kept
    assert [member.method for member in ensemble.settings.members] == ["gda", "ridge", "lora"]


def test_the_answer_is_the_weighted_mean_of_the_members(ensemble: checkpoint.Run, photos: Path) -> None:
    classifier = ensemble.classifier()
    assert isinstance(classifier, EnsembleClassifier)
    assert classifier.reads == "both"
    experiment = prepare(
        DataConfig(data=photos),
        BackboneConfig(precision="float32", device="cpu", workers=0),
        out=ensemble.folder,
        progress=SILENT,
        run=ensemble,
        for_training=False,
    )
    test = experiment.images("test")
    logs = []
    for name, sharpness in zip(("gda", "ridge", "lora"), classifier.sharpness_K.tolist(), strict=True):
        member = checkpoint.load_run(ensemble.folder / "members" / name).classifier()
        logs.append((sharpness * member.probabilities(test).clamp(min=1e-12).log()).log_softmax(dim=1))
    how = ("probabilities", "log-probabilities")[int(classifier.pooling)]
    expected_NC = pooled(torch.stack(logs), classifier.weights_K, how).softmax(dim=1)  # type: ignore[arg-type]
    torch.testing.assert_close(classifier.probabilities(test), expected_NC, rtol=1e-4, atol=1e-5)
    by_forward_NC = classifier(test.features("both")).softmax(dim=1)
    torch.testing.assert_close(by_forward_NC, expected_NC, rtol=1e-4, atol=1e-5)


def test_an_ensemble_with_a_tower_reads_images(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    light = config(photos, tiny_model, tmp_path / "lp-ft", method="lp-ft")
    tower = commands.train(replace(light, optimizer=OptimizerConfig(epochs=1, batch_size=8, lr=1e-4)))
    ridge = commands.train(config(photos, tiny_model, tmp_path / "ridge", method="ridge"))
    members = (str(tower.folder), str(ridge.folder))
    run = commands.train(config(photos, tiny_model, tmp_path / "run", method="ensemble", members=members))
    classifier = run.classifier()
    assert isinstance(classifier, EnsembleClassifier)
    assert classifier.reads == "image"
    result, _ = commands.evaluate(
        EvaluateConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(precision="float32", device="cpu", workers=0),
            checkpoint=run.folder,
        )
    )
    assert result.finetuned is not None
    picture = photos / "test"
    paths = sorted(path for path in picture.rglob("*") if path.is_file())
    predicted = {answer.image: answer.top for answer in Predictor(run.folder).predict(paths)}
    images = load_backbone(tiny_model, device="cpu", precision="float32")
    assert images.info.name
    for path in paths:
        assert sum(probability for _, probability in predicted[str(path)]) <= 1 + 1e-5
    accuracy = np.mean([predicted[str(path)][0][0] == path.parent.name for path in paths])
    targets, tuned = result.targets_N, result.finetuned.probabilities_NC.argmax(axis=1)
    assert accuracy == pytest.approx((targets == tuned).mean(), abs=1e-6)


def test_what_cannot_be_combined(ensemble: checkpoint.Run, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    def train(*members: str) -> None:
        commands.train(config(photos, tiny_model, tmp_path / "run", method="ensemble", members=members))

    with pytest.raises(ConfigError, match="two or more different members"):
        train("ridge")
    with pytest.raises(ConfigError, match="two or more different members"):
        train("ridge", "ridge")
    with pytest.raises(RunError, match="not found"):
        train("ridge", str(tmp_path / "nowhere"))
    assert not (tmp_path / "run" / "members").exists(), "nothing is trained before the folders are known"
    with pytest.raises(ConfigError, match="run of ensemble, which cannot be a member"):
        train("ridge", str(ensemble.folder))
    with pytest.raises(ConfigError, match="run of zero-shot, which cannot be a member"):
        train("ridge", "zero-shot")


def test_wrong_members_are_refused_before_the_images_are_read(tmp_path: Path) -> None:
    given = config(
        tmp_path / "no-images", "no-model", tmp_path / "run", method="ensemble", members=("gda", "zero-shot")
    )
    with pytest.raises(ConfigError, match="run of zero-shot, which cannot be a member"):
        commands.train(given)
    with pytest.raises(RunError, match="not found"):
        commands.train(replace(given, members=("gda", str(tmp_path / "nowhere"))))
    with pytest.raises(RunError, match="nowhere"):
        commands.train(replace(given, method="wise-ft", members=None, start_from=tmp_path / "nowhere"))
    compared = CompareConfig(data=given.data, backbone=given.backbone, out=tmp_path / "out", methods=("zero-shot",))
    with pytest.raises(ConfigError, match="run of ridge, which cannot be a member of soup"):
        commands.compare(replace(compared, methods=("soup",), members=("full", "ridge")))
    with pytest.raises(RunError, match="nowhere"):
        commands.compare(replace(compared, methods=("wise-ft",), start_from=tmp_path / "nowhere"))


def test_a_comparison_combines_its_own_runs(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path)
    found = commands.compare(
        CompareConfig(
            data=given.data,
            backbone=given.backbone,
            methods=("ridge", "ensemble"),
            members=("ridge", "gda"),
            out=tmp_path,
        )
    )
    assert [row.method for row in found.rows] == ["ridge", "ensemble"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["ensemble", "gda", "ridge"]


# --- the fit on all images --------------------------------------------------------------------------------


def test_a_refitted_run_is_judged_by_cross_validation(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path / "refitted", method="ridge")
    run = commands.train(given)
    apart = commands.train(replace(given, out=tmp_path / "apart", refit=False))
    found = run.out_of_fold()
    assert found is not None and run.settings.refit and not apart.settings.refit
    assert apart.out_of_fold() is None and not (apart.folder / OUT_OF_FOLD_FILE).exists()
    assert len(found.hashes) == run.card.splits["train"] + run.card.splits["val"]
    assert all(entry["cross_validated"] for entry in run.history())
    experiment = prepare(given.data, given.backbone, out=run.folder, progress=SILENT, run=run, for_training=False)
    val = experiment.images("val")
    answered = Predictions(run, experiment).finetuned(val)
    row_of = {sha256: row for row, sha256 in enumerate(found.hashes)}
    expected = found.probabilities_NC[[row_of[sha256] for sha256 in val.table.hashes]].numpy()
    assert answered is not None
    np.testing.assert_array_equal(answered, expected)
    assert not np.allclose(run.classifier().probabilities(val).numpy(), expected)
    assert run.card.confidence is not None and run.card.confidence["images"] == len(found.hashes)
    assert apart.card.confidence is not None and apart.card.confidence["images"] == run.card.splits["val"]


def test_few_shots_are_not_joined_with_the_validation_images(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = commands.train(config(photos, tiny_model, tmp_path / "run", method="ridge", shots=2))
    assert not run.settings.refit


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_damaged_answers_of_cross_validation_are_refused(
    damage: str, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    run = commands.train(config(photos, tiny_model, tmp_path / "run", method="ridge"))
    path = run.folder / OUT_OF_FOLD_FILE
    if damage == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(bytes(content))
    with pytest.raises(RunError, match="out_of_fold"):
        checkpoint.load_run(run.folder).out_of_fold()


# --- auto -----------------------------------------------------------------------------------------------


def test_auto_tries_what_fits_and_says_so(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "images_per_second", lambda _backbone: 0.01)  # a very slow machine
    monkeypatch.setattr(auto, "SETTLED", -1.0)
    heard = Heard()
    given = config(photos, tiny_model, tmp_path / "run", method="auto", budget="minutes")
    run = commands.train(given, progress=heard)
    said = "\n".join(heard.notes)
    assert "lp-ft-quick is not tried: about" in said and "over the budget" in said
    tried = json.loads((run.folder / "tried.json").read_text())
    assert [item["name"] for item in tried["tried"]] == ["ridge", "gda", "proker", "linear-probe", "lp-ft-quick"]
    assert tried["tried"][-1]["accuracy"] is None
    assert 0 <= tried["optimism"] < 0.2
    combined = [item["name"] for item in tried["tried"] if item["chosen"]]
    assert [member.method for member in run.settings.members] == combined
    assert Predictor(run.folder).classes == run.classes
    with pytest.raises(RunError, match="already contains a run"):
        commands.train(given)


def test_auto_tries_the_encoder_where_time_allows(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "SETTLED", -1.0)
    run = commands.train(config(photos, tiny_model, tmp_path / "run", method="auto", budget="minutes"))
    tried = json.loads((run.folder / "tried.json").read_text())["tried"]
    assert all(item["accuracy"] is not None for item in tried)


def test_auto_stops_where_nothing_is_left_to_gain(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "SETTLED", 1.0)
    heard = Heard()
    commands.train(config(photos, tiny_model, tmp_path / "run", method="auto"), progress=heard)
    assert any("lp-ft-quick is not tried: the error is surely below" in note for note in heard.notes)


def test_wilson() -> None:
    assert auto.wilson(81, 100) == pytest.approx((0.7222, 0.8749), abs=1e-3)
    assert auto.wilson(10, 10)[1] == pytest.approx(1.0)


def test_an_interrupted_auto_is_continued_as_a_whole(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "SETTLED", -1.0)
    given = config(photos, tiny_model, tmp_path / "run", method="auto", budget="seconds")
    finished = training.train_prepared

    def interrupted(config: TrainConfig, folder: Path, *rest: Any, **options: Any) -> checkpoint.Run:
        if folder.name == "proker":
            raise KeyboardInterrupt(str(folder))
        return finished(config, folder, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_prepared", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            commands.train(given)
    assert caught.value.args == (str(tmp_path / "run"),)
    heard = Heard()
    run = commands.train(replace(given, resume=True), progress=heard)
    assert sum("trained before, reused" in note for note in heard.notes) == 2
    assert not any("Nothing to resume" in note for note in heard.notes)
    alone = commands.train(replace(given, out=tmp_path / "alone"))
    for key, tensor in alone.tensors().items():
        assert torch.equal(run.tensors()[key], tensor), key


def forged(folder: Path, change: Any) -> None:
    """Change a card and seal it again, as somebody who knows how would."""
    card = json.loads((folder / "card.json").read_text())
    change(card["settings"])
    (folder / "card.json").write_text(json.dumps(sealed(card)))


def nested(depth: int) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = []
    for _ in range(depth):
        members = [{"method": "ensemble", "settings": {"data": "d", "members": members}}]
    return members


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.update(members=7),
        lambda settings: settings.update(members=[7]),
        lambda settings: settings.update(members=[{"method": "ridge"}]),
        lambda settings: settings["members"][0].update(method="nonsense"),
        lambda settings: settings["members"][0].update(method="lp-ft"),
        lambda settings: settings.update(members=settings["members"][:1]),
        lambda settings: settings.update(members=[]),
        lambda settings: settings["members"].reverse(),
        lambda settings: settings.update(members=nested(200)),
    ],
)
def test_a_forged_card_is_refused_in_one_line(
    change: Any, ensemble: checkpoint.Run, photos: Path, tmp_path: Path
) -> None:

    copied = tmp_path / "run"
    shutil.copytree(ensemble.folder, copied, ignore=shutil.ignore_patterns("members"))
    forged(copied, change)
    with pytest.raises(UserError) as caught:
        list(Predictor(copied).predict([next((photos / "test").rglob("*.*"))]))
    assert "\n" not in str(caught.value)


def test_members_that_were_trained_on_other_images_are_not_reused(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    given = config(data, tiny_model, tmp_path / "run", method="ensemble", members=("ridge", "gda"))
    commands.train(given)
    (given.out or tmp_path).joinpath("card.json").unlink()  # as if it had been killed after its members
    shutil.rmtree((given.out or tmp_path) / "last")
    next((data / "train").rglob("*.*")).unlink()
    with pytest.raises(RunError, match="other images"):
        commands.train(given)


@pytest.mark.parametrize("name", ["auto", "ensemble", "zero-shot"])
def test_what_cannot_be_a_member_is_refused_before_anything_is_trained(
    name: str, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"run of {name}, which cannot be a member"):
        commands.train(config(photos, tiny_model, tmp_path / "run", method="ensemble", members=("ridge", name)))
    assert not (tmp_path / "run" / "members").exists()


def test_the_preset_combines_lp_ft_with_methods_on_the_frozen_encoder() -> None:
    config = apply_preset(TrainConfig(data=DataConfig(data=Path("photos")), method="lp-ft-ensemble"))
    assert (config.method, config.members) == ("ensemble", ("lp-ft", "gda", "ridge", "proker"))
    own = apply_preset(
        TrainConfig(data=DataConfig(data=Path("photos")), method="lp-ft-ensemble", members=("lp-ft", "gda"))
    )
    assert own.members == ("lp-ft", "gda")
