"""What the flags of training do in a whole run: augmentation, hard pairs, few-shot, early stopping, memory, presets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clip_har import checkpoint, commands
from clip_har.config import (
    METHOD_NAMES,
    AugmentConfig,
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    LoraConfig,
    OptimizerConfig,
    TrainConfig,
)
from clip_har.errors import ConfigError, RunError, TrainingError
from clip_har.experiment.setup import few_shot
from clip_har.methods import Batch, Classifier, Task
from clip_har.methods.embedding_lora import Lora
from clip_har.methods.full import FullFineTuning
from clip_har.predict import Predictor
from clip_har.trainer import Engine, fit
from clip_har.trainer.memory import chosen_batch_size
from tasks import make_image_task, settings
from test_workflows import Heard


def config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    given = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=2, batch_size=10),
        out=out,
    )
    return replace(given, **changes)


# --- the whole family -----------------------------------------------------------------------------------


@pytest.fixture(name="compared", scope="module")
def fixture_compared(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method and some presets, compared."""
    out = tmp_path_factory.mktemp("all")
    commands.compare(
        CompareConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=out / "cache"),
            methods=(*METHOD_NAMES, "lora-attention", "lora-all", "augmented"),
            optimizer=OptimizerConfig(epochs=2, batch_size=10),
            out=out,
        )
    )
    return out


@pytest.mark.slow  # all methods are trained
def test_every_method_and_preset_compares_under_one_protocol(compared: Path) -> None:
    rows = json.loads((compared / "comparison.json").read_text())
    assert [row["method"] for row in rows] == [*METHOD_NAMES, "lora-attention", "lora-all", "augmented"]
    keys = {"accuracy", "accuracy_ci95", "trainable_params", "trainable_fraction", "peak_memory_bytes"}
    assert all(keys | {"train_seconds", "mcnemar_p", "seeds", "accuracy_std"} <= row.keys() for row in rows)
    cards = [checkpoint.load_run(compared / "runs" / row["method"]).card for row in rows]
    assert len({card.manifest_sha256 for card in cards}) == 1
    assert len({card.templates for card in cards}) == 1
    assert {card.method for card in cards} == set(METHOD_NAMES)
    trained = {row["method"]: row["trainable_params"] for row in rows}
    assert trained["zero-shot"] == trained["tip-adapter"] == 0
    assert 0 < trained["lora-attention"] < trained["lora-all"] < trained["full"]
    assert trained["wise-ft"] == trained["full"]


@pytest.mark.parametrize("name", [*METHOD_NAMES, "lora-attention", "augmented"])
def test_every_run_predicts_what_its_evaluation_says(compared: Path, photos: Path, name: str) -> None:
    table = (compared / "runs" / name / "eval" / "predictions.csv").read_text().splitlines()
    header = table[0].split(",")
    column = header.index("baseline" if name == "zero-shot" else "finetuned")
    answered = {line.split(",")[0]: line.split(",")[column] for line in table[1:]}
    predictor = Predictor(compared / "runs" / name, precision="float32")
    found = {p.image: p.label for p in predictor.predict([photos / path for path in answered])}
    assert found == {str(photos / path): label for path, label in answered.items()}


def test_a_wise_run_shows_its_curve_and_is_not_below_its_ends(compared: Path) -> None:
    run = checkpoint.load_run(compared / "runs" / "wise-ft")
    figures = [entry["val_accuracy"] for entry in run.history()]
    assert len(figures) == 11
    assert run.card.validation["val_accuracy"] == max(figures) >= max(figures[0], figures[-1])
    assert (run.folder / "eval" / "wise_ft_curve.png").is_file()
    assert all(entry["train_loss"] is None for entry in run.history())


