"""results.md and results.tex: what is in them, and that hostile names do not break them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from clip_har.evaluation import EvalResult
from clip_har.report.result_documents import results_latex, results_markdown
from clip_har.report.tables import METRIC_FIELDS

MakeResult = Callable[..., EvalResult]


def markdown_rows(text: str) -> list[list[str]]:
    """The cells of all table lines; a bar that is escaped is not a border."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_markdown_has_every_metric_with_both_intervals_and_that_of_the_difference(make_result: MakeResult) -> None:
    result = make_result()
    assert result.finetuned is not None
    text = results_markdown(result)
    rows = {row[0]: row for row in markdown_rows(text)}
    assert rows["metric"][1:] == ["zero-shot, 95 % interval", "LoRA, 95 % interval", "difference, 95 % interval"]
    for label, name in METRIC_FIELDS.items():
        (row,) = (cells for key, cells in rows.items() if key in (f"{label} ↑", f"{label} ↓"))
        for cell, model in zip(row[1:3], (result.baseline, result.finetuned), strict=True):
            low, high = model.metrics.intervals[name]
            assert cell == f"{getattr(model.metrics, name):.3f} \\[{low:.3f}, {high:.3f}\\]"
    assert "Log Loss ↓" in rows and "Brier Score ↓" in rows and "Accuracy ↑" in rows
    assert rows["Accuracy ↑"][3].startswith("+0.")
    assert rows["Log Loss ↓"][3].startswith("−")
    assert "96 images of the test split, 8 classes." in text and "McNemar’s test" in text
    entry = result.finetuned.metrics.per_class[0]
    assert rows[entry.name][1:3] == [
        str(entry.support),
        f"{entry.precision:.3f} \\[{entry.precision_ci95[0]:.3f}, {entry.precision_ci95[1]:.3f}\\]",
    ]
    assert "bootstrap of 2,000 resamples" in text


def test_markdown_of_the_baseline_alone_and_of_a_class_without_images(make_result: MakeResult) -> None:
    result = make_result(skill=None, n=4, classes=["a", "b", "c", "d", "e"])
    text = results_markdown(result)
    rows = {row[0]: row for row in markdown_rows(text)}
    assert len(rows["metric"]) == 2 and "McNemar" not in text
    assert rows["e"] == ["e", "0", "–", "–", "–", "–"]
    assert "Warning: e has no images" in text


def test_hostile_names_stay_within_their_cells(make_result: MakeResult) -> None:
    result = make_result(classes=["a|b", "c`d*", "e\nf", "<script>"])
    for row in markdown_rows(results_markdown(result)):
        assert len(row) in (4, 6)
    assert "<script>" not in results_markdown(result).replace("\\<script\\>", "")


def test_latex_is_a_booktabs_table(make_result: MakeResult) -> None:
    result = make_result(name="a_b & 50%")
    text = results_latex(result)
    lines = text.splitlines()
    assert lines[1:3] == [r"\begin{tabular}{lrrr}", r"\toprule"]
    assert lines[3] == r"Metric & Zero-shot & A\_b \& 50\% & Difference \\"
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == len(METRIC_FIELDS)
    assert all(line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == 3 for line in body)
    assert r"Log Loss $\downarrow$" in text and r"Accuracy $\uparrow$" in text and "$-$0." in text
    assert lines[-2] == r"\end{tabular}" and lines[-1].startswith("% 96 test images, 8 classes. McNemar’s test: p ")


@pytest.mark.parametrize("skill", [None, 3.0])
def test_latex_has_as_many_columns_as_models_need(make_result: MakeResult, skill: float | None) -> None:
    text = results_latex(make_result(skill=skill))
    assert ("{lr}" if skill is None else "{lrrr}") in text
