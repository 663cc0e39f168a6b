"""`predict --out`: written as it comes, the same after an interruption, and never a mixture of two runs."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clip_har import cli, commands
from clip_har.config import BackboneConfig, DataConfig, PredictConfig, RunModelConfig, TrainConfig
from clip_har.csv_cells import true_cell
from clip_har.errors import ConfigError
from clip_har.experiment import prediction_file
from clip_har.experiment.predict_files import predict_into_file
from clip_har.predict import Predictor
from samples import CLASSES, HUES, write_image

MODEL = RunModelConfig(precision="float32", device="cpu")


@pytest.fixture(scope="module")
def runs(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same images that answer differently."""
    folder, cache = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("module-cache")
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=cache)
    data = DataConfig(data=photos)
    made = [
        commands.train(TrainConfig(data=data, backbone=backbone, method=method, out=folder / method)).folder
        for method in ("linear-probe", "zero-shot")
    ]
    return made[0], made[1]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["=1+1.png", "two,parts.png", 'quo"te.png', "line\nbreak.png", "sep\u2028arator.png", "plain.png"]
    for seed, name in enumerate(names):
        write_image(folder / name, HUES[CLASSES[seed % len(CLASSES)]], seed=4000 + seed)
    (folder / "page.jpg").write_text("<html>")
    return sorted(folder.iterdir())


