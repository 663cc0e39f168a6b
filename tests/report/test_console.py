"""The comparison's table in a terminal of 120 columns, and progress where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from clip_har.console import ConsoleProgress, Output
from clip_har.console.progress import LINE_EVERY, _LinesBar, bar_line
from clip_har.evaluation import ComparisonRow, EvalResult

MakeResult = Callable[..., EvalResult]


def test_twelve_rows_fit_120_columns(
    twelve_rows: list[ComparisonRow], make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        replace(row, trainable_params=428_000_000, trainable_fraction=0.00012, train_seconds=4199.6)
        if row.trainable_params
        else row
        for row in twelve_rows
    ]
    Output().comparison(rows, {"zero-shot": make_result(skill=None)})
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 120
    assert "96 test images, 8 classes; mean ± standard deviation over seeds 0, 1, 2" in lines[0]
    row = next(line for line in lines if line.strip().startswith("lora-attention"))
    expected = "lora-attention 91.50 ± 1.00 % 89.5 to 93.5 % 0.915 428,000,000 0.012% 1 h 10 m 3.0 GiB < 0.001"
    assert " ".join(row.split()) == expected
    assert sum(line.split()[:1] == ["lora-attention"] for line in lines) == 2  # table and verdict, none folded
    text = "\n".join(lines)
    assert "NOT DISTINGUISHABLE from zero-shot" in text and "BELOW zero-shot" in text and "COLLAPSED" in text


def test_a_single_seed_has_no_spread(
    twelve_rows: list[ComparisonRow], make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(row, seeds=(0,), accuracy_std=None, macro_f1_std=None) for row in twelve_rows]
    Output().comparison(rows, {"zero-shot": make_result(skill=None)})
    text = capsys.readouterr().out
    assert "±" not in text and "91.50 %" in text and "27 s" in text


def test_without_a_terminal_a_long_job_writes_a_line_now_and_then() -> None:
    now = 0.0
    lines: list[str] = []
    bar = _LinesBar(lines.append, "Training full", total=400, unit="steps", clock=lambda: now)
    bar.advance(100)  # done by the run that is continued
    for _ in range(3):
        now += LINE_EVERY / 2
        bar.advance(50, loss="1.250", zero_shot="34.7%")
    assert lines == ["Training full 200/400 steps  (0:30, about 1:00 left)  loss 1.250  zero-shot 34.7%"]
    now += 3600
    bar.advance(150)
    bar.close()
    assert lines[1:] == ["Training full 400/400 steps  (1:00:45)  loss 1.250  zero-shot 34.7%"]


def test_without_a_terminal_a_short_job_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleProgress().bar("Encoding images", total=10, unit="images") as bar:
        bar.advance(10)
    assert capsys.readouterr() == ("", "")


FIELDS = {
    "epoch": "4/15",
    "loss": "0.812",
    "mean": "0.9",
    "lr": "1.0e-03",
    "images/s": "1,234",
    "val": "72.5%",
    "zero_shot": "51.2%",
}


def line(width: int, *, left: float | None = 83.0, fields: dict[str, str] = FIELDS) -> str:
    drawn = bar_line(
        "Training lora-attention",
        done=1234,
        total=4500,
        unit="steps",
        seconds=90.0,
        left=left,
        rate=12.3,
        fields=fields,
        width=width,
    )
    return drawn.plain


def test_a_bar_fits_every_width_and_leaves_out_whole_fields() -> None:
    whole = line(1000).split("  ")[1:]
    assert whole == [
        *("1,234/4,500", "1:23 left", "epoch 4/15", "loss 0.812", "mean 0.9", "lr 1.0e-03", "images/s 1,234"),
        *("val 72.5%", "zero-shot 51.2%", "12 steps/s", "1:30 elapsed"),
    ]
    said = 0
    for width in range(45, 220):
        shown = line(width)
        assert len(shown) <= width and "…" not in shown and "1,234/4,500" in shown
        fields = shown.split("  ")[1:]
        assert [field for field in whole if field in fields] == fields, width
        said = max(said, len(fields))
    assert said == len(whole)
    assert "1:23 left" in line(60) and "val 72.5%" in line(80) and "epoch 4/15" in line(80)


def test_a_bar_says_nothing_of_a_time_that_is_not_known() -> None:
    assert "left" not in line(200, left=None) and "-:--" not in line(200, left=None)
