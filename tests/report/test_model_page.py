"""The page, plot and tables of several models: well-formed, saying what the numbers say, labels apart."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

from clip_har.console import Output
from clip_har.report import model_plots, model_tables, write_models
from clip_har.report.style import ACCENT, BASELINE
from clip_har.wording import model_labels
from report.model_tables_fixture import MODELS, NO_NETWORK, made_up_table
from report.test_report_page import HOSTILE, Page, assert_accessible, assert_self_contained


def page_of(table: Any, out: Path) -> Page:
    write_models(table, out, facts={"seed": 0}, command="clip-har compare --models a,b")
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    table = made_up_table()
    pages = [tmp_path / model.folder / "report.html" for model in table.compared[:2]]
    for path in pages:
        path.parent.mkdir()
        path.touch()
    page = page_of(table, tmp_path)
    assert_accessible(page)
    links = [f"{model.folder}/report.html" for model in table.ranked if model in table.compared[:2]]
    assert_self_contained(page, links)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        *("models.csv", "models.json", "models.png", "report.html"),
    }
    best = table.best.best
    assert best is not None
    name = model_labels([model.name for model in table.models])[table.best.name]
    accuracy = f"{100 * best.accuracy:.1f}"
    assert f"{name} with LoRA is the most accurate: {accuracy} % of 160 test images classified correctly." in page.text
    assert f"RN50: {NO_NETWORK}" in page.text and "ViT-B/16, LoRA: lora cannot train this model." in page.text
    assert "WIT, 400 million pairs" in page.text and "605.2 MB" in page.text
    assert page.text.count("All models with") == 3


def test_without_times_or_a_catalogue_there_is_no_plot_and_no_empty_column(tmp_path: Path) -> None:
    table = made_up_table(timed=False)
    unknown = [replace(m, figures=replace(m.figures, licence="", pretraining_data="")) for m in table.models]
    page = page_of(replace(table, models=tuple(unknown)), tmp_path)
    assert not (tmp_path / "models.png").exists()
    assert "licence" not in page.text and "Accuracy vs encoder time" not in page.text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_reasons_are_text(name: str, tmp_path: Path) -> None:
    table = made_up_table()
    models = [replace(m, name=name, error=name) if m.error else m for m in table.models]
    page = page_of(replace(table, models=tuple(models)), tmp_path)
    assert len(page.of("script")) == 1
    assert_self_contained(page)


def test_labels_cover_neither_each_other_nor_the_marks() -> None:
    table = made_up_table()
    labels = model_labels([model.name for model in table.models])
    figure = model_plots._draw(table, table.points, labels)
    figure.canvas.draw()
    axes = figure.axes[0]
    texts = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]
    assert len(texts) == len(MODELS)
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        for point in table.points:
            x, y = axes.transData.transform((point.seconds_per_image, point.accuracy))
            assert not box.contains(x, y)
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1


def test_dominated_points_are_pale_and_the_frontier_rises() -> None:
    table = made_up_table()
    axes = model_plots._draw(table, table.points, model_labels([model.name for model in table.models])).axes[0]
    marks = {
        (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0])): line
        for line in axes.lines
        if len(np.asarray(line.get_xdata())) == 1
    }
    assert axes.get_xscale() == "log"
    for point in table.points:
        mark = marks[point.seconds_per_image, point.accuracy]
        assert to_hex(str(mark.get_color())) == (ACCENT if point.on_frontier else BASELINE)
        assert (mark.get_alpha() == 1.0) is point.on_frontier
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    heights = np.asarray(steps.get_ydata())
    assert (np.diff(heights) >= 0).all() and heights[-1] == max(point.accuracy for point in table.points)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.004, 0.03, [0.005, 0.01, 0.02]), (0.0008, 2.0, [0.001, 0.01, 0.1, 1.0]), (0.0007, 0.08, None)],
)
def test_a_few_round_ticks(low: float, high: float, ticks: list[float] | None) -> None:
    found = model_plots.encoder_ticks(low, high)
    assert 2 <= len(found) <= model_plots.MOST_TICKS
    assert ticks is None or found == pytest.approx(ticks)


def test_the_csv_has_a_row_for_each_model_and_method() -> None:
    table = made_up_table(seeds=2)
    rows = list(csv.DictReader(io.StringIO(model_tables.models_csv(table))))
    assert len(rows) == 5 * 3 + 1 and rows[-1]["model"] == "RN50" and rows[-1]["method"] == ""
    empty = [row for row in rows if row["missing"]]
    assert [(row["model"], row["method"]) for row in empty] == [("ViT-B/16", "lora"), ("RN50", "")]
    probe = next(row for row in rows if (row["model"], row["method"]) == ("ViT-B/32", "linear-probe"))
    assert probe["seeds"] == "0 1" and probe["image_size"] == "224" and probe["parameters"] == "151300000"
    assert float(probe["seconds_per_image"]) == pytest.approx(1 / 110, rel=1e-4)


def test_the_terminal_fits_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("clip_har.console.output.PIPED_WIDTH", 80)
    table = made_up_table(seeds=3)
    Output().compared_models(table)
    lines = capsys.readouterr().out.splitlines()
    shown = lines[1 : next(index for index, line in enumerate(lines) if line.startswith("F1:"))]
    assert max(len(line.rstrip()) for line in shown) <= 80
    assert sum(line.startswith("  linear-probe") for line in shown) == 5
    starred = [line for line in shown if "*" in line]
    assert len(starred) == sum(point.on_frontier for point in table.points) > 1
    assert model_tables.missing_summary(table) == (
        "Missing: 1 of 6 models (RN50); 1 of 15 results (ViT-B/16 with lora)"
    )