def asked(out: Path, **changes: Any) -> PredictConfig:
    return PredictConfig(**{"out": out, "model": MODEL, "workers": 0, "batch_size": 2, "coverage": 0.9, **changes})


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return [{**row, "image": true_cell(row["image"])} for row in csv.DictReader(stream)]
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_holds_what_the_predictor_says(
    suffix: str, runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / f"answers{suffix}"
    counts = predict_into_file(runs[0], images, asked(out))
    assert (counts.answered, counts.unreadable, counts.before) == (6, 1, 0)
    answers = list(Predictor(runs[0], device="cpu", precision="float32").predict(images, top=3))
    rows = read(out)
    assert [row["image"] for row in rows] == [str(path) for path in images] == [answer.image for answer in answers]
    for row, answer in zip(rows, answers, strict=True):
        assert (row.get("label") or None) == answer.label and bool(row.get("error")) == bool(answer.error)
        if answer.label is not None:
            assert float(row["probability"]) == pytest.approx(answer.probability, rel=1e-5)
            assert row["possible"] if suffix == ".jsonl" else row["possible"].split("|")
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "images"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_after_an_interruption_the_file_ends_the_same(
    suffix: str,
    after: int,
    runs: tuple[Path, Path],
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    predict_into_file(runs[0], images, asked(whole))
    monkeypatch.setattr(prediction_file, "SAVE_EVERY", 0.0)
    add = prediction_file.PredictionFile.add
    calls: list[Any] = []

    def interrupted(self: prediction_file.PredictionFile, prediction: Any) -> None:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(prediction)
        add(self, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_file.PredictionFile, "add", interrupted)
        if after < len(images):
            with pytest.raises(KeyboardInterrupt):
                predict_into_file(runs[0], images, asked(out))
        else:
            patch.setattr(prediction_file.PredictionFile, "finish", lambda _: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(OSError, match="full"):
                predict_into_file(runs[0], images, asked(out))
    rows = out if suffix != ".parquet" else tmp_path / ".out.parquet.unfinished" / "rows.csv"
    with rows.open("ab") as stream:
        stream.write(b'"half of a ro')  # a kill between the row and the note
    counts = predict_into_file(runs[0], images, asked(out))
    assert (counts.answered, counts.unreadable, counts.before) == (6, 1, after // 2 * 2)
    if suffix == ".parquet":
        assert read(out) == read(whole)
    else:
        assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run, config: (run, config), "exists. Name a new file"),
        (lambda run, config: (run, replace(config, top=2)), "exists. Name a new file"),
    ],
)
def test_a_finished_file_is_not_touched(
    change: Callable[..., Any], said: str, runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    config = asked(tmp_path / "out.csv")
    predict_into_file(runs[0], images[:2], config)
    before = (tmp_path / "out.csv").read_bytes()
    run, again = change(runs[0], config)
    with pytest.raises(ConfigError, match=said):
        predict_into_file(run, images, again)
    assert (tmp_path / "out.csv").read_bytes() == before


def test_another_run_or_other_options_do_not_continue_a_file(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asked(tmp_path / "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(prediction_file.PredictionFile, "finish", lambda self: self._save())
        predict_into_file(runs[0], images[:2], config)
    before = (tmp_path / "out.csv").read_bytes()
    for run, other in ((runs[1], config), (runs[0], replace(config, top=2)), (runs[0], replace(config, coverage=0.8))):
        with pytest.raises(ConfigError, match="begun with another run or other options"):
            predict_into_file(run, images, other)
    assert (tmp_path / "out.csv").read_bytes() == before
    note = tmp_path / ".out.csv.unfinished" / "note.json"
    note.write_text(note.read_text().replace('"bytes"', '"bites"'))
    with pytest.raises(ConfigError, match="is damaged"):
        predict_into_file(runs[0], images, config)


def test_two_processes_do_not_write_one_file(runs: tuple[Path, Path], images: list[Path], tmp_path: Path) -> None:
    from clip_har.checkpoint import load_run

    config, run = asked(tmp_path / "out.csv"), load_run(runs[0])
    with (
        prediction_file.PredictionFile(tmp_path / "out.csv", run, config),
        pytest.raises(ConfigError, match="Another process is writing"),
    ):
        predict_into_file(runs[0], images, config)


def test_a_file_of_an_unknown_kind_is_refused(runs: tuple[Path, Path], images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of \.csv, \.jsonl, \.parquet"):
        predict_into_file(runs[0], images, asked(tmp_path / "out.xlsx"))
    with pytest.raises(ConfigError, match="--json prints the predictions and --out writes them"):
        predict_into_file(runs[0], images, asked(tmp_path / "out.csv", json=True))


def test_workers_give_the_same_answers_in_the_same_order(
    runs: tuple[Path, Path], images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_har.images import lenient_batches

    monkeypatch.setattr(lenient_batches, "WORTH_A_PROCESS", 2)
    predictor = Predictor(runs[0], device="cpu", precision="float32")
    many = [images[index % len(images)] for index in range(23)]
    alone = list(predictor.predict(many, batch_size=3))
    assert list(predictor.predict(iter(many), batch_size=3, workers=2)) == alone


def test_in_a_pipe_a_line_per_image_is_printed(
    runs: tuple[Path, Path], images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", str(runs[0]), *map(str, images), "--precision", "float32", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.split("\n")[:-1]
    answers = [answer for answer in Predictor(runs[0], precision="float32").predict(images, top=3) if not answer.error]
    assert len(lines) == len(answers) == 6
    for line, answer in zip(lines, answers, strict=True):
        fields = line.split("\t")
        assert fields[1] == answer.label and float(fields[2]) == pytest.approx(answer.probability, abs=1e-4)
        assert len(fields) == 5
    assert lines[-1].startswith(str(images[3])) or "plain.png" in "".join(lines)


SEEN = """
import json, sys
from clip_har.cli import runner
runner.light_imports.enable()
code = runner.main(["predict", *sys.argv[1:]])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules} | {name for name in sys.modules})]))
"""
NOT_NEEDED = ("transformers", "timm", "sklearn", "scipy", "wandb", "matplotlib", "pandas", "torch._dynamo", "peft")


def test_predict_imports_no_package_that_it_does_not_need(runs: tuple[Path, Path], images: list[Path]) -> None:
    command = [sys.executable, "-c", SEEN, str(runs[0]), str(images[-1]), "--precision", "float32"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    code, modules = json.loads(found.stdout.splitlines()[-1])
    assert code == 0, found.stderr
    assert [name for name in NOT_NEEDED if name in modules] == []
