"""`predict --out`: written as it comes, the same after an interruption, and never a mixture of two runs."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from clip_har import cli, commands
from clip_har.config import BackboneConfig, DataConfig, PredictConfig, RunModelConfig, TrainConfig
from clip_har.csv_cells import true_cell
from clip_har.errors import ConfigError
from clip_har.experiment import prediction_file, prediction_table
from clip_har.experiment.predict_files import predict_into_file
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.progress import Silent
from forked import Server
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


class Said(Silent):
    """What was noted or warned of."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    warn = note


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
    rows = out if suffix != ".parquet" else tmp_path / ".out.parquet.unfinished" / "rows.jsonl"
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
        (lambda run, config: (run, config), "exists. Pass --overwrite to replace it"),
        (lambda run, config: (run, replace(config, top=2)), "exists. Pass --overwrite to replace it"),
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
    for run, other, said in (
        (
            runs[1],
            config,
            "with a run of linear-probe, not with a run of zero-shot. Pass --overwrite to start it again",
        ),
        (runs[0], replace(config, top=2), "with --top 3, not with --top 2"),
        (runs[0], replace(config, coverage=None, accuracy=0.1), "with --coverage 0.9 and no --accuracy, not"),
    ):
        with pytest.raises(ConfigError, match=f"out.csv was started {said}"):
            predict_into_file(run, images, other)
    assert (tmp_path / "out.csv").read_bytes() == before
    note = tmp_path / ".out.csv.unfinished" / "note.json"
    note.write_text(note.read_text().replace('"bytes"', '"bites"'))
    with pytest.raises(ConfigError, match="is damaged"):
        predict_into_file(runs[0], images, config)


