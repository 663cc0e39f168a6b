"""What `predict` prints: each format, lists on standard input, and what could not be read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from clip_har import cli, commands
from clip_har.cli import printing
from clip_har.config import BackboneConfig, DataConfig, TrainConfig
from clip_har.console import Output
from samples import CLASSES, HUES, write_image


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    cache = tmp_path_factory.mktemp("module-cache")
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=cache)
    out = tmp_path_factory.mktemp("runs") / "probe"
    return str(
        commands.train(
            TrainConfig(data=DataConfig(data=photos), backbone=backbone, method="linear-probe", out=out)
        ).folder
    )


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for seed, label in enumerate(CLASSES):
        write_image(tmp_path / "images" / f"{seed}.png", HUES[label], seed=4000 + seed)
    (tmp_path / "images" / "9.jpg").write_text("<html>")
    return sorted((tmp_path / "images").iterdir())


def predicted(*arguments: str) -> int:
    return cli.main(["predict", *arguments, "--precision", "float32", "--device", "cpu", "--workers", "0"])


def test_json_lines_and_csv_have_a_row_for_each_image(
    run: str, images: list[Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for form in ("jsonl", "csv"):
        assert predicted(run, str(images[0].parent), "--format", form) == 0
        printed = capfdbinary.readouterr()
        assert printed.err == b""
        out = tmp_path / f"out.{form}"
        assert predicted(run, str(images[0].parent), "--out", str(out)) == 0
        assert printed.out == out.read_bytes()
        capfdbinary.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out.decode(), newline="")))
    assert [row["image"] for row in rows] == list(map(str, images)) and rows[-1]["error"]


def test_paths_come_from_standard_input(
    run: str, images: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for end, flags in (("\n", []), ("\0", ["-0"]), ("\0", ["--null"])):
        text = end.join([*map(str, images[:2]), ""])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert predicted(run, str(images[2]), *flags, "-", "--format=jsonl") == 0
        printed = [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()]
        assert printed == list(map(str, (images[2], *images[:2])))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert predicted(run, "-") == 2
    assert "No image is named" in capsys.readouterr().err
    assert predicted(run, "--nul", "-") == 2
    assert "--nul" in capsys.readouterr().err


def test_a_folder_of_unreadable_files_exits_with_2_and_has_a_row_each(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / "bad" / f"{number}.jpg").parent.mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"")
    assert predicted(run, str(tmp_path / "bad")) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[-1] == "3 of 3 images cannot be read"
    assert said.err.count("empty file") == 3
    assert predicted(run, str(tmp_path / "bad"), "--out", str(tmp_path / "out.csv")) == 2
    assert "3 images: 0 classified, 3 unreadable" in capsys.readouterr().out
    assert (tmp_path / "out.csv").read_text().count("empty file") == 3


def test_many_images_fill_several_tables(
    run: str, images: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "is_terminal", True)
    monkeypatch.setattr(printing, "AT_ONCE", 2)
    monkeypatch.setattr(printing, "WORTH_A_BAR", 2)
    assert predicted(run, *map(str, images)) == 0
    said = capsys.readouterr()
    assert said.out.count("probability") == 2 and "cannot read" in said.err
    assert all(path.name in said.out for path in images[:3])


def test_images_are_sorted_into_folders(
    run: str, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sort-into", str(tmp_path / "sorted")]
    assert predicted(run, str(images[0].parent), "--format", "jsonl", *flags) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = {f"{said['label']}/{Path(said['image']).name}" for said in answers if "label" in said}
    assert {path.relative_to(tmp_path / "sorted").as_posix() for path in (tmp_path / "sorted").rglob("*.*")} == expected
    assert predicted(run, str(images[0].parent), "--out", str(tmp_path / "out.csv"), *flags, "--copy") == 0
    assert {path.relative_to(tmp_path / "sorted").as_posix() for path in (tmp_path / "sorted").rglob("*.*")} == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--copy"], "--copy requires --sort-into. Pass --sort-into DIR"),
        (["--overwrite"], "--overwrite requires --out. Pass --out FILE.csv"),
        (["--json", "--format=csv"], "--json and --format cannot be combined"),
        (["--format=csv", "--out=x.csv"], "--format prints the predictions and --out writes them"),
        (["--null"], "--null is for a list on standard input"),
        (["--sort-into=images"], "--sort-into images has the images. Pass another directory"),
        (["--format=parquet"], "parquet"),
    ],
)
def test_flags_that_do_not_go_together(
    flags: list[str],
    said: str,
    images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predicted("no-run", str(images[0].parent), *flags) == 2
    assert said in capsys.readouterr().err
