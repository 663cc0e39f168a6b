"""What the plots show: heat, axes, marks, and labels that do not cover each other."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from clip_har.evaluation import ComparisonRow, EpochRecord
from clip_har.report import comparison_plots, plots
from clip_har.report.labels import Box, leader_end, placed_labels

LEVEL = 0.63


def test_heat_is_the_share_of_the_row() -> None:
    heat = plots._heat(np.array([[8, 2], [0, 0]]))
    assert heat[0, 0, 3] == pytest.approx(0.8**0.75)
    assert heat[0, 1, 3] == pytest.approx(0.2**0.75)
    assert heat[1, :, 3].tolist() == [0, 0]  # a class without images divides by nothing
    blue, orange = heat[0, 0, :3], heat[0, 1, :3]
    assert blue[2] > blue[0] and orange[0] > orange[2]
    assert heat[1, 1, :3].tolist() == blue.tolist()


def cost_labels(rows: list[ComparisonRow]) -> dict[str, Bbox]:
    """The drawn extents of the labels in the cost plot."""
    figure = comparison_plots._draw_cost(rows, LEVEL, "test")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    found = {}
    for child in figure.axes[0].get_children():
        if isinstance(child, Annotation) and child.get_text():
            found[child.get_text()] = child.get_window_extent(renderer)
    return found


def test_labels_of_twelve_methods_do_not_overlap_and_stay_inside(twelve_rows: list[ComparisonRow]) -> None:
    rows = comparison_plots.timed_rows(twelve_rows)
    labels = cost_labels(rows)
    height = comparison_plots._draw_cost(rows, LEVEL, "test").get_figheight()
    assert len(labels) == 12  # eleven methods and the level of zero-shot
    for (one, a), (other, b) in itertools.combinations(labels.items(), 2):
        assert not a.overlaps(b), (one, other)
    for name, extent in labels.items():
        assert extent.x0 >= 0 and extent.x1 <= comparison_plots.WIDTH * 100, name
        assert extent.y0 >= 0 and extent.y1 <= height * 100, name


@pytest.mark.parametrize("several_sizes", [True, False])
@pytest.mark.parametrize("several_standings", [True, False])
def test_below_the_cost_plot_is_no_more_room_than_its_legends_fill(
    twelve_rows: list[ComparisonRow], several_sizes: bool, several_standings: bool
) -> None:
    rows = comparison_plots.timed_rows(twelve_rows)
    if not several_standings:
        rows = [row for row in rows if row.accuracy > 0.9]
    if not several_sizes:
        rows = [replace(row, trainable_params=1000) for row in rows]
    figure = comparison_plots._draw_cost(rows, LEVEL, "test")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    axis = figure.axes[0].xaxis.label.get_window_extent(renderer)
    boxes = sorted((legend.get_window_extent(renderer) for legend in figure.legends), key=lambda box: box.y0)
    assert len(boxes) == 1 + several_sizes
    edges = [0.0, *(edge for box in boxes for edge in (box.y0, box.y1)), axis.y0]
    gaps = [upper - lower for lower, upper in zip(edges[::2], edges[1::2], strict=True)]
    assert all(-0.06 <= gap / figure.dpi < 0.2 for gap in gaps), "legends have a margin of their own"


def test_labels_of_a_crowd_do_not_overlap(twelve_rows: list[ComparisonRow]) -> None:
    rows = [
        replace(row, accuracy=0.95 + index / 2000, accuracy_ci95=(0.94, 0.96), train_seconds=600.0 * 1.1**index)
        for index, row in enumerate(row for row in twelve_rows if row.train_seconds and not row.collapsed)
    ]
    labels = cost_labels(rows)
    for (one, a), (other, b) in itertools.combinations(labels.items(), 2):
        assert not a.overlaps(b), (one, other)


def test_a_label_stands_beside_its_mark_where_there_is_room() -> None:
    [box] = placed_labels([(100, 100)], [(40, 10)], obstacles=[Box(96, 96, 104, 104)], bounds=Box(0, 0, 200, 200))
    assert box.left > 104 and box.bottom < 100 < box.top
    [box] = placed_labels([(190, 100)], [(40, 10)], obstacles=[Box(186, 96, 194, 104)], bounds=Box(0, 0, 200, 200))
    assert box.right < 186
    assert leader_end((0, 5), Box(10, 0, 20, 10)) == (10, 5)


def test_the_axis_leaves_out_what_has_collapsed(twelve_rows: list[ComparisonRow]) -> None:
    low, high = comparison_plots.accuracy_range(twelve_rows, LEVEL)
    assert 0.5 < low < 0.56 and high > 0.97
    sound = [replace(row, collapsed=False) for row in twelve_rows]
    assert comparison_plots.accuracy_range(sound, LEVEL)[0] < 0.05
    alone = [row for row in twelve_rows if row.collapsed]
    low, high = comparison_plots.accuracy_range(alone, None)
    assert low < 0.05 < 0.09 < high


def test_the_accuracy_plot_names_every_method_and_number(twelve_rows: list[ComparisonRow]) -> None:
    svg = comparison_plots.accuracy_plot(twelve_rows, LEVEL, "test").svg.replace("\u202f", " ")
    for text in ("LoRA-attention", "Tip-Adapter", "91.5 ± 1.0 %", "7.0 ± 1.0 %", "off the scale", "one seed"):
        assert text in svg, text
    for where in ("above zero-shot", "below zero-shot", "not distinguishable from zero-shot", "collapsed"):
        assert f">{where}</text>" in svg, where


def test_the_cost_plot_leaves_out_zero_shot_and_what_has_no_time(twelve_rows: list[ComparisonRow]) -> None:
    rows = [replace(row, train_seconds=None) if row.name == "coop" else row for row in twelve_rows]
    assert {row.name for row in twelve_rows} - {row.name for row in comparison_plots.timed_rows(rows)} == {
        "zero-shot",
        "coop",
    }
    plot = comparison_plots.cost_plot(rows, LEVEL, "test")
    assert plot is not None and "CoOp" not in plot.svg and "zero-shot 63.0" in plot.svg
    assert ">10 s</text>" in plot.svg and ">10 min</text>" in plot.svg
    assert comparison_plots.cost_plot(twelve_rows[:1], LEVEL, "test") is None


@pytest.mark.parametrize("seconds", [(1.4, 2.9), (4.0,), (55.0, 70.0), (0.02, 0.03), (3000.0, 3700.0), (2.0, 5000.0)])
def test_the_time_axis_has_at_least_two_ticks_that_can_be_read(
    twelve_rows: list[ComparisonRow], seconds: tuple[float, ...]
) -> None:
    rows = [replace(row, train_seconds=time) for row, time in zip(twelve_rows[2:], seconds, strict=False)]
    figure = comparison_plots._draw_cost(rows, LEVEL, "test")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    labels = figure.axes[0].get_xticklabels()
    extents = [label.get_window_extent(renderer) for label in labels]
    assert 2 <= len(labels) <= 6 and len({label.get_text() for label in labels}) == len(labels)
    for left, right in itertools.pairwise(extents):
        assert left.x1 < right.x0
    assert extents[0].x0 >= 0 and extents[-1].x1 <= figure.bbox.x1


def test_times_are_written_as_on_a_clock() -> None:
    assert comparison_plots.time_ticks(1.0, 12.0) == [1, 10]
    assert [comparison_plots._time_label(t) for t in comparison_plots.time_ticks(15, 200)] == [
        "20 s", "30 s", "1 min", "2 min",
    ]  # fmt: skip
    assert [comparison_plots._time_label(t) for t in (0.02, 0.5, 7200)] == ["20 ms", "0.5 s", "2 h"]


def test_the_key_of_sizes_shows_the_marks_there_are(twelve_rows: list[ComparisonRow]) -> None:
    small = replace(twelve_rows[2], train_seconds=4.0, trainable_params=2415)
    large = replace(twelve_rows[3], train_seconds=9.0, trainable_params=151_277_313)
    plot = comparison_plots.cost_plot([small, large], LEVEL, "test")
    assert plot is not None and ">2,415</text>" in plot.svg and ">151 million</text>" in plot.svg
    alike = comparison_plots.cost_plot([small, replace(large, trainable_params=2415)], LEVEL, "test")
    assert alike is not None and "trained parameters" not in alike.svg


@pytest.mark.parametrize("level", [None, 0.55])
def test_the_training_curve_compares_with_zero_shot_on_validation(
    history: list[EpochRecord], level: float | None
) -> None:
    plot = plots.training_plot(history, level)
    assert ("zero-shot, validation" in plot.svg) == (level is not None)
    assert plot.description == "Loss and validation accuracy over 4 epochs. Selected on validation: epoch 3."
    assert plots.training_plot(history[:1], level).description.startswith("Loss and validation accuracy over 1 epoch.")


def test_candidates_are_not_called_epochs(history: list[EpochRecord]) -> None:
    tried = [
        replace(record, candidate=f"C={10.0**record.epoch:g}", lr=None, best=record.epoch == 3) for record in history
    ]
    plot = plots.training_plot(tried, 0.55)
    assert plot.description == (
        "Loss and validation accuracy of 4 candidates (C=10 to C=10000). Selected on validation: C=1000."
    )
    for text in ("C=10", "C=100", "C=1000", "C=10000", "candidate", "selected: C=1000"):
        assert f">{text}</text>" in plot.svg, text
    assert "epoch" not in plot.svg


def test_a_single_method_has_a_cost_plot(twelve_rows: list[ComparisonRow]) -> None:
    plot = comparison_plots.cost_plot([replace(twelve_rows[2], train_seconds=4.0)], None, "")
    assert plot is not None and "LoRA" in plot.svg


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, (0.25, 0.8)), (0.5, (0.5, 0.8)), (0.9, (1.0, 0.7)), (0.0, (0.0, 0.6))]
)
def test_the_point_that_was_taken(chosen: float | None, expected: tuple[float, float]) -> None:
    points = [(1.0, 0.7), (0.5, 0.8), (0.25, 0.8), (0.0, 0.6)]
    assert plots.chosen_point(points, chosen) == expected


def test_the_interpolation_curve_names_both_ends_and_the_point() -> None:
    plot = plots.interpolation_plot([(0.0, 0.6), (0.5, 0.8), (1.0, 0.7)])
    svg = plot.svg.replace("\u202f", " ")
    for text in ("zero-shot 60.0 %", "fine-tuned 70.0 %", "selected: 0.5, 80.0 %"):
        assert f">{text}</text>" in svg, text
