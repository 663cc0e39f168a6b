"""Numbers and names as people read them, and where a method stands to zero-shot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from clip_har import wording
from clip_har.evaluation import ComparisonRow, EvalResult
from clip_har.report import standing

ROW = ComparisonRow(
    name="zero-shot",
    method="zero-shot",
    seeds=(0,),
    accuracies=(0.4,),
    accuracy=0.4,
    accuracy_ci95=(0.35, 0.45),
    accuracy_std=None,
    macro_f1=0.4,
    macro_f1_std=None,
    ece=0.1,
    trainable_params=0,
    trainable_fraction=0.0,
    peak_memory_bytes=None,
    train_seconds=None,
    mcnemar_p=None,
    collapsed=False,
)


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u2212", "-")


def test_fractions() -> None:
    assert plain(wording.percent(0.7123)) == "71.2 %"
    assert plain(wording.percent_interval((0.68, 0.7444))) == "68.0 to 74.4 %"
    assert [plain(wording.share(value)) for value in (0, 0.000217, 0.0049, 0.5, 1)] == [
        "0 %",
        "0.022 %",
        "0.49 %",
        "50 %",
        "100 %",
    ]
    assert [plain(wording.points(value)) for value in (0.365, -0.02, -0.0001)] == ["+36.5", "-2.0", "0.0"]


def test_spread_over_seeds() -> None:
    assert (wording.spread(0.0042), wording.spread(0.0042, 2), wording.spread(None)) == ("± 0.4", "± 0.42", "")


def test_sizes_and_durations() -> None:
    assert [wording.size(value) for value in (0, 1023, 2048, 811_597_824, 11 * 2**30)] == [
        "0 B",
        "1023 B",
        "2 KiB",
        "774 MiB",
        "11.0 GiB",
    ]
    column = [0, 5 * 2**20, 811_597_824, 11 * 2**30]
    assert [wording.size(value, max(column)) for value in column] == ["0.0 GiB", "0.0049 GiB", "0.76 GiB", "11.0 GiB"]
    assert [wording.size(value, 900 * 2**20) for value in column[:3]] == ["0 MiB", "5 MiB", "774 MiB"]
    assert [wording.counted(count, "epoch") for count in (0, 1, 1200)] == ["0 epochs", "1 epoch", "1,200 epochs"]
    assert [wording.duration(value) for value in (0.42, 59.4, 59.6, 75, 3599.6, 7260)] == [
        "0.4 s",
        "59 s",
        "1 min 0 s",
        "1 min 15 s",
        "1 h 0 min",
        "2 h 1 min",
    ]


def test_p_values() -> None:
    assert [wording.p_value(p) for p in (0.0, 0.00099, 0.0312, 1.0)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.031",
        "p = 1.000",
    ]


def test_numbers_for_csv() -> None:
    assert [wording.number(value) for value in (151_277_313, 0.123456789, 1.0, 0.0)] == [
        "151277313",
        "0.123457",
        "1",
        "0",
    ]


@pytest.mark.parametrize("length", [5, 10, 26])
def test_long_names_keep_both_ends(length: int) -> None:
    name = "using a laptop while listening to music"
    short = wording.shortened(name, length)
    assert len(short) <= length
    assert short[0] == "u" and short[-1] == "c" and "…" in short
    assert wording.shortened("sitting", 7) == "sitting"


def test_hostile_names_become_printable() -> None:
    assert wording.one_line("a\x00b\nc\u202ed\udc80 ") == r"a\x00b c\u202ed\udc80"


def test_method_names() -> None:
    assert wording.method_label("lora-attention") == "LoRA-attention"
    assert wording.method_label("explorable") == "explorable"
    names = ["linear-probe", "lp-ft", "wise-ft", "coop", "clip-adapter", "tip-adapter", "two-tier", "cooperation"]
    assert [wording.method_label(name) for name in names] == [
        "linear probe",
        "LP-FT",
        "WiSE-FT",
        "CoOp",
        "CLIP-Adapter",
        "Tip-Adapter",
        "two-tier",
        "cooperation",
    ]
    assert [wording.is_baseline(name) for name in ("zero-shot", "zero_shot", "Zero shot", "lora")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("accuracy", "p", "expected"),
    [
        (0.5, 0.001, "above zero-shot"),
        (0.5, 0.05, "not distinguishable from zero-shot"),
        (0.3, 0.001, "below zero-shot"),
        (0.3, 0.2, "not distinguishable from zero-shot"),
    ],
)
def test_where_a_method_stands(accuracy: float, p: float, expected: str) -> None:
    row = replace(ROW, name="attention", method="lora", accuracy=accuracy, mcnemar_p=p)
    assert standing.standing(row, 0.4) == expected
    assert standing.standing(replace(row, collapsed=True), 0.4) == "collapsed"
    assert standing.standing(row, None) == "method"
    assert standing.standing(ROW, 0.4) == "zero-shot"


def test_zero_shot_is_known_from_its_row_or_from_any_result(make_result: Callable[..., EvalResult]) -> None:
    result = make_result()
    other = replace(ROW, name="lora", method="lora")
    assert standing.zero_shot_level([other, ROW], {"lora": result}) == 0.4
    assert standing.zero_shot_level([other], {"lora": result}) == result.baseline.metrics.accuracy
    assert standing.zero_shot_level([other], {}) is None
