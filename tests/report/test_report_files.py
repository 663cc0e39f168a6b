"""Which files a report consists of, what is in the tables, and that the same result gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import classification_report

from clip_har.evaluation import SCALARS, ComparisonRow, EpochRecord, EvalResult
from clip_har.report import (
    comparison_tables,
    standing,
    tables,
    write_comparison,
    write_contact_sheet,
    write_evaluation,
)

MakeResult = Callable[..., EvalResult]
Loader = Callable[[str], Image.Image | None]
TABLES = {
    "results.json",
    "results.csv",
    "results.md",
    "results.tex",
    "confusion_matrix.csv",
    "classification_report.txt",
    "predictions.csv",
}


def written(result: EvalResult, out: Path, **options: Any) -> list[Path]:
    settings: dict[str, Any] = {"facts": {}, "command": "clip-har evaluate", "load_thumbnail": None} | options
    return write_evaluation(result, out, **settings)


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_the_files_of_an_evaluation(make_result: MakeResult, history: list[EpochRecord], tmp_path: Path) -> None:
    plots = {"confusion_matrix.png", "per_class_f1.png"}
    files = written(make_result(), tmp_path / "full", history=history)
    expected = TABLES | plots | {"confusion_matrix_baseline.png", "training_curve.png", "report.html"}
    assert {path.name for path in files} == {path.name for path in (tmp_path / "full").iterdir()} == expected
    assert files[-1].name == "report.html"
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width > 600
    written(make_result(skill=None), tmp_path / "zero")
    assert {path.name for path in (tmp_path / "zero").iterdir()} == TABLES | plots | {"report.html"}


def test_the_same_result_gives_the_same_bytes(
    make_result: MakeResult, history: list[EpochRecord], load_thumbnail: Loader, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"history": history, "load_thumbnail": load_thumbnail}
    first = written(make_result(), tmp_path / "a", **options)
    second = written(make_result(), tmp_path / "b", **options)
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_tables_hold_the_result(make_result: MakeResult, tmp_path: Path) -> None:
    result = make_result(warnings=["mind this"])
    written(result, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert content == result.to_json()
    for name, text in (
        ("results.csv", tables.results_csv(result)),
        ("confusion_matrix.csv", tables.confusion_csv(result)),
        ("classification_report.txt", tables.classification_text(result)),
        ("predictions.csv", tables.predictions_csv(result)),
    ):
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert content["warnings"] == ["mind this"]


def test_results_csv(make_result: MakeResult) -> None:
    result = make_result()
    assert result.finetuned is not None
    header, *rows = rows_of(tables.results_csv(result))
    assert header == ["Metric", "Value", "Type"]
    values = {(metric, kind): float(value) for metric, value, kind in rows}
    assert list(tables.METRIC_FIELDS.values()) == list(SCALARS), "each metric has a label, in the order of results.json"
    assert len(values) == len(rows) == 3 * len(SCALARS)
    assert {kind for _, kind in values} == {"baseline", "finetuned", "difference"}
    assert values["Accuracy", "baseline"] == pytest.approx(result.baseline.metrics.accuracy, rel=1e-5)
    assert values["Top-3 Accuracy", "finetuned"] == pytest.approx(result.finetuned.metrics.top3_accuracy, rel=1e-5)
    gain = result.finetuned.metrics.macro_f1 - result.baseline.metrics.macro_f1
    assert values["Macro F1", "difference"] == pytest.approx(gain, rel=1e-5)
    assert all(len(value.lstrip("-0.").replace(".", "")) <= 6 for _, value, _ in rows)
    assert {row[2] for row in rows_of(tables.results_csv(make_result(skill=None)))[1:]} == {"baseline"}


def test_confusion_matrix_csv(make_result: MakeResult) -> None:
    result = make_result(classes=["a", 'b, "quoted"', "=c"])
    header, *rows = rows_of(tables.confusion_csv(result))
    assert header == ["", "a", 'b, "quoted"', "'=c"]
    assert [row[0] for row in rows] == header[1:]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=int), result.best.metrics.confusion)


def test_predictions_csv(make_result: MakeResult) -> None:
    result = make_result()
    assert result.finetuned is not None
    header, *rows = rows_of(tables.predictions_csv(result))
    assert ",".join(header) == ("path,true,baseline,baseline_confidence,finetuned,finetuned_confidence,correct")
    assert len(rows) == result.n
    for index in (0, 50, 95):
        path, true, baseline, _, finetuned, confidence, correct = rows[index]
        assert path == result.paths[index]
        assert baseline == result.classes[result.baseline.probabilities_NC[index].argmax()]
        assert finetuned == result.classes[result.finetuned.probabilities_NC[index].argmax()]
        assert float(confidence) == pytest.approx(result.finetuned.probabilities_NC[index].max(), rel=1e-5)
        assert correct == ("true" if finetuned == true else "false")
    right = sum(row[-1] == "true" for row in rows)
    assert right / result.n == pytest.approx(result.finetuned.metrics.accuracy)


def test_predictions_csv_of_the_baseline_alone(make_result: MakeResult) -> None:
    result = make_result(skill=None)
    _, *rows = rows_of(tables.predictions_csv(result))
    assert {tuple(row[4:6]) for row in rows} == {("", "")}
    right = sum(row[-1] == "true" for row in rows)
    assert right / result.n == pytest.approx(result.baseline.metrics.accuracy)


def test_classification_report_is_scikit_learns(make_result: MakeResult) -> None:
    result = make_result()
    text = tables.classification_text(result)
    for model in (result.baseline, result.best):
        expected = classification_report(
            result.targets_N, model.predictions, target_names=result.classes, digits=4, zero_division=0
        )
        assert expected in text
    assert text.startswith("zero-shot: 96 images of the test split")


def test_a_comparison(comparison: tuple[list[ComparisonRow], dict[str, EvalResult]], tmp_path: Path) -> None:
    rows, results = comparison
    files = write_comparison(rows, results, tmp_path, facts={}, command="clip-har compare")
    tables = ["comparison.json", "comparison.csv", "comparison.md", "comparison.txt"]
    names = [*tables, "comparison.png", "accuracy_cost.png", "report.html"]
    assert [path.name for path in files] == names
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    content = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    required = {
        "method",
        "accuracy",
        "accuracy_ci95",
        "trainable_params",
        "trainable_fraction",
        "peak_memory_bytes",
        "train_seconds",
        "mcnemar_p",
    }
    assert [entry["method"] for entry in content] == ["zero-shot", "lora", "full"]
    assert all(required <= set(entry) for entry in content)
    assert content[0]["mcnemar_p"] is None and content[1]["mcnemar_p"] < 0.05


def test_a_comparison_without_times_has_no_cost_plot(comparison: Any, tmp_path: Path) -> None:
    rows, results = comparison
    write_comparison(rows[:1], results, tmp_path, facts={}, command="")
    assert not (tmp_path / "accuracy_cost.png").exists()


def test_comparison_csv(twelve_rows: list[ComparisonRow]) -> None:
    header, *rows = rows_of(comparison_tables.comparison_csv(twelve_rows))
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert len(table) == 12
    assert table["lora-attention"] == {
        "method": "lora-attention",
        "accuracy": "0.915",
        "accuracy_ci95_low": "0.895",
        "accuracy_ci95_high": "0.935",
        "accuracy_std": "0.01",
        "seeds": "0 1 2",
        "accuracies": "0.905 0.915 0.925",
        "macro_f1": "0.915",
        "macro_f1_std": "0.012",
        "ece": "0.05",
        "trainable_params": "1000",
        "trainable_fraction": "0.01",
        "peak_memory_bytes": str(3 * 2**30),
        "train_seconds": "27",
        "p": "0.0001",
        "mcnemar_p": "0.0001",
        "paired_test": "sign-flip",
        "collapsed": "false",
        "base_method": "lora",
        "note": "",
    }
    assert table["full"]["collapsed"] == "true" and table["full"]["note"].startswith("answers running")
    unknown = ("peak_memory_bytes", "train_seconds", "p", "mcnemar_p", "paired_test")
    assert {table["zero-shot"][key] for key in unknown} == {""}


def test_comparison_markdown(twelve_rows: list[ComparisonRow], make_result: MakeResult) -> None:
    rows = [*twelve_rows, replace(twelve_rows[1], name="a|b", seeds=(0,), accuracy_std=None, macro_f1_std=None)]
    lines = comparison_tables.comparison_markdown(rows, make_result(), 0.63).splitlines()
    assert lines[0].startswith("| method | accuracy | 95 % interval |")
    assert {line.replace("\\|", "").count("|") for line in lines[:15]} == {12}
    assert lines[5] == (
        "| LoRA-attention | 91.5 ± 1.0 % | 89.5 to 93.5 % | +28.5 | p < 0.001 | above zero-shot | 0.915 ± 0.012 "
        "| 0.050 | 1,000 (1 %) | 27 s | 3.0 GiB |"
    )
    assert "| **not distinguishable from zero-shot** |" in lines[4]
    assert "| **collapsed**; answers running for 97% of the images |" in lines[6]
    assert "| **below zero-shot** |" in lines[13]
    assert lines[14].startswith("| a\\|b | 90.5 % |") and "| 0.905 |" in lines[14]
    assert "96 images of the test split" in lines[-1] and "sign-flip" in lines[-1] and "McNemar" in lines[-1]


def test_comparison_text(twelve_rows: list[ComparisonRow], make_result: MakeResult) -> None:
    text = comparison_tables.comparison_text(twelve_rows, make_result(), 0.63)
    table, verdicts, notes = text.split("\n\n")
    lines = table.splitlines()
    assert len(lines) == 14 and max(map(len, lines)) <= 120
    words = [" ".join(line.split()) for line in lines]
    assert words[5] == "lora-attention 91.50 ± 1.00 % 89.5 to 93.5 % 0.915 0.050 1,000 1 % 27 s 3.0 GiB < 0.001"
    assert words[2] == "zero-shot 63.00 ± 1.00 % 61.0 to 65.0 % 0.630 0.050 0 - - - -"
    said = {line.split()[0]: line for line in verdicts.splitlines()}
    assert len(said) == 11 and "zero-shot" not in said
    assert said["lora"].endswith("+0.5 points, NOT DISTINGUISHABLE from zero-shot (p = 0.400)")
    assert said["full"].endswith("points, COLLAPSED; answers running for 97% of the images")
    assert said["tip-adapter"].endswith("−5.0 points, BELOW zero-shot (p < 0.001)")
    assert said["coop"].endswith("+31.5 points, above zero-shot (p < 0.001)")
    assert "not corrected for the number" in notes


def test_the_notes_say_which_test_was_made(twelve_rows: list[ComparisonRow]) -> None:
    single = [replace(row, seeds=(0,), accuracy_std=None) for row in twelve_rows]
    assert "sign-flip" not in " ".join(standing.reading_notes(single))
    assert "McNemar" not in " ".join(standing.reading_notes(twelve_rows))
    assert "McNemar" in " ".join(standing.reading_notes(single))


def test_an_evaluation_with_interpolation(make_result: MakeResult, tmp_path: Path) -> None:
    files = written(make_result(), tmp_path, interpolation=[(0.0, 0.6), (0.5, 0.8), (1.0, 0.7)])
    assert "wise_ft_curve.png" in {path.name for path in files}
    with Image.open(tmp_path / "wise_ft_curve.png") as image:
        assert image.width > 600


def test_a_comparison_needs_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row"):
        write_comparison([], {}, tmp_path, facts={}, command="")


def test_rows_of_the_same_name_are_refused(twelve_rows: list[ComparisonRow], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different names"):
        write_comparison([*twelve_rows, twelve_rows[0]], {}, tmp_path, facts={}, command="")


def test_contact_sheets(tmp_path: Path) -> None:
    Image.new("CMYK", (300, 900), (0, 200, 0, 0)).save(tmp_path / "tall.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    glass = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    items: list[tuple[Path | Image.Image, str]] = [
        (tmp_path / "tall.jpg", "a"),
        (tmp_path / "broken.jpg", "b\n\x00" * 40),
        (tmp_path / "missing.jpg", "<c>"),
        (glass, "日本"),
    ]
    plain = write_contact_sheet(items, tmp_path / "sheet.png")
    judged = write_contact_sheet(items, tmp_path / "judged.png", predictions=["a", "x", "<c>", "y"])
    with Image.open(plain) as first, Image.open(judged) as second:
        assert first.width == second.width and second.height > first.height
        first_tile = first.convert("RGB").crop((10, 10, 178, 136))
        assert max(first_tile.getpixel((84, 63))) > 100
        # A right answer has a blue frame, a wrong one an orange frame.
        right, wrong = (second.convert("RGB").getpixel((x + 1, 11)) for x in (10, 188))
        assert right == (0x2A, 0x6F, 0xBB) and wrong == (0xC8, 0x50, 0x0A)
    with pytest.raises(ValueError, match="predictions"):
        write_contact_sheet(items, tmp_path / "sheet.png", predictions=["a"])


@pytest.mark.slow  # the size of HAR's largest test split: the limit is on time itself
def test_ten_times_the_images_take_far_less_than_ten_times_as_long(
    make_result: MakeResult, history: list[EpochRecord], load_thumbnail: Loader, tmp_path: Path
) -> None:
    def seconds(n: int) -> float:
        result = make_result(classes=[f"action {index}" for index in range(15)], n=n)
        started = time.process_time()  # of this process alone, so that a busy machine does not fail the test
        written(result, tmp_path / str(n), history=history, load_thumbnail=load_thumbnail)
        return time.process_time() - started

    seconds(60)  # imports and fonts
    ratio = seconds(5400) / seconds(540)
    assert ratio < 4, "against the same machine's own time"
    assert (tmp_path / "5400" / "report.html").stat().st_size < 4_500_000