def unfinished(runs: tuple[Path, Path], images: list[Path], config: PredictConfig, *, rows: int) -> None:
    """Leave a file as a kill would, some rows behind its last note."""
    with pytest.MonkeyPatch.context() as patch:
        add, calls = prediction_file.PredictionFile.add, iter(range(rows))

        def interrupted(self: prediction_file.PredictionFile, prediction: Any) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            add(self, prediction)

        patch.setattr(prediction_file, "SAVE_EVERY", 0.0)
        patch.setattr(prediction_file.PredictionFile, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_into_file(runs[0], images, config)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_cut_off_anywhere_is_continued_to_the_same_bytes(
    suffix: str, runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    """Also below what the note counts as valid, as after a power cut; down to the middle of the header."""
    predictor = Predictor(runs[0], device="cpu", precision="float32")
    answers = {answer.image: answer for answer in predictor.predict(images, caution=AbstentionPolicy(coverage=0.9))}
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"

    def written(path: Path, most: int = 99) -> prediction_file.PredictionFile:
        with prediction_file.PredictionFile(path, predictor.run, asked(path)) as file:
            for image in islice(file.remaining(images), most):
                file.add(answers[str(image)])
            if most > len(images):
                file.finish()
        return file

    written(whole)
    written(out, 5)
    state = prediction_file.state_of(out)
    shutil.copytree(state, tmp_path / "kept")
    rows = out.read_bytes()
    assert whole.read_bytes().startswith(rows)
    lines = rows.splitlines(keepends=True)
    first, last_two = len(lines[0]), len(rows) - len(lines[-1]) - len(lines[-2])
    for size in [*range(0, last_two, 7), *range(first - 2, first + 3), *range(last_two - 2, len(rows) + 1)]:
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", state)
        out.write_bytes(rows[:size])
        counts = written(out).counts
        assert out.read_bytes() == whole.read_bytes(), size
        assert counts.answered + counts.unreadable == len(images) and not state.exists()
        assert counts.before == (4 if size >= len(rows) - len(rows.splitlines()[-1]) else counts.before)
    assert counts.before == 4


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_image_that_is_named_twice_has_two_rows(
    suffix: str, runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    out, named = tmp_path / f"out{suffix}", [*images[:3], *images[:3], images[0]]
    unfinished(runs, named, asked(out), rows=5)
    predict_into_file(runs[0], named, asked(out))
    assert [row["image"] for row in read(out)] == list(map(str, named))


def test_images_that_changed_meanwhile_have_one_row_each(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    out, said = tmp_path / "out.csv", Said()
    unfinished(runs, images, asked(out), rows=4)
    now = [images[0], images[5], images[3], images[5], images[2], images[4]]  # images[1] was written and has gone
    counts = predict_into_file(runs[0], now, asked(out), progress=said)
    found = [row["image"] for row in read(out)]
    assert counts.before == 4 and found[:4] == list(map(str, images[:4]))
    assert found[4:] == [str(images[5]), str(images[5]), str(images[4])]
    assert [line for line in said.lines if "no longer the same" in line and "3 rows" in line] and len(said.lines) == 2


def test_parquet_has_the_content_of_json_lines(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_table, "PART", 3)
    for suffix in (".jsonl", ".parquet"):
        predict_into_file(runs[0], images, asked(tmp_path / f"out{suffix}", reject_unknown=0.5, accuracy=0.2, top=2))
    lines, rows = read(tmp_path / "out.jsonl"), read(tmp_path / "out.parquet")
    assert len(lines) == len(rows) == 7 and any(line.get("unknown") for line in lines)
    for line, row in zip(lines, rows, strict=True):
        for name in ("image", "label", "probability", "confidence", "warning", "error"):
            assert row[name] == line.get(name), name
        assert (row["unsure"], row["unknown"]) == (line.get("unsure", False), line.get("unknown", False))
        assert row["possible"] == ("|".join(line.get("possible", ())) or None)
        for rank in (1, 2):
            known = line["top"][rank - 1] if "top" in line else {"label": None, "probability": None}
            assert {key: row[f"{key}_{rank}"] for key in known} == known


def test_overwrite_replaces_what_is_finished_or_anothers_and_continues_its_own(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    out, again = tmp_path / "out.csv", asked(tmp_path / "out.csv", overwrite=True, top=1)
    predict_into_file(runs[0], images, asked(out))
    before = out.read_bytes()
    assert predict_into_file(runs[0], images, again).before == 0
    assert out.read_bytes() != before
    out.unlink()
    unfinished(runs, images, asked(out), rows=4)
    assert predict_into_file(runs[0], images, again).before == 0  # other options
    unfinished(runs, images, again, rows=4)
    assert predict_into_file(runs[0], images, replace(again, overwrite=False)).before == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.csv"]


def test_a_file_that_was_removed_is_started_again_and_a_damaged_row_refused(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    unfinished(runs, images, asked(out), rows=4)
    out.unlink()
    assert predict_into_file(runs[0], images, asked(out)).before == 0
    out.unlink()
    unfinished(runs, images, asked(out), rows=4)
    text = out.read_bytes()
    out.write_bytes(text[:20] + b"\0\0" + text[22:])
    with pytest.raises(ConfigError, match=r"Row 1 of .*out\.jsonl is damaged\. Remove the file to start again"):
        predict_into_file(runs[0], images, asked(out))


def test_a_kill_at_the_end_of_a_parquet_file_loses_nothing(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(prediction_file, "write_parquet", killed)  # before the file is there
        with pytest.raises(KeyboardInterrupt):
            predict_into_file(runs[0], images, asked(out))
    assert not out.exists()
    unlink = Path.unlink
    with monkeypatch.context() as patch:  # before the note is removed
        patch.setattr(
            Path, "unlink", lambda self, **given: (killed if self.name == "note.json" else unlink)(self, **given)
        )
        with pytest.raises(KeyboardInterrupt):
            predict_into_file(runs[0], images, asked(out))
    assert len(read(out)) == 7 and prediction_file.state_of(out).is_dir()
    assert predict_into_file(runs[0], images, asked(out)).before == 7
    assert len(read(out)) == 7 and sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.parquet"]


KILLS = 3


@pytest.mark.slow  # starts a process for each kill
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_process_that_is_killed_at_any_moment_is_continued(
    suffix: str, server: Server, runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    listed, whole, out = tmp_path / "list", tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    named = [images[number % len(images)] for number in range(1_000)]
    listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in named))
    rows = out if suffix != ".parquet" else prediction_file.state_of(out) / "rows.jsonl"
    size = 0
    for attempt in range(KILLS + 1):
        target = whole if attempt == KILLS else out
        flags = ["--precision", "float32", "--device", "cpu", "--workers", "0", "--null", "--out", str(target)]
        command = ["predict", str(runs[0]), "-", *flags]
        with server.started(command, log=tmp_path / "log", given=listed) as process:
            enough = size + random.Random(time.time_ns()).uniform(10_000, 60_000)  # of some 150,000 bytes in all
            while attempt < KILLS - 1 and process.poll(0.01) is None:
                if rows.exists() and rows.stat().st_size >= enough:
                    size = rows.stat().st_size
                    process.send(signal.SIGKILL)
            code = process.wait()
        assert code in ((0, -signal.SIGKILL) if attempt < KILLS - 1 else (0,)), process.errors_so_far()
    if suffix == ".parquet":
        assert read(out) == read(whole)
    else:
        assert out.read_bytes() == whole.read_bytes()
    assert [row["image"] for row in read(out)] == list(map(str, named))


def test_what_is_written_among_the_images_is_not_one_of_them(
    runs: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    folder = images[0].parent
    out = folder / "a.csv"
    config = asked(out, sort_into=folder / "by class")
    unfinished(runs, [folder], config, rows=4)
    predict_into_file(runs[0], [folder], config)
    assert [row["image"] for row in read(out)] == list(map(str, images))


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
    monkeypatch.setattr(lenient_batches, "TOGETHER", 8)  # no multiple of a batch, which must stay whole all the same
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
NOT_NEEDED: tuple[str, ...] = (
    "transformers",
    "timm",
    "sklearn",
    "scipy",
    "wandb",
    "matplotlib",
    "pandas",
    "torch._dynamo",
    "peft",
)
NOT_NEEDED += (
    "huggingface_hub.file_download",
    "huggingface_hub.hf_api",
    "torchvision.models",
    "torchvision.datasets",
    "clip_har.commands",
    "pyarrow",
)


def test_predict_imports_no_package_that_it_does_not_need(runs: tuple[Path, Path], images: list[Path]) -> None:
    command = [sys.executable, "-c", SEEN, str(runs[0]), str(images[-1]), "--precision", "float32"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    code, modules = json.loads(found.stdout.splitlines()[-1])
    assert code == 0, found.stderr
    assert [name for name in NOT_NEEDED if name in modules] == []
