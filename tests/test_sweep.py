"""`clip-har sweep`: what is sampled, how trials are shared and continued, what is chosen, and what it refuses."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_har import cli, commands
from clip_har.config import (
    BackboneConfig,
    DataConfig,
    LoraConfig,
    OptimizerConfig,
    SweepConfig,
    TrainConfig,
    load_config_file,
    parse_search,
)
from clip_har.errors import ConfigError, RunError, TrainingError
from clip_har.evaluation.sweep import SweepTable, SweepTrial, scores_of_predictions, selection_optimism
from clip_har.experiment import training
from clip_har.progress import SILENT
from clip_har.sweeping.jobs import from_json, to_json
from clip_har.sweeping.loop import work
from clip_har.sweeping.opening import open_sweep
from clip_har.sweeping.space import sampled
from clip_har.sweeping.trial import pack, unpack
from forked import Server

LORA = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "rank": [1, 2, 4]}
BOTH = {"method": ["ridge", "lora"], **LORA}


def config(data: Path, model: str, out: Path, search: dict[str, Any] | None = None, **changes: Any) -> SweepConfig:
    given = SweepConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=2, batch_size=10),
        search=LORA if search is None else search,
        trials=4,
        out=out,
    )
    return replace(given, **changes)


def params(table: SweepTable) -> list[tuple[Any, ...]]:
    return [tuple(sorted(trial.params.items())) for trial in table.trials]


# --- what is sampled --------------------------------------------------------------------------------------


def test_settings_are_sampled_only_for_methods_that_read_them() -> None:
    fixed = TrainConfig(data=DataConfig(data=Path("d")))
    search = parse_search(
        {
            "lr": {"low": 1e-4, "high": 1e-2},
            "rank": [2, 4],
            "refit": [True, False],
            "features": ["embedding", "pre-projection"],
            "layers": ["all", "last:1"],
            "method": ["ridge", "lora", "lora-attention"],
        },
        fixed,
    )
    assert next(iter(search)) == "method"

    def of(method: str) -> set[str]:
        _, values = sampled(
            lambda name, found: method if name == "method" else getattr(found, "values", (1e-3,))[0], search, fixed
        )
        return set(values)

    assert of("ridge") == {"method", "refit"}
    assert of("lora") == {"method", "features", "lr", "rank"}
    assert of("lora-attention") == {"method", "lr", "rank", "layers", "refit"}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({}, "There is nothing to search"),
        ({"lrr": [1.0, 2.0]}, "lrr is not a setting of train (did you mean 'lr'?)"),
        ({"rank": [0, 2]}, "rank must be from 1 to 65536, not 0"),
        ({"rank": ["a"]}, "rank cannot be 'a'"),
        ({"rank": []}, "rank has no values"),
        ({"rank": [2, 2]}, "rank lists 2 twice"),
        ({"rank": {"low": 1.5, "high": 3}}, "rank takes whole numbers, and low is 1.5"),
        ({"lr": 0.1}, "lr = 0.1 is a single value"),
        ({"lr": {"low": 1}}, "lr needs high"),
        ({"lr": {"low": 2, "high": 1}}, "lr has low = 2, which must be below high = 1"),
        ({"lr": {"low": -1, "high": 1, "log": True}}, "with log it must be above 0"),
        ({"lr": {"low": 1, "high": 2, "lgo": True}}, "lr has the unknown key 'lgo'"),
        ({"lr": {"low": float("nan"), "high": 2}}, "lr has low = nan, which is not a number"),
        ({"dropout": {"low": 0, "high": 1}}, "dropout must be in [0, 1), not 1.0"),
        ({"dora": {"low": 0, "high": 1}}, "dora is not a number"),
        ({"method": ["rigde", "lora"]}, "method cannot be 'rigde' (did you mean 'ridge'?)"),
        ({"data": ["a", "b"]}, "data cannot be searched"),
        ({"seed": [0, 1]}, "seed cannot be searched"),
        ({"epochs": [1, 2]}, "epochs is also given a fixed value"),
        ({"method": ["ridge", "gda"], "rank": [1, 2]}, "settings without effect on ridge, gda: rank"),
        ({"method": ["ridge", "wise-ft"]}, "wise-ft"),
    ],
)
def test_a_search_space_that_cannot_work_is_refused(tmp_path: Path, search: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        commands.sweep(config(tmp_path, "demo", tmp_path / "out", search))
    assert said in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_config_survives_the_way_to_another_process(tmp_path: Path) -> None:
    given = config(tmp_path, "demo", tmp_path, BOTH, hold_out=("a",), lora=LoraConfig(alpha=3.0))
    assert from_json(to_json(given)) == given


# --- the whole command ------------------------------------------------------------------------------------


@pytest.fixture(name="swept", scope="module")
def fixture_swept(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Any]:
    out = tmp_path_factory.mktemp("sweep") / "out"
    given = config(photos, tiny_model, out, BOTH, trials=6)
    given = replace(given, backbone=replace(given.backbone, cache=out.parent / "cache"))
    return given, commands.sweep(given)


def test_a_sweep_leaves_its_files_and_the_best_run(swept: tuple[SweepConfig, SweepTable]) -> None:
    given, table = swept
    best = table.best
    assert best is not None and best.score == max(t.score for t in table.trials if t.state == "complete" and t.score)
    files = {path.name for path in given.out.iterdir() if not path.name.startswith(".")}
    plots = {"history.png", "parallel_coordinates.png"} | ({"importance.png"} if table.importances else set())
    assert files == {"study.journal", "trials.csv", "sweep.json", "best.toml", "trials"} | plots
    assert [path.name for path in (given.out / "trials").iterdir()] == [str(best.number)]
    content = json.loads((given.out / "sweep.json").read_text())
    assert content["best"] == best.number and content["test"]["trial"] == best.number
    assert content["expected_after_selection"] == pytest.approx(best.score - content["optimism"])
    rows = list(csv.DictReader((given.out / "trials.csv").open()))
    assert [row["trial"] for row in rows] == [str(trial.number) for trial in table.trials]
    ridge = next(trial for trial in table.trials if trial.params["method"] == "ridge")
    assert set(ridge.params) == {"method"} and ridge.epochs is None
    assert len(params(table)) == len(set(params(table)))


def test_the_best_config_trains_to_the_same_score(swept: tuple[SweepConfig, SweepTable], tmp_path: Path) -> None:
    given, table = swept
    lora = max((t for t in table.trials if t.params["method"] == "lora" and t.score), key=lambda t: t.score or 0)
    from clip_har.sweeping.files import write_best

    study, _ = open_sweep(given, SILENT)
    write_best(study.config_of(lora.number), tmp_path, about="x")
    values = load_config_file(tmp_path / "best.toml", TrainConfig)
    assert values["rank"] == lora.params["rank"] and values["lr"] == lora.params["lr"]
    out = tmp_path / "again"
    code = cli.main(["train", "--config", str(tmp_path / "best.toml"), "--out", str(out), "--workers", "0"])
    assert code == 0
    card = json.loads((out / "card.json").read_text())
    assert card["validation"]["val_accuracy"] == lora.accuracy
    assert card["validation"]["val_loss"] == pytest.approx(lora.loss, rel=1e-6)


def test_the_same_command_again_trains_nothing_and_keeps_the_test(
    swept: tuple[SweepConfig, SweepTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, table = swept
    monkeypatch.setattr(
        sys.modules["clip_har.commands.sweep"], "_evaluate", None
    )  # the test images are not looked at again
    monkeypatch.setattr("clip_har.sweeping.loop.run_trial", None)
    again = commands.sweep(given)
    assert again.trials == table.trials and again.test == table.test


def test_other_data_or_settings_in_the_same_folder_are_refused(
    swept: tuple[SweepConfig, SweepTable], tmp_path: Path
) -> None:
    from samples import write_dataset

    given, _ = swept
    with pytest.raises(RunError, match="made with other settings: seed 0 -> 1"):
        commands.sweep(replace(given, seed=1))
    with pytest.raises(RunError, match=r"made with other settings: \[search\] method removed\. Pass"):
        commands.sweep(replace(given, search=LORA))
    other = write_dataset(tmp_path / "other", train=6, test=3)
    with pytest.raises(RunError, match="made with other settings: other images"):
        commands.sweep(replace(given, data=DataConfig(data=other)))
    with pytest.raises(RunError, match=r"has a study in study\.journal"):
        commands.sweep(replace(given, storage="sqlite"))


def test_sqlite_and_a_repeated_seed_give_the_same_trials(
    photos: Path, tiny_model: str, tmp_path: Path, swept: tuple[SweepConfig, SweepTable]
) -> None:
    given, table = swept
    again = commands.sweep(replace(given, out=tmp_path / "out", storage="sqlite", test=False))
    assert params(again) == params(table)
    assert [trial.score for trial in again.trials] == [trial.score for trial in table.trials]
    assert again.test is None and (tmp_path / "out" / "study.sqlite3").is_file()


def test_all_combinations_are_tried_once(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path / "out", {"method": ["ridge", "gda"]}, trials=9, test=False)
    assert sorted(trial.params["method"] for trial in commands.sweep(given).trials) == ["gda", "ridge"]


# --- interrupted, and several workers ---------------------------------------------------------------------


def test_a_trial_that_was_interrupted_is_continued(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = commands.sweep(config(photos, tiny_model, tmp_path / "whole", keep_all=True, test=False))
    given = config(photos, tiny_model, tmp_path / "out", keep_all=True, test=False)
    begun: list[Path] = []
    real = training.train_prepared

    def killed(config: TrainConfig, folder: Path, *rest: Any, **more: Any) -> Any:
        begun.append(folder)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(config, folder, *rest, **more)

    monkeypatch.setattr(training, "train_prepared", killed)
    with pytest.raises(KeyboardInterrupt):
        commands.sweep(given)
    table = commands.sweep(given)
    assert [folder.name for folder in begun] == ["0", "1", "2", "2", "3"]
    assert params(table) == params(whole)
    assert [trial.score for trial in table.trials] == [trial.score for trial in whole.trials]


def test_a_trial_that_keeps_killing_its_worker_is_given_up(
    photos: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(photos, tiny_model, tmp_path / "out", trials=2, test=False)

    def killed(config: TrainConfig, folder: Path, *rest: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_prepared", killed)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                commands.sweep(given)
    table = commands.sweep(given)
    assert [trial.state for trial in table.trials] == ["failed", "complete"]
    assert table.trials[0].note == "interrupted 3 times"


def test_workers_share_a_study_without_doing_a_trial_twice(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path / "out", {"rank": [1, 2, 3, 4], "alpha": [1.0, 2.0]}, trials=6)
    given = replace(given, test=False, keep_all=True)
    opened = [open_sweep(given, SILENT) for _ in range(2)]
    first, second = opened[0][0].next_trial(), opened[1][0].next_trial()
    assert first is not None and second is not None and (first.number, second.number) == (0, 1)
    assert first.config.lora != second.config.lora
    for study, _ in opened:
        study.release()  # as if both were killed
    threads = [
        threading.Thread(target=work, args=(given, study, experiments, SILENT, "")) for study, experiments in opened
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = commands.sweep(given)
    assert [trial.state for trial in table.trials] == ["complete"] * 6
    assert len(set(params(table))) == 6


@pytest.mark.slow  # workers are processes that import torch
def test_a_killed_sweep_with_jobs_continues(server: Server, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = tmp_path / "sweep.json"
    search = {"rank": [1, 2, 3, 4, 5, 6], "lr": {"low": 1e-4, "high": 1e-2}}
    fixed = {"data": str(photos), "model": tiny_model, "workers": 0, "precision": "float32", "epochs": 10}
    file.write_text(json.dumps({**fixed, "trials": 8, "pruner": "none", "search": search}))
    command = ["sweep", "--config", str(file), "--out", str(out), "--jobs", "2"]
    with server.started(command, log=tmp_path / "log") as process:
        while not any((out / "trials").glob("*/last")) and process.poll(0.05) is None:
            pass
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.errors_so_far()
    (again,) = server.run(command, log=tmp_path / "log")
    assert again["code"] == 0, (tmp_path / "log.0").read_text()
    content = json.loads((out / "sweep.json").read_text())
    assert [trial["state"] for trial in content["trials"]] == ["complete"] * 8
    found = [json.dumps(trial["params"], sort_keys=True) for trial in content["trials"]]
    assert len(set(found)) == 8
    assert content["test"] is not None


def test_a_trial_without_hope_is_stopped(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    given = config(photos, tiny_model, tmp_path / "out", {"lr": {"low": 1e-7, "high": 0.3, "log": True}}, trials=7)
    given = replace(given, optimizer=OptimizerConfig(epochs=5, batch_size=10), pruner="halving", test=False)
    table = commands.sweep(given)
    pruned = [trial for trial in table.trials if trial.state == "pruned"]
    assert pruned and all(trial.epochs is not None and trial.epochs < 5 for trial in pruned)
    assert table.best is not None and table.best.epochs == 5


def test_trials_that_fail_are_counted_and_said(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    search = {"rank": [2, 60000]}
    table = commands.sweep(config(photos, tiny_model, tmp_path / "out", search, test=False))
    assert sorted(trial.state for trial in table.trials) == ["complete", "failed"]
    note = next(trial.note for trial in table.trials if trial.state == "failed")
    assert note.startswith("--rank 60000 exceeds the width")
    with pytest.raises(TrainingError, match="All 2 trials failed"):
        commands.sweep(config(photos, tiny_model, tmp_path / "bad", {"rank": [50000, 60000]}, test=False))


@pytest.mark.slow  # starts Ray, whose processes import torch
def test_ray_runs_the_trials_of_the_same_study(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    given = config(photos, tiny_model, tmp_path / "out", BOTH, trials=4, search_engine="ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        table = commands.sweep(given)
    finally:
        ray.shutdown()
    assert len(table.trials) == 4 and table.test is not None
    assert {trial.state for trial in table.trials} <= {"complete", "pruned"}
    assert not (given.out / "ray").exists()
    assert commands.sweep(replace(given, search_engine="optuna")).trials == table.trials


# --- files that are damaged or missing ---------------------------------------------------------------------


@pytest.fixture(name="small")
def fixture_small(photos: Path, tiny_model: str, tmp_path: Path) -> SweepConfig:
    given = config(photos, tiny_model, tmp_path / "out", {"method": ["ridge", "gda"]}, trials=1, test=False)
    commands.sweep(given)
    return given


def test_half_a_line_at_the_end_of_the_journal_is_cut_off(small: SweepConfig) -> None:
    with (small.out / "study.journal").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    assert len(commands.sweep(replace(small, trials=2)).trials) == 2


def test_a_damaged_journal_is_refused(small: SweepConfig) -> None:
    journal = small.out / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], "garbage\n", *lines[1:]]))
    with pytest.raises(RunError, match=r"study\.journal is damaged"):
        commands.sweep(small)


def test_trials_without_their_study_are_refused(small: SweepConfig) -> None:
    (small.out / "study.journal").unlink()
    with pytest.raises(RunError, match=r"has trials, but study\.journal is missing"):
        commands.sweep(small)


def test_a_run_folder_is_refused(small: SweepConfig) -> None:
    with pytest.raises(RunError, match="already contains a run"):
        commands.sweep(replace(small, out=small.out / "trials" / "0"))


@pytest.mark.parametrize(("engine", "package"), [("optuna", "optuna"), ("ray", "ray")])
def test_a_missing_package_is_named(
    engine: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a))
    file = tmp_path / "sweep.toml"
    file.write_text('[search]\nmethod = ["ridge", "gda"]\n')
    out = ["--out", str(tmp_path / "out"), "--engine", engine]
    assert cli.main(["sweep", "--config", str(file), "--data", str(tmp_path), *out]) == 2
    said = capsys.readouterr().err
    extra = {"optuna": "sweep", "ray": "ray"}[engine]
    assert f"requires the package {package}, which is not installed. Run: pip install 'clip-har[{extra}]'" in said


def test_errors_of_the_file_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.toml"
    for text, said in [
        ("[search\n", "is not valid TOML"),
        ('search = "lr"\n', "search is not a table"),
        ("trails = 3\n[search]\nlr = [0.1, 0.2]\n", "unknown key 'trails' (did you mean 'trials'?)"),
        ("trials = 0\n[search]\nlr = [0.1, 0.2]\n", "--trials must be at least 1, not 0"),
        ("", "There is nothing to search"),
    ]:
        file.write_text(text)
        assert cli.main(["sweep", "--config", str(file), "--data", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
        printed = capsys.readouterr().err
        assert said in printed and len(printed.splitlines()) == 1, printed
    missing = str(tmp_path / "none.toml")
    assert cli.main(["sweep", "--config", missing, "--data", str(tmp_path)]) == 2
    assert "Cannot read the config file" in capsys.readouterr().err


# --- what the best is worth -------------------------------------------------------------------------------


def test_the_optimism_is_about_what_selection_adds() -> None:
    """Candidates of one true accuracy: all that the best has more is luck."""
    draw = np.random.default_rng(0)
    added, estimated = [], []
    for _ in range(20):
        labels_N = np.zeros(200, dtype=np.int64)
        predictions_KN = (draw.random((8, 200)) > 0.7).astype(np.int64)
        added.append((predictions_KN == 0).mean(axis=1).max() - 0.7)
        estimated.append(selection_optimism(scores_of_predictions(predictions_KN, labels_N, "accuracy"), 200))
    assert np.mean(estimated) == pytest.approx(np.mean(added), rel=0.25)


def test_macro_f1_of_resamples_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    labels_N, predictions_KN = draw.integers(0, 4, 60), draw.integers(0, 5, (3, 60))
    rows = draw.integers(0, 60, 60)
    found = scores_of_predictions(predictions_KN, labels_N, "macro-f1")(rows)
    for score, predictions_N in zip(found, predictions_KN, strict=True):
        present = np.unique(labels_N[rows])
        wanted = f1_score(labels_N[rows], predictions_N[rows], labels=present, average="macro", zero_division=0)
        assert score == pytest.approx(wanted)


def test_predictions_are_packed_without_loss() -> None:
    assert unpack(pack(np.array([0, 70000, 3]))).tolist() == [0, 70000, 3]


def test_equal_scores_are_ranked_by_loss() -> None:
    trials = [
        SweepTrial(number=number, state="complete", params={}, score=0.5, loss=loss)
        for number, loss in enumerate((0.9, 0.7, 0.8))
    ]
    table = SweepTable(metric="accuracy", trials=tuple(trials), images=9, zero_shot=0.1, optimism=0.1)
    assert [trial.number for trial in table.ranking] == [1, 2, 0]
    assert table.expected == pytest.approx(0.4)
