"""The historic commands, with the flags people have in their notes."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_har import historic
from clip_har.errors import DataError
from clip_har.historic import evaluate_clip_har, evaluate_lora_clip, main, main_clip, train_clip_lora

SCRIPTS = Path(__file__).parent.parent / "scripts"
SMALL = ["--batch_size", "16", "--epochs", "2", "--lr", "1e-3", "--rank", "16", "--alpha", "32"]


@pytest.fixture
def checkpoint_dir(photos: Path, tiny_model: str, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints" / "clip_lora_15e"
    argv = ["--data_dir", str(photos), "--model_name", tiny_model, *SMALL, "--checkpoint_dir", str(folder)]
    assert main(train_clip_lora, argv) == 0
    return folder


def test_train_and_evaluate_as_in_the_historic_readme(
    photos: Path, tiny_model: str, checkpoint_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results" / "lora_results.csv"
    argv = ["--data_dir", str(photos), "--checkpoint", str(checkpoint_dir / "clip_lora_best.pt")]
    argv += ["--model_name", tiny_model, "--rank", "16", "--alpha", "32", "--output_csv", str(output)]
    assert main(evaluate_lora_clip, argv) == 0
    with output.open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["Metric", "Value", "Type"]
    assert {row["Type"] for row in rows} == {"baseline", "finetuned", "difference"}
    with (output.parent / "lora_results_confusion_matrix.csv").open() as stream:
        matrix = list(csv.reader(stream))
    assert len(matrix) == 4 and len(matrix[0]) == 4


@pytest.mark.parametrize("checkpoint", ["", "adapter_model.safetensors", "clip_lora_best.pt"])
def test_the_checkpoint_is_the_run_folder_or_a_file_in_it(
    checkpoint: str, photos: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    argv = ["--data_dir", str(photos), "--checkpoint", str(checkpoint_dir / checkpoint)]
    assert main(evaluate_clip_har, [*argv, "--save_dir", str(tmp_path / "results")]) == 0
    assert (tmp_path / "results" / "report.html").is_file()
    assert (tmp_path / "results" / "confusion_matrix_baseline.png").is_file()


def test_without_a_checkpoint_the_baseline_alone(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    argv = ["--data_dir", str(photos), "--model_name", tiny_model, "--save_dir", str(tmp_path / "results")]
    assert main(evaluate_clip_har, argv) == 0
    assert not (tmp_path / "results" / "confusion_matrix_baseline.png").exists()


def test_another_rank_than_the_runs_is_refused(
    photos: Path, tiny_model: str, checkpoint_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data_dir", str(photos), "--checkpoint", str(checkpoint_dir), "--model_name", tiny_model]
    assert main(evaluate_lora_clip, [*argv, "--rank", "8"]) == 2
    assert "was trained with rank 16, not 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "argv", "said"),
    [
        (train_clip_lora, ["--data_dir", "nowhere"], "nowhere"),
        (train_clip_lora, ["--data_dir", "nowhere", "--batch_size", "0"], "--batch_size must be"),
        (train_clip_lora, ["--data_dir", "PHOTOS", "--checkpoint_dir", "FILE"], "--checkpoint_dir FILE is a file"),
        (evaluate_clip_har, ["--data_dir", "PHOTOS", "--save_dir", "FILE"], "--save_dir FILE is a file"),
        (main_clip, ["--data_dir", "PHOTOS", "--checkpoint_dir", "FILE"], "--checkpoint_dir FILE is a file"),
    ],
)
def test_errors_name_the_flags_that_were_typed(
    command: Callable[..., int],
    argv: list[str],
    said: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "file"
    file.touch()
    places = {"PHOTOS": str(photos), "FILE": str(file)}
    assert main(command, [places.get(word, word) for word in argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("clip-har: ")]
    assert said.replace("FILE", str(file)) in line
    assert not re.search(r"--(data|out|model|batch-size)(?![\w-])", line)


def test_a_remedy_that_the_script_has_no_flag_for_names_the_config_file(tmp_path: Path) -> None:
    @historic._flags_as_typed()
    def command(*, data_dir: Path, config: Path | None = None) -> int:
        raise DataError(f"--data {data_dir} is odd", remedy="Use fewer --workers, or another --data.")

    with pytest.raises(DataError) as caught:
        command(data_dir=tmp_path)
    assert str(caught.value) == (
        f"--data_dir {tmp_path} is odd. Use fewer --workers, or another --data_dir. This script has no --workers: set "
        "it in a --config file."
    )


def test_training_again_continues_instead_of_failing(
    photos: Path, tiny_model: str, checkpoint_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data_dir", str(photos), "--model_name", tiny_model, *SMALL]
    assert main(train_clip_lora, [*argv, "--checkpoint_dir", str(checkpoint_dir)]) == 0
    assert "already finished" in capsys.readouterr().err


def test_main_trains_then_evaluates(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    argv = ["--data_dir", str(photos), "--model_name", tiny_model, "--epochs", "2"]
    argv += ["--checkpoint_dir", str(tmp_path / "c"), "--output_csv", str(tmp_path / "out.csv")]
    assert main(main_clip, argv) == 0
    assert (tmp_path / "out.csv").is_file() and (tmp_path / "out_confusion_matrix.csv").is_file()


@pytest.mark.parametrize("name", ["train_clip_lora", "evaluate_lora_clip", "evaluate_clip_har", "main_clip"])
def test_each_script_calls_its_command(name: str) -> None:
    script = SCRIPTS / f"{name}.py"
    assert f"historic.main(historic.{name})" in script.read_text()
    assert callable(getattr(historic, name))


def test_a_script_runs_on_its_own_and_refuses_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "main_clip.py", "--data_dir", "/no/such/folder"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("clip-har: Dataset not found: /no/such/folder")
