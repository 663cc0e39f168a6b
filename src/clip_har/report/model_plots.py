"""Accuracy of several models against the time of their image encoders, with the Pareto frontier -> a plot.

Which points these are is decided in `clip_har.evaluation.model_comparison`; file formats are in `style`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation import ComparisonRow
from clip_har.evaluation.model_comparison import CostPoint, ModelTable
from clip_har.report.comparison_plots import (
    LABEL_FONT,
    WIDTH,
    accuracy_label,
    accuracy_range,
    around,
    in_points,
    write_label,
)
from clip_har.report.html import split_word
from clip_har.report.labels import Box, placed_labels, text_size
from clip_har.report.plots import LABEL_LENGTH
from clip_har.report.style import ACCENT, BASELINE, INK, MUTED, Plot, render

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "*", "<", ">", "h")
"""One for each method; colour says whether a point is on the frontier."""
PALE = 0.5
# The plot stands on margins known before it is drawn, in inches, so that labels can be placed.
AXES_HEIGHT, LEFT, RIGHT, TOP, TIME_AXIS, LEGEND_ROW = 3.1, 0.68, 0.1, 0.34, 0.5, 0.19
LEGEND_COLUMNS = 3
MARK = 6.0  # points
MOST_TICKS = 5


def model_plot(table: ModelTable) -> Plot | None:
    """A mark for each model and method; those on the frontier in colour and joined by a line, the others pale.

    None where no encoder was timed.
    """
    points = table.points
    if not points:
        return None
    on = [point for point in points if point.on_frontier]
    labels = wording.model_labels([model.name for model in table.models])
    joined = ", ".join(f"{labels[point.model]} with {wording.method_label(point.method)}" for point in _by_time(on))
    return render(
        partial(_draw, table, points, labels),
        name="models",
        title="Accuracy against the time of the image encoder",
        description=(
            f"Accuracy of {wording.counted(len({point.model for point in points}), 'model')} against the time of the "
            f"image encoder on a logarithmic axis. On the Pareto frontier: {joined}. The table has the same numbers."
        ),
    )


def _draw(table: ModelTable, points: Sequence[CostPoint], labels: Mapping[str, str]) -> Figure:
    methods = [method for method in table.methods if any(point.method == method for point in points)]
    legend = 0.05 + LEGEND_ROW * math.ceil((len(methods) + 1) / LEGEND_COLUMNS)
    bottom = TIME_AXIS + legend
    total, width = AXES_HEIGHT + TOP + bottom, WIDTH - LEFT - RIGHT
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((LEFT / WIDTH, bottom / total, width / WIDTH, AXES_HEIGHT / total))
    rows = {(model.name, row.name): row for model in table.compared for row in model.rows}
    low, high = accuracy_range([rows[point.model, point.method] for point in points], None)
    axes.set_ylim(low, high)
    _scale_time(axes, [point.seconds_per_image for point in points])
    frontier = _by_time([point for point in points if point.on_frontier])
    _draw_frontier(axes, frontier)
    for point in sorted(points, key=lambda point: point.on_frontier):
        best = table_best(points, point.model) == point
        _draw_point(axes, point, rows[point.model, point.method], MARKERS[methods.index(point.method) % len(MARKERS)])
        if best:
            _draw_interval(axes, point, rows[point.model, point.method])
    _label_models(axes, points, frontier, rows, labels, size=(width * 72, AXES_HEIGHT * 72))
    axes.set_xlabel("time of the image encoder per image, logarithmic")
    axes.set_ylabel(accuracy_label(split_word(table.split)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _legend(figure, methods)
    return figure


def table_best(points: Sequence[CostPoint], model: str) -> CostPoint:
    """The most accurate method of a model, which is the one that is labelled."""
    return max((point for point in points if point.model == model), key=lambda point: point.accuracy)


def _by_time(points: Sequence[CostPoint]) -> list[CostPoint]:
    return sorted(points, key=lambda point: (point.seconds_per_image, point.accuracy))


def _draw_frontier(axes: Axes, frontier: Sequence[CostPoint]) -> None:
    """Steps through the points: what can be reached in at most a time; to the right it stays at the last."""
    times = [point.seconds_per_image for point in frontier]
    heights = [point.accuracy for point in frontier]
    right = axes.get_xlim()[1]
    axes.step([*times, right], [*heights, heights[-1]], where="post", color=ACCENT, linewidth=1.3, alpha=0.7)


def _draw_point(axes: Axes, point: CostPoint, row: ComparisonRow, marker: str) -> None:
    colour, alpha = (ACCENT, 1.0) if point.on_frontier else (BASELINE, PALE)
    low = axes.get_ylim()[0]
    height = max(low, row.accuracy)  # a collapsed method stands at the edge
    axes.plot(
        point.seconds_per_image, height, marker, color=colour, alpha=alpha, ms=MARK, mew=0, clip_on=False, zorder=3
    )


def _draw_interval(axes: Axes, point: CostPoint, row: ComparisonRow) -> None:
    spread = np.array(around(row.accuracy, row.accuracy_ci95))[:, None]
    colour = ACCENT if point.on_frontier else BASELINE
    axes.errorbar(
        point.seconds_per_image, row.accuracy, yerr=spread, fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.4
    )


def _label_models(
    axes: Axes,
    points: Sequence[CostPoint],
    frontier: Sequence[CostPoint],
    rows: Mapping[tuple[str, str], ComparisonRow],
    labels: Mapping[str, str],
    *,
    size: tuple[float, float],
) -> None:
    """Each model's name at its most accurate method; none covers a mark, another name or the frontier."""
    low = axes.get_ylim()[0]
    best = [table_best(points, model) for model in dict.fromkeys(point.model for point in points)]
    anchors = [in_points(axes, point.seconds_per_image, max(low, point.accuracy)) for point in best]
    radius = MARK / 2 + 1
    marks = [in_points(axes, point.seconds_per_image, max(low, point.accuracy)) for point in points]
    obstacles = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in marks]
    obstacles += _boxes_of_steps([in_points(axes, p.seconds_per_image, p.accuracy) for p in frontier], size[0])
    obstacles += [_box_of_interval(axes, point, rows[point.model, point.method]) for point in best]
    texts = [wording.shortened(labels[point.model], LABEL_LENGTH) for point in best]
    sizes = [text_size(text, LABEL_FONT) for text in texts]
    boxes = placed_labels(anchors, sizes, obstacles=obstacles, bounds=Box(1, 3, *size))
    for point, text, anchor, box in zip(best, texts, anchors, boxes, strict=True):
        write_label(axes, text, anchor, box, colour=INK if point.on_frontier else MUTED)