def test_an_image_tower_run_is_answered_once_and_then_read(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = checkpoint.load_run(compared / "runs" / "full")
    results = (run.folder / "eval" / "results.json").read_text()

    def fail(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(FullFineTuning, "restore", fail)
    data = DataConfig(data=Path(run.card.data))
    backbone = BackboneConfig(precision="float32", workers=0, cache=compared / "cache")
    commands.evaluate(EvaluateConfig(data=data, backbone=backbone, checkpoint=run.folder))
    assert (run.folder / "eval" / "results.json").read_text() == results


# --- augmentation and hard pairs ------------------------------------------------------------------------


def test_cached_views_take_turns_with_the_plain_images(compared: Path) -> None:
    stores = [path for path in (compared / "cache" / "features").iterdir() if path.is_dir()]
    assert len(stores) == 1 + 4  # the plain images, and four views
    counts = sorted(sum(len(json.loads(p.read_text())["sha256"]) for p in store.glob("*-*.json")) for store in stores)
    assert counts == [30, 30, 30, 30, 54]  # views are of training images only


def test_the_mined_pairs_are_in_the_run_and_in_the_report(compared: Path) -> None:
    run = checkpoint.load_run(compared / "runs" / "augmented")
    pairs = json.loads((run.folder / "hard_pairs.json").read_text())
    assert pairs["images"]
    assert "pair" in (run.folder / "eval" / "report.html").read_text().lower()
    assert not (compared / "runs" / "lora" / "hard_pairs.json").exists()


def test_margins_and_mixed_labels_reach_the_loss(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    seen: list[Batch] = []

    class Watching(Lora):
        def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
            seen.append(batch)
            return super().loss(classifier, batch, task)

    for name, augmentation in (("pairs", AugmentConfig(hard_pairs=0.5)), ("mixed", AugmentConfig(mixup=0.5))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lora, "variant", classmethod(lambda cls, _settings: Watching))
            commands.train(config(photos, tiny_model, tmp_path / name, augmentation=augmentation))
    pairs, mixed = [b for b in seen if b.offsets_BC is not None], [b for b in seen if b.targets_BC is not None]
    assert pairs and mixed and len(pairs) + len(mixed) == len(seen)
    assert all((b.offsets_BC[torch.arange(len(b.labels_B)), b.labels_B] == 0).all() for b in pairs)  # type: ignore[index]
    torch.testing.assert_close(mixed[0].targets_BC.sum(dim=1), torch.ones(10))  # type: ignore[union-attr]
    assert all(b.weights_B.sum().item() == pytest.approx(1.0) for b in seen)


# --- few-shot -------------------------------------------------------------------------------------------


def test_few_shot_draws_as_many_of_each_class_by_the_seed() -> None:
    labels = torch.tensor([0] * 9 + [1] * 5 + [2] * 2)
    chosen = few_shot(labels, 3, seed=1)
    assert labels[chosen].bincount().tolist() == [3, 3, 2]
    assert chosen == sorted(set(chosen)) == few_shot(labels, 3, seed=1)
    assert chosen != few_shot(labels, 3, seed=2)


@pytest.mark.parametrize("method", ["lora", "tip-adapter", "lp-ft"])
def test_few_shot_trains_on_that_many(method: str, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = commands.train(config(photos, tiny_model, tmp_path / "run", method=method, shots=2))
    assert run.card.settings["shots"] == 2
    assert run.card.splits["train"] == 30  # the split itself stays
    if method == "tip-adapter":
        assert len(run.tensors()["keys_ND"]) == 6


# --- stopping, memory, refusals -------------------------------------------------------------------------


def test_patience_stops_a_training_that_no_longer_improves(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    heard = Heard()
    optimizer = OptimizerConfig(epochs=50, batch_size=30, lr=1e-12, patience=3)
    run = commands.train(config(photos, tiny_model, tmp_path / "run", optimizer=optimizer), progress=heard)
    epochs = [entry["epoch"] for entry in run.history()]
    assert len(epochs) < 50 and epochs[-1] - run.card.validation["epoch"] == 3
    assert any("no longer improves" in note for note in heard.notes)


def test_batch_size_auto_halves_until_it_fits_and_keeps_the_step(
    photos: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_image_task(tiny_model, photos, per_class=6)
    method = FullFineTuning(settings(batch_size="auto", augment="none", epochs=1))
    classifier = method.build(task)
    before = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
    engine = Engine(method, classifier, task, device=torch.device("cpu"))
    original = engine.accumulate

    def limited(batches: list[Batch]) -> float:
        if len(batches[0].labels_B) > 20:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(batches)

    monkeypatch.setattr(engine, "accumulate", limited)
    assert chosen_batch_size(engine, classifier, task, method.settings) == (16, 4)
    assert all(torch.equal(tensor, before[key]) for key, tensor in classifier.state_dict().items())
    states = list(fit(method, classifier, task, method.settings, engine=engine))
    assert [(state.batch_size, state.accumulate, state.images) for state in states] == [(16, 4, 18)]


def test_out_of_memory_names_three_flags_that_help(photos: Path, tiny_model: str) -> None:
    class Greedy(FullFineTuning):
        def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    task = make_image_task(tiny_model, photos, per_class=6)
    method = Greedy(settings(batch_size=12, augment="none"))
    with pytest.raises(TrainingError) as caught:
        list(fit(method, method.build(task), task, method.settings))
    said = str(caught.value)
    for flag in ("--batch-size 6 --accumulate 2", "--activation-checkpointing", "--precision bfloat16"):
        assert flag in said
    assert "GiB" in said and "\n" not in said


def test_a_collapse_is_said_when_it_happens(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    heard = Heard()
    optimizer = OptimizerConfig(epochs=1, batch_size=10, lr=10.0)
    commands.train(config(photos, tiny_model, tmp_path / "run", method="full", optimizer=optimizer), progress=heard)
    assert any("collapsed" in warning for warning in heard.warnings)


def test_wise_ft_needs_a_run_that_it_can_mix(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--start-from RUN"):
        commands.train(config(photos, tiny_model, tmp_path / "a", method="wise-ft"))
    probe = commands.train(config(photos, tiny_model, tmp_path / "probe", method="linear-probe"))
    with pytest.raises(ConfigError, match="cannot interpolate a run of 'linear-probe'"):
        commands.train(config(photos, tiny_model, tmp_path / "b", method="wise-ft", start_from=probe.folder))
    with pytest.raises(RunError, match=r"Run folder .* not found"):
        commands.train(config(photos, tiny_model, tmp_path / "c", method="wise-ft", start_from=tmp_path / "none"))


def test_wise_ft_of_a_lora_run_scales_its_update(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    lora = commands.train(config(photos, tiny_model, tmp_path / "lora", lora=LoraConfig(placement="attention")))
    run = commands.train(config(photos, tiny_model, tmp_path / "wise", method="wise-ft", start_from=lora.folder))
    alpha = float(run.card.validation["candidate"].removeprefix("alpha="))
    mixed, trained = run.tensors(), lora.tensors()
    assert (run.folder / "adapter_config.json").is_file()
    for key, tensor in trained.items():
        torch.testing.assert_close(mixed[key], tensor * alpha if ".lora_B." in key else tensor)


@pytest.mark.slow  # torch.compile takes long to start
def test_a_compiled_training_reaches_the_same(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated by torch's compiler; the machine code that it would then write is torch's own."""
    asked, compiler = [], torch.compile

    def traced(objective: Any) -> Any:
        asked.append(objective)
        return compiler(objective, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)
    losses = []
    for compiled in (False, True):
        plain = AugmentConfig(text_augment=False, augment="none")  # what is drawn within the graph is drawn differently
        given = config(photos, tiny_model, tmp_path / str(compiled), method="full", augmentation=plain)
        given = replace(given, engine=replace(given.engine, compile=compiled))
        losses.append([entry["train_loss"] for entry in commands.train(given).history()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert len(asked) == 1
