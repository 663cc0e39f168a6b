"""The command line: what it prints, its exit codes, and one helpful line for every wrong input."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from clip_har import __version__, cli, commands
from clip_har.cli.app import app
from clip_har.config import METHOD_NAMES
from clip_har.console import Output
from forked import Server
from permissions import permissions_hold
from samples import CLASSES, HUES, MODEL_CONFIG, write_dataset, write_image, write_model

COMMANDS = ("quickstart", "train", "evaluate", "compare", "predict", "video", "embed")


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must exit with 2 after one line on standard error, and return that line."""
    code = cli.main(list(argv))
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("clip-har:")]
    assert code == 2, captured.err
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.fixture
def run(photos: Path, tiny_model: str, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    argv = ["train", "--data", str(photos), "--model", tiny_model, "--epochs", "2", "--out", str(out)]
    assert cli.main([*argv, "--workers", "0"]) == 0
    return out


# --- help -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_each_flag_and_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"clip-har {command}" in out
    assert "Example:" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", ["compare", "evaluate", "train", "data split"])
def test_defaults_are_shown_as_they_are_written(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not re.search(r"\[default: (None|\(|\[|\])", text)
    assert ("[default: zero-shot, linear-probe, lora]" in text) == (command == "compare")
    assert ("[default: 1, 2, 3, 4, 5]" in text) == (command == "evaluate")


def test_help_does_not_import_torch() -> None:
    code = "import sys; from clip_har import cli; cli.main(['train', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


# --- wrong input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["tran"], 'Did you mean "train"?'),
        (["train", "--data", "d", "--epoch", "3"], "Did you mean --epochs?"),
        (["train", "--dat", "d"], "Did you mean --data?"),
        (["train"], "--data is needed"),
        (["train", "--data", "d", "--epochs", "many"], '"many" into int'),
        (["train", "--data", "d", "--method", "loar"], "loar"),
        (["train", "--data", "d", "--loss", "mse"], "cross-entropy"),
        (["compare", "--data", "d", "--methods", "lora,zeroshot"], "did you mean 'zero-shot'?"),
        (["compare", "--data", "d", "--methods", "lora,lora"], "lists a method twice"),
        (
            ["improt"],
            'Did you mean "import"? Available commands: data, quickstart, train, evaluate, compare, sweep, prompts',
        ),
        (["foo"], "explain, predict, video, embed, serve, import, export. See clip-har --help."),
        (["data", "foo"], "Available commands: fetch, audit, clean, split, verify. See clip-har data --help."),
        (["predict"], "RUN"),
        (["predict", "run"], "No image is named"),
        (["train", "--data", "/no/such/folder"], "Dataset not found: /no/such/folder"),
    ],
)
def test_a_wrong_command_line_is_one_helpful_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *argv)


def test_all_values_out_of_range_are_named_together(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "--data", "d", "--epochs", "0", "--lr=-1", "--rank", "0", "--dropout", "1")
    assert all(flag in line for flag in ("--epochs", "--lr", "--rank", "--dropout"))


def test_an_empty_class_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: str) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "train" / "texting").mkdir()
    line = refused(capsys, "train", "--data", str(data), "--model", tiny_model, "--out", str(tmp_path / "o"))
    assert str(data / "train" / "texting") in line
    assert not (tmp_path / "o").exists(), "a refused command leaves nothing behind"


def test_a_single_class_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "running" / "a.png", HUES["running"], seed=1)
    line = refused(capsys, "train", "--data", str(tmp_path / "data"))
    assert "only the class 'running'" in line and "at least two" in line


def test_a_run_of_another_model_is_refused(
    capsys: pytest.CaptureFixture[str], run: Path, photos: Path, tmp_path: Path
) -> None:
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    other = write_model(tmp_path / "other", MODEL_CONFIG, seed=5)
    line = refused(capsys, "evaluate", "--data", str(photos), "--checkpoint", str(run), "--model", other)
    assert "was trained on" in line and "--model" in line


def test_a_misspelt_config_key_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"epocs": 3, "batchsize": 2}')
    line = refused(capsys, "train", "--data", "d", "--config", str(config))
    assert "'epocs' (did you mean 'epochs'?)" in line and "'batch_size'" in line


def test_a_run_folder_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], run: Path, photos: Path, tiny_model: str
) -> None:
    capsys.readouterr()
    line = refused(capsys, "train", "--data", str(photos), "--model", tiny_model, "--out", str(run))
    assert "already contains a run" in line and "--resume" in line


