"""The main job end to end, on generated images and a tiny random CLIP: exact files, reuse, resume, warnings."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clip_har import checkpoint, commands, report, training_states
from clip_har.backbone import Backbone
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    OptimizerConfig,
    TrainConfig,
)
from clip_har.errors import DataError, RunError
from clip_har.evaluation import SCALARS
from clip_har.experiment import fit as fitting
from clip_har.progress import Silent
from clip_har.run_card import write_card
from samples import CLASSES, HUES, MODEL_CONFIG, write_dataset, write_image, write_model

EVALUATION_FILES = {
    "results.json",
    "results.csv",
    "results.md",
    "results.tex",
    "confusion_matrix.csv",
    "classification_report.txt",
    "predictions.csv",
    "confusion_matrix.png",
    "confusion_matrix_baseline.png",
    "per_class_f1.png",
    "training_curve.png",
    "reliability.png",
    "risk_coverage.png",
    "report.html",
}
RUN_FILES = {
    "config.json",
    "card.json",
    "prompts.safetensors",
    "manifest.csv",
    "unreadable.csv",
    "log.jsonl",
    "last",
}
LORA_FILES = RUN_FILES | {"adapter_config.json", "adapter_model.safetensors"}
M_KEYS = {*SCALARS, "accuracy_ci95", "intervals", "per_class"}


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def train_config(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=4, batch_size=8),
        out=out,
    )
    return replace(config, **changes)


def compare_config(data: Path, model: str, out: Path, **changes: Any) -> CompareConfig:
    train = train_config(data, model, out)
    config = CompareConfig(data=train.data, backbone=train.backbone, optimizer=train.optimizer, out=out)
    return replace(config, **changes)


def timeless(run: checkpoint.Run) -> list[dict[str, Any]]:
    """A run's log without what the clock says."""
    times = ("seconds", "images_per_second")
    return [{key: value for key, value in entry.items() if key not in times} for entry in run.history()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_train_leaves_exactly_a_run_folder(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run"), command="clip-har train")
    assert names(run.folder) == LORA_FILES
    card = run.card
    assert card.classes == CLASSES
    assert card.splits == {"train": 30, "val": 6, "test": 18}
    width, embedded = 32, 24
    assert card.trainable_params == 16 * (3 * embedded + width) + 1
    assert card.backbone.name == tiny_model
    assert card.backbone.activation == "GELU"
    assert len(card.backbone.weights_hash) == 64
    assert (card.train_seconds or 0) > 0
    assert (card.peak_memory_bytes or 0) > 50e6
    history = run.history()
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert sum(entry["best"] for entry in history) == 1
    with (run.folder / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 54
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_the_kept_epoch_is_the_best_on_validation_with_ties_broken_by_loss() -> None:
    entries = [
        {"val_macro_f1": 0.5, "val_loss": 1.0},
        {"val_macro_f1": 0.7, "val_loss": 2.0},
        {"val_macro_f1": 0.7, "val_loss": 1.5},
        {"val_macro_f1": 0.6, "val_loss": 0.1},
    ]
    assert max(entries, key=fitting.rank) is entries[2]


def test_evaluate_leaves_exactly_its_files_with_the_schema(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run"))
    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    result, out = commands.evaluate(config, command="clip-har evaluate")
    assert out == run.folder / "eval"
    assert names(out) == EVALUATION_FILES
    written = json.loads((out / "results.json").read_text())
    contract = {"n", "classes", "baseline", "finetuned", "mcnemar_p", "warnings"}
    assert written.keys() == contract | {"differences", "confidence"}
    assert written["baseline"].keys() == written["finetuned"].keys() == M_KEYS
    assert written["n"] == result.n == 18
    with (out / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0].keys() == {"Metric", "Value", "Type"}
    with (out / "predictions.csv").open() as stream:
        predictions = list(csv.DictReader(stream))
    right = sum(row["true"] == row["finetuned"] for row in predictions)
    assert right / 18 == pytest.approx(written["finetuned"]["accuracy"])


def test_the_baseline_alone(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    config = EvaluateConfig(data=DataConfig(data=photos), backbone=backbone, out=tmp_path / "out")
    commands.evaluate(config)
    assert names(tmp_path / "out") == EVALUATION_FILES - {
        "reliability.png",
        "risk_coverage.png",
        "confusion_matrix_baseline.png",
        "training_curve.png",
    }
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["finetuned"] is None and written["mcnemar_p"] is None


def test_zero_shot_agrees_with_a_plain_open_clip_loop(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    import open_clip
    from PIL import Image

    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    config = EvaluateConfig(data=DataConfig(data=photos), backbone=backbone, out=tmp_path / "out")
    result, _ = commands.evaluate(config)
    model, _, transform = open_clip.create_model_and_transforms(tiny_model)
    model.eval()
    tokenizer = open_clip.get_tokenizer(tiny_model)
    templates = (
        "a photo of a person {}",
        "someone {}",
        "a person performing {}",
        "{} action",
        "human {}",
        "a video frame of someone {}",
        "footage of a person {}",
    )
    with torch.inference_mode():
        prompts = []
        for label in CLASSES:
            embedding = model.encode_text(tokenizer([template.format(label) for template in templates]))
            mean = (embedding / embedding.norm(dim=-1, keepdim=True)).mean(dim=0)
            prompts.append(mean / mean.norm())
        for index, path in enumerate(result.paths):
            image = model.encode_image(transform(Image.open(photos / path).convert("RGB"))[None])
            image = image / image.norm(dim=-1, keepdim=True)
            expected = (model.logit_scale.exp() * image @ torch.stack(prompts).T).softmax(dim=-1)[0]
            # Resizing in 8 bits rounds a few pixels the other way.
            np.testing.assert_allclose(result.baseline.probabilities_NC[index], expected, atol=5e-5)


def test_compare_shares_everything_and_a_second_one_encodes_and_trains_nothing(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = commands.compare(compare_config(photos, tiny_model, out), command="clip-har compare")
    assert names(out) == {
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "comparison.txt",
        "comparison.png",
        "accuracy_cost.png",
        "pairwise.csv",
        "report.html",
        "manifest.csv",
        "runs",
    }
    assert names(out / "runs") == {"zero-shot", "linear-probe", "lora"}
    assert names(out / "runs" / "lora") == LORA_FILES | {"eval"}
    assert names(out / "runs" / "lora" / "eval") == EVALUATION_FILES
    rows = {row["method"]: row for row in json.loads((out / "comparison.json").read_text())}
    assert list(rows) == ["zero-shot", "linear-probe", "lora"]
    required = {"accuracy", "accuracy_ci95", "trainable_params", "trainable_fraction", "peak_memory_bytes"}
    assert all(row.keys() >= required | {"train_seconds", "mcnemar_p"} for row in rows.values())
    assert rows["zero-shot"]["mcnemar_p"] is None
    assert rows["zero-shot"]["trainable_params"] == 0
    assert rows["linear-probe"]["accuracy"] > 0.9, "colours are told apart even by a random tower"
    assert rows["linear-probe"]["mcnemar_p"] < 0.05
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'<a href="runs/{name}/eval/report.html">' in page for name in rows)
    with (out / "pairwise.csv").open() as stream:
        pairs = list(csv.DictReader(stream))
    methods = ["zero-shot", "linear-probe", "lora"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == list(itertools.combinations(methods, 2))
    assert float(pairs[0]["p"]) == pytest.approx(rows["linear-probe"]["mcnemar_p"], rel=1e-4)

    for name in ("encode_images", "encode_text"):
        monkeypatch.setattr(Backbone, name, lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(fitting, "fit", lambda *_, **__: pytest.fail("trained again"))
    heard = Heard()
    second = commands.compare(compare_config(photos, tiny_model, out), progress=heard)
    assert [row.accuracy for row in second.rows] == [row.accuracy for row in first.rows]
    assert any("nothing to encode" in note for note in heard.notes)


def test_a_comparison_with_other_settings_does_not_reuse_or_overwrite_runs(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    commands.compare(compare_config(photos, tiny_model, tmp_path, methods=("lora",)))
    changed = compare_config(
        photos, tiny_model, tmp_path, methods=("lora",), optimizer=OptimizerConfig(epochs=5, batch_size=8)
    )
    with pytest.raises(RunError, match="other settings: epochs 4 -> 5"):
        commands.compare(changed)


def test_zero_shot_is_evaluated_once_for_all_seeds(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    config = compare_config(photos, tiny_model, tmp_path, methods=("zero-shot", "lora"), seeds=(1, 2))
    heard = Heard()
    baseline, lora = commands.compare(config, progress=heard).rows
    assert names(tmp_path / "runs") == {"zero-shot", "lora-seed-1", "lora-seed-2"}
    assert [note.split(" ", 1)[1] for note in heard.notes if note[1:3] == "/3"] == [
        "zero-shot",
        "lora, seed 1",
        "lora, seed 2",
    ]
    assert (baseline.seeds, baseline.accuracy_std, baseline.mcnemar_p) == ((0,), None, None)
    assert (lora.seeds, lora.paired_test) == ((1, 2), "sign-flip") and lora.accuracy_std is not None
    with (tmp_path / "pairwise.csv").open() as stream:
        (pair,) = csv.DictReader(stream)
    assert float(pair["p"]) == pytest.approx(lora.mcnemar_p, rel=1e-4)
    text = (tmp_path / "comparison.txt").read_text()
    assert "Zero-shot is evaluated once" in text and "McNemar" not in text
    assert '<a href="runs/zero-shot/eval/report.html">' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_comparison_reuses_the_runs_that_do_not_read_a_changed_setting(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("zero-shot", "linear-probe")
    commands.compare(compare_config(photos, tiny_model, tmp_path, methods=methods))
    faster = OptimizerConfig(epochs=4, batch_size=8, lr=0.5)
    changed = compare_config(photos, tiny_model, tmp_path, methods=methods, optimizer=faster)
    changed = replace(changed, members=("ridge", "gda"), start_from=tmp_path / "unread")  # neither method reads them
    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", lambda *_, **__: pytest.fail("trained again"))
        commands.compare(changed, progress=heard)
    assert len([note for note in heard.notes if "trained before, reused" in note]) == 2
    adapted = replace(changed, methods=("linear-probe",), refit=False)
    with pytest.raises(RunError, match="other settings: refit None -> False"):
        commands.compare(adapted)


def test_a_comparison_after_the_images_changed_does_not_reuse_runs(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    config = compare_config(data, tiny_model, tmp_path / "out", methods=("lora",))
    commands.compare(config)
    write_image(data / "train" / "running" / "new.jpg", HUES["running"], seed=12345)
    with pytest.raises(RunError, match="trained on other images or another split of them"):
        commands.compare(config)


# --- kill and resume ------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_training_resumes_to_the_same_weights(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    whole = commands.train(train_config(photos, tiny_model, tmp_path / "whole"))
    saves = []
    original = training_states.save_state

    def dying(*arguments: Any, **options: Any) -> None:
        original(*arguments, **options)
        saves.append(1)
        if len(saves) == killed_after:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "save_state", dying)
        with pytest.raises(SystemExit):
            commands.train(train_config(photos, tiny_model, tmp_path / "killed"))
    with pytest.raises(RunError, match="unfinished run"):
        checkpoint.load_run(tmp_path / "killed")
    resumed = commands.train(train_config(photos, tiny_model, tmp_path / "killed", resume=True))
    expected = load_file(whole.folder / "adapter_model.safetensors")
    actual = load_file(resumed.folder / "adapter_model.safetensors")
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
    assert timeless(resumed) == timeless(whole)


def test_resuming_after_the_images_changed_is_refused(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_log", lambda *_: (_ for _ in ()).throw(SystemExit()))
        with pytest.raises(SystemExit):
            commands.train(train_config(data, tiny_model, tmp_path / "run"))
    write_image(data / "train" / "running" / "new.jpg", HUES["running"], seed=12345)
    with pytest.raises(RunError, match="not those the run"):
        commands.train(train_config(data, tiny_model, tmp_path / "run", resume=True))


# --- what the data may do -------------------------------------------------------------------------------


def test_unreadable_images_are_said_listed_and_left_out(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    broken = data / "train" / "running" / "running_003.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    (data / "test" / "running" / "page.jpg").write_text("<html>")
    config = replace(train_config(data, tiny_model, tmp_path / "run"), data=DataConfig(data=data, unreadable_limit=0.2))
    heard = Heard()
    run = commands.train(config, progress=heard)
    assert run.card.unreadable == 2
    assert any(warning.startswith("2 images cannot be read") for warning in heard.warnings)
    with (run.folder / "unreadable.csv").open() as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == {"train/running/running_003.jpg", "test/running/page.jpg"}
    assert all(row["reason"] for row in rows.values())
    assert sum(run.card.splits.values()) == 53


def test_too_many_unreadable_images_stop_the_run(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    for index in range(3):
        (data / "test" / "running" / f"running_{index:03d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 18 test images \(17%\) cannot be read, above the limit of 5%"):
        commands.train(train_config(data, tiny_model, tmp_path / "run"))
    assert (tmp_path / "run" / "unreadable.csv").is_file()


def test_a_class_without_test_images_is_warned_about_and_scored_over_the_others(
    tiny_model: str, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data")
    shutil.rmtree(data / "test" / "running")
    run = commands.train(train_config(data, tiny_model, tmp_path / "run"))
    config = EvaluateConfig(
        data=DataConfig(data=data), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    result, _ = commands.evaluate(config)
    assert result.classes == CLASSES
    assert len([warning for warning in result.warnings if warning.startswith("running has no images")]) == 1


def test_without_a_test_split_validation_is_scored_and_said_so(tiny_model: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "test").rename(data / "val")
    run = commands.train(train_config(data, tiny_model, tmp_path / "run"))
    config = EvaluateConfig(
        data=DataConfig(data=data), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    result, _ = commands.evaluate(config)
    assert result.split == "val"
    assert any("no test split" in warning for warning in result.warnings)


def test_evaluation_keeps_the_runs_own_split_of_an_unsplit_folder(
    tiny_model: str, tmp_path: Path, own_cache: Path
) -> None:
    """On another machine the cache is gone, yet no training image may end in test."""
    for number, label in enumerate(CLASSES):
        for index in range(12):
            write_image(tmp_path / "data" / label / f"{index}.jpg", HUES[label], seed=number * 100 + index)
    config = train_config(tmp_path / "data", tiny_model, tmp_path / "run")
    run = commands.train(replace(config, data=DataConfig(data=tmp_path / "data", split_seed=5)))
    with (run.folder / "manifest.csv").open() as stream:
        held_out = {row["path"] for row in csv.DictReader(stream) if row["split"] == "test"}
    shutil.rmtree(own_cache)
    result, _ = commands.evaluate(
        EvaluateConfig(
            data=DataConfig(data=tmp_path / "data"),
            backbone=BackboneConfig(workers=0, precision="float32"),
            checkpoint=run.folder,
        )
    )
    assert set(result.paths) == held_out


def test_a_run_of_another_model_is_refused(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run"))
    (tmp_path / "other").mkdir()
    other = write_model(tmp_path / "other", MODEL_CONFIG, seed=77)
    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(model=other, precision="float32"), checkpoint=run.folder
    )
    with pytest.raises(RunError, match=r"was trained on .* but .* has weights"):
        commands.evaluate(config)


def test_the_same_weights_with_another_activation_are_another_model(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run"))
    (tmp_path / "other").mkdir()
    (weights,) = Path(tiny_model.partition(":")[2]).glob("*.safetensors")
    shutil.copy(weights, tmp_path / "other")
    described = {**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"], "quick_gelu": True}}
    (tmp_path / "other" / "open_clip_config.json").write_text(json.dumps(described))
    backbone = BackboneConfig(model=f"local-dir:{tmp_path / 'other'}", precision="float32", workers=0)
    config = EvaluateConfig(data=DataConfig(data=photos), backbone=backbone, checkpoint=run.folder)
    with pytest.raises(RunError, match=r"was trained on local-dir:\S+ with GELU, but local-dir:\S+ has QuickGELU\."):
        commands.evaluate(config)


def test_a_solvers_candidates_are_no_epochs(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no learning rate and no speed, and zero-shot is drawn where they are: on validation."""
    zero_shot = commands.train(train_config(photos, tiny_model, tmp_path / "zero-shot", method="zero-shot"))
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run", method="linear-probe", refit=False))
    history = run.history()
    assert [entry["candidate"] for entry in history[:2]] == ["unit, C=10", "signed-sqrt, C=10"]
    assert [entry["candidate"].partition("C=")[2] for entry in history[2:]] == ["30", "100", "1000", "1"]
    assert {(entry["lr"], entry["images_per_second"]) for entry in history} == {(None, None)}
    drawn = {}
    write = report.write_evaluation

    def kept(*arguments: Any, **options: Any) -> list[Path]:
        drawn.update(options)
        return write(*arguments, **options)

    monkeypatch.setattr(report, "write_evaluation", kept)
    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    _, out = commands.evaluate(config)
    assert drawn["validation_level"] == zero_shot.card.validation["val_accuracy"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "of 6 candidates (unit, C=10 to " in page and "epoch" not in page


def test_collapse_is_a_loud_warning(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    """A run whose weights answer one class for everything says so on evaluation."""
    run = commands.train(train_config(photos, tiny_model, tmp_path / "run", method="linear-probe"))
    from safetensors.torch import save_file

    path = run.folder / "classifier.safetensors"
    tensors = {key: tensor * 0 for key, tensor in load_file(path).items()}
    save_file(tensors, path)
    write_card(run.folder, run.card, [path.name])
    heard = Heard()
    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run.folder
    )
    result, _ = commands.evaluate(config, progress=heard)
    assert any("one class" in warning or "cycling" in warning for warning in result.warnings)
    assert heard.warnings


def test_a_job_script_with_resume_starts_the_run_and_later_finds_it_finished(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    config = replace(train_config(photos, tiny_model, tmp_path / "run"), resume=True)
    first, second = Heard(), Heard()
    run = commands.train(config, progress=first)
    assert any("Nothing to resume in" in line and "the training starts" in line for line in first.notes)
    assert commands.train(config, progress=second).weights_sha256() == run.weights_sha256()
    assert any("is already finished" in line for line in second.notes)
    assert not any("Nothing to resume" in line for line in second.notes)
