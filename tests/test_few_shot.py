"""`compare --shots 1,2`: a comparison for each number of images, their table against the runs, and what is reused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_har import cli, commands
from clip_har.commands.compare import Comparison
from clip_har.config import BackboneConfig, CompareConfig, DataConfig
from test_workflows import Heard

METHODS = ("zero-shot", "ridge", "tip-adapter")


def config(photos: Path, model: str, out: Path) -> CompareConfig:
    return CompareConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        methods=METHODS,
        shots=(2, 1),
        seeds=(0, 3),
        out=out,
    )


@pytest.fixture(name="compared", scope="module")
def fixture_compared(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("few")
    return commands.compare(config(photos, tiny_model, out), command="clip-har compare --shots 2,1")


def accuracy_of(run: Path) -> float:
    found = json.loads((run / "eval" / "results.json").read_text())
    return float((found.get("finetuned") or found["baseline"])["accuracy"])


def test_each_method_number_and_seed_has_a_run_folder(compared: Comparison) -> None:
    assert {path.name for path in compared.out.iterdir() if not path.name.startswith(".")} == {
        *("few_shot.csv", "few_shot.json", "few_shot.png", "report.html", "shots-1", "shots-2"),
    }
    for shots in (1, 2):
        runs = compared.out / f"shots-{shots}" / "runs"
        expected = {"zero-shot", "ridge", "ridge-seed-3", "tip-adapter", "tip-adapter-seed-3"}
        assert {path.name for path in runs.iterdir()} == expected
        assert json.loads((runs / "ridge-seed-3" / "config.json").read_text())["shots"] == shots


def test_the_table_has_mean_and_standard_deviation_over_the_seeds(compared: Comparison) -> None:
    table = compared.few_shot
    assert table is not None and table.shots == (1, 2) and table.seeds == (0, 3)
    assert [method.name for method in table.methods] == ["ridge", "tip-adapter"]
    assert table.zero_shot == pytest.approx(accuracy_of(compared.out / "shots-1" / "runs" / "zero-shot"))
    with (compared.out / "few_shot.csv").open() as stream:
        rows = {(row["method"], row["shots"]): row for row in csv.DictReader(stream)}
    assert set(rows) == {("zero-shot", "0"), *((name, n) for name in ("ridge", "tip-adapter") for n in "12")}
    written = json.loads((compared.out / "few_shot.json").read_text())
    for method in written["methods"]:
        assert [result["shots"] for result in method["results"]] == [1, 2]
        for result in method["results"]:
            runs = compared.out / f"shots-{result['shots']}" / "runs"
            each = [accuracy_of(runs / f"{method['method']}{seed}") for seed in ("", "-seed-3")]
            assert result["accuracies"] == pytest.approx(each)
            row = rows[method["method"], str(result["shots"])]
            for found in (result, row):
                assert float(found["accuracy"]) == pytest.approx(np.mean(each), rel=1e-5)
                assert float(found["accuracy_std"]) == pytest.approx(np.std(each, ddof=1), rel=1e-5)


def test_the_report_links_to_the_comparison_of_each_number(compared: Comparison) -> None:
    page = (compared.out / "report.html").read_text()
    for shots in (1, 2):
        assert f'<a href="shots-{shots}/report.html">{shots} per class</a>' in page
        assert (compared.out / f"shots-{shots}" / "report.html").is_file()
    assert "is the most accurate with 2 training images per class" in page
    assert "over seeds 0, 3" in page and "clip-har compare --shots 2,1" in page


def test_a_second_command_reuses_the_runs_and_trains_what_is_missing(
    photos: Path, tiny_model: str, compared: Comparison
) -> None:
    cards = {path: path.stat().st_mtime_ns for path in compared.out.glob("shots-*/runs/*/card.json")}
    heard = Heard()
    again = commands.compare(replace(config(photos, tiny_model, compared.out), shots=(1, 4)), progress=heard)
    assert sum("reused from" in note for note in heard.notes) == 5
    assert all(path.stat().st_mtime_ns == time for path, time in cards.items())
    table, before = again.few_shot, compared.few_shot
    assert table is not None and before is not None and table.shots == (1, 4)
    for method, earlier in zip(table.methods, before.methods, strict=True):
        assert method.rows[1].accuracies == earlier.rows[1].accuracies


def test_one_number_is_an_ordinary_comparison_with_the_same_accuracy(
    photos: Path, tiny_model: str, compared: Comparison, tmp_path: Path
) -> None:
    single = commands.compare(replace(config(photos, tiny_model, tmp_path), shots=2, methods=("ridge",)))
    assert single.few_shot is None
    assert (tmp_path / "comparison.csv").is_file() and not (tmp_path / "few_shot.csv").exists()
    assert compared.few_shot is not None
    assert single.rows[0].accuracies == compared.few_shot.methods[0].rows[2].accuracies


def test_the_terminal_shows_the_table_and_small_classes_are_named(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["compare", "--data", str(photos), "--model", tiny_model, "--methods", "zero-shot,ridge", "--shots", "1,99"]
    assert cli.main([*argv, "--workers", "0", "--precision", "float32", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    header = next(line for line in lines if line.startswith("images per class"))
    assert header.split() == ["images", "per", "class", "1", "99"]
    assert any(line.startswith("ridge") and line.count("%") == 2 for line in lines)
    assert "larger numbers of --shots use all of them" in said.err