def _box_of_interval(axes: Axes, point: CostPoint, row: ComparisonRow) -> Box:
    (x, low), (_, high) = (in_points(axes, point.seconds_per_image, end) for end in row.accuracy_ci95)
    return Box(x - 1, low, x + 1, high)


def _boxes_of_steps(corners: Sequence[tuple[float, float]], right: float) -> list[Box]:
    """The frontier's line as thin boxes, in points."""
    boxes = []
    ends = [*(x for x, _ in corners[1:]), right]
    for (x, y), end in zip(corners, ends, strict=True):
        boxes.append(Box(x, y - 1, max(x, end), y + 1))
    for (_, lower), (x, upper) in itertools.pairwise(corners):
        boxes.append(Box(x - 1, lower, x + 1, upper))
    return boxes


def _legend(figure: Figure, methods: Sequence[str]) -> None:
    handles = [
        Line2D([], [], marker=MARKERS[number % len(MARKERS)], color=MUTED, linestyle="none", ms=MARK, mew=0)
        for number in range(len(methods))
    ]
    names = [wording.shortened(wording.method_label(method), LABEL_LENGTH) for method in methods]
    handles.append(Line2D([], [], color=ACCENT, linewidth=1.3))
    figure.legend(
        handles,
        [*names, "Pareto frontier"],
        loc="lower center",
        ncols=LEGEND_COLUMNS,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def _scale_time(axes: Axes, seconds: Sequence[float]) -> None:
    """A logarithmic axis with a few round ticks."""
    axes.set_xscale("log")
    low, high = min(seconds), max(seconds)
    room = max(1.7, (high / low) ** 0.12)
    low, high = low / room, high * room
    axes.set_xlim(low, high)
    ticks = encoder_ticks(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [_time_label(tick) for tick in ticks])


def encoder_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two times in seconds; if that leaves room, also their multiples by 2 and 5."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            return ticks
    return ticks


def _time_label(seconds: float) -> str:
    for least, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= least * 0.999:
            return f"{seconds / least:g} {name}"
    return f"{seconds / 1e-6:g} µs"