def test_a_folder_that_may_not_be_written_to_is_one_line(
    capsys: pytest.CaptureFixture[str], photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    out = tmp_path / "closed" / "run"
    with permissions_hold():
        line = refused(capsys, "train", "--data", str(photos), "--model", tiny_model, "--out", str(out))
    assert "Permission denied" in line


def test_our_own_fault_is_a_traceback_and_exit_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "train", lambda *_, **__: 1 / 0)
    assert cli.main(["train", "--data", "d"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "please report" in err


# --- config files ---------------------------------------------------------------------------------------


def test_flags_win_over_the_config_file_and_underscores_are_hyphens(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    historic = tmp_path / "config_har.json"
    content = {
        "model_name": tiny_model,
        "batch_size": 16,
        "epochs": 20,
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "warmup_epochs": 2,
        "optimization": {
            "vision_lr_multiplier": 1.0,
            "text_lr_multiplier": 0.1,
            "projection_lr_multiplier": 1.0,
        },
    }
    historic.write_text(json.dumps(content))
    out = tmp_path / "run"
    argv = ["train", "--data", str(photos), "--config", str(historic), "--epochs", "3", "--out", str(out)]
    assert cli.main([*argv, "--val_fraction", "0.2", "--workers=0"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["epochs"] == 3
    assert config["batch_size"] == 16
    assert config["lr"] == 5e-4
    assert config["text_lr_multiplier"] == 0.1
    assert config["warmup_epochs"] == 2
    assert config["val_fraction"] == 0.2


def test_a_runs_own_config_file_makes_the_run_again(run: Path, tmp_path: Path) -> None:
    argv = ["train", "--config", str(run / "config.json"), "--out", str(tmp_path / "again")]
    assert cli.main(argv) == 0
    weights = [folder / "adapter_model.safetensors" for folder in (run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# --- output ---------------------------------------------------------------------------------------------


def test_compare_prints_a_row_per_method_and_where_the_report_is(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["compare", "--data", str(photos), "--model", tiny_model, "--methods", "zero-shot,linear-probe"]
    assert cli.main([*argv, "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert "zero-shot" in out and "linear-probe" in out and "18 test images" in out
    assert str(tmp_path / "out" / "report.html") in out


def test_predict_as_json(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "in" / "a b ü.png", HUES["running"], seed=1)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"")
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(tmp_path / "in"), "--json", "--top", "2"]) == 0
    captured = capsys.readouterr()
    good, bad = json.loads(captured.out)
    assert good["image"].endswith("a b ü.png") and good["label"] in CLASSES and len(good["top"]) == 2
    assert bad["error"] == "empty file"
    assert captured.err.strip().splitlines()[-1].endswith("bad.jpg: empty file")


def test_predict_shows_sets_and_says_unsure(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "photo.png", HUES["running"], seed=1)
    monkeypatch.setattr(Output, "is_terminal", True)
    capsys.readouterr()
    argv = ["predict", str(run), str(tmp_path / "photo.png"), "--confidence", "0.95", "--abstain-below", "1.0"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "possible" in out and "unsure" in out and all(label in out for label in CLASSES)
    assert cli.main([*argv, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["unsure"] is True and answer["label"] is None and sorted(answer["possible"]) == sorted(CLASSES)
    assert cli.main([*argv[:3], "--confidence", "95"]) == 2
    assert "--coverage 95.0 is not between 0 and 1" in capsys.readouterr().err


def test_predict_with_nothing_readable_exits_with_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    assert cli.main(["predict", str(run), str(tmp_path / "bad.jpg")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_evaluate_prints_both_columns(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["evaluate", "--data", str(photos), "--checkpoint", str(run), "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("zero-shot", "lora", "macro F1", "McNemar p"))
    assert re.search(r"^lora: [+-]\d+\.\d\d percentage points over zero-shot, McNemar p ", out, re.MULTILINE)


# --- interruption ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_exits_130_and_its_printed_command_finishes_it(
    kind: signal.Signals, server: Server, photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = ["train", "--data", str(photos), "--model", tiny_model, "--epochs", "4000", "--out", str(out)]
    with server.started([*argv, "--workers", "0", "--precision", "float32"], log=tmp_path / "log") as process:
        deadline = time.monotonic() + 240
        while not list((out / "last").glob("step-000000[1-9]*")) and time.monotonic() < deadline:
            assert process.poll(0.05) is None, process.errors_so_far()
        process.send(kind)
        assert process.wait(60) == 130, process.errors_so_far()
    err = process.errors_so_far()
    assert err.strip().splitlines()[-1].endswith("--resume")
    assert "Traceback" not in err
    log = (out / "log.jsonl").read_text().splitlines()
    assert len(log) >= 10
    assert not (out / "card.json").exists()


@pytest.mark.parametrize(
    "command", ["train", "compare", "evaluate", "predict", "video", "data split", "data audit", "import"]
)
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fills_the_width_in_groups(command: str, columns: int) -> None:
    written = io.StringIO()
    app.help_print(command.split(), console=Console(width=columns, height=50, file=written, color_system=None))
    shown = written.getvalue()
    assert max(map(len, shown.splitlines())) <= columns
    assert "--empty-" not in shown and "[default: ()]" not in shown
    if command == "train":
        groups = [line.split("─")[1].strip() for line in shown.splitlines() if line.startswith("╭─")]
        assert groups[:3] == ["Parameters", "Data", "Pretrained model"] and len(groups) == 7
        flat = " ".join(shown.replace("│", " ").split())
        for name in METHOD_NAMES:
            assert name in flat
        # A description has no line breaks of its own: its lines are filled.
        assert columns < 80 or "a table of paths and classes; a Hugging Face dataset" in flat
