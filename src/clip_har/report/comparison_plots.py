"""A comparison's rows -> plots: accuracy with intervals, and accuracy against what it cost.

The words for where a method stands are in `standing`, colours and file formats in `style`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation import ComparisonRow, Interval
from clip_har.report import standing
from clip_har.report.labels import Box, leader_end, placed_labels, text_size
from clip_har.report.plots import LABEL_LENGTH, label_rows
from clip_har.report.style import ACCENT, BASELINE, GRID, INK, MUTED, WRONG, Plot, render

# What each mark means: colour and form, so that the meaning never hangs on colour alone.
MARKS = {
    standing.ZERO_SHOT: (BASELINE, "s"),
    standing.METHOD: (ACCENT, "o"),
    standing.ABOVE: (ACCENT, "o"),
    standing.INDISTINCT: (WRONG, "D"),
    standing.BELOW: (WRONG, "v"),
    standing.COLLAPSED: (WRONG, "X"),
}
SEED_MARK = {"one seed": (MUTED, "|")}
WIDTH = 4.4  # inches: two stand side by side on a screen, and one on a phone with text that can be read
LABEL_FONT = 8.0  # points
TIMES = (0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000)
"""Ticks of the time axis, in seconds."""
CLOSE_TIMES = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 72_000, 180_000, 360_000, 720_000),
)
"""Ticks for a stretch of the axis on which fewer than two of `TIMES` lie; each at most 2.5 times the one before."""
# The cost plot stands on margins known before it is drawn, in inches; below the axes as much as its legends need.
COST_AXES, COST_LEFT, COST_RIGHT, COST_TOP = 2.86, 0.68, 0.1, 0.34
COST_TIME_AXIS, COST_LEGEND_ROW, COST_SIZES = 0.53, 0.19, 0.45
LEGEND_COLUMNS = 2


def accuracy_plot(rows: Sequence[ComparisonRow], level: float | None, split: str) -> Plot:
    """Accuracy of each method with its 95 % interval, best first, zero-shot as a line through all of them.

    Args:
        rows: at least one.
        level: zero-shot's accuracy, or None where it is not known.
        split: the images, as an adjective for the axis; may be empty.
    """
    return render(
        partial(_draw_accuracy, rows, level, split),
        name="comparison",
        title="Accuracy and 95 % interval of each method",
        description=f"Accuracy of {len(rows)} methods with 95 % intervals; the table has the same numbers.",
    )


def timed_rows(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The methods that stand in the cost plot: trained ones whose time is known."""
    return [row for row in rows if row.train_seconds and not wording.is_baseline(row.method)]


def cost_plot(rows: Sequence[ComparisonRow], level: float | None, split: str) -> Plot | None:
    """Accuracy against training time, marks as large as the trained parameters are many; zero-shot as a line.

    None where no row has a training time.
    """
    timed = timed_rows(rows)
    if not timed:
        return None
    return render(
        partial(_draw_cost, timed, level, split),
        name="cost",
        title="Accuracy against training time",
        description=(
            f"Accuracy of {len(timed)} methods against their training time on a logarithmic axis; larger marks train "
            "more parameters. The table has the same numbers."
        ),
    )


def accuracy_range(rows: Sequence[ComparisonRow], level: float | None) -> Interval:
    """The part of the accuracy axis that is shown: all intervals but those of collapsed methods.

    One model that answers 7 % would press all others into a corner; it is shown at the edge instead.
    """
    shown = [row for row in rows if not row.collapsed] or list(rows)
    ends = [end for row in shown for end in (*row.accuracy_ci95, row.accuracy)]
    ends += [] if level is None else [level]
    low, high = min(ends), max(ends)
    room = max(0.02, 0.12 * (high - low))
    return low - room, high + room


def _draw_accuracy(rows: Sequence[ComparisonRow], level: float | None, split: str) -> Figure:
    ordered = sorted(rows, key=lambda row: row.accuracy)
    figure = Figure(figsize=(WIDTH, 1.45 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    low, high = accuracy_range(rows, level)
    axes.set_xlim(low, high)
    if level is not None:
        axes.axvline(level, color=MUTED, linestyle="--", linewidth=1.1)
    for position, row in enumerate(ordered):
        _draw_accuracy_row(axes, row, position, standing.standing(row, level), (low, high))
    label_rows(axes, [wording.method_label(row.name) for row in ordered])
    axes.set_xlabel(accuracy_label(split))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _legend_of_standings(figure, axes)
    return figure


def _draw_accuracy_row(axes: Axes, row: ComparisonRow, position: int, where: str, shown: Interval) -> None:
    colour, marker = MARKS[where]
    low, high = shown
    off_scale = row.accuracy < low
    if off_scale:
        edge = low + 0.025 * (high - low)
        axes.plot(edge, position, marker=marker, color=colour, label=where, ms=7, linestyle="none")
        axes.annotate(
            "◂ off the scale", (edge, position), xytext=(8, 0), textcoords="offset points", va="center", color=colour
        )
    else:
        spread = np.array(around(row.accuracy, row.accuracy_ci95))[:, None]
        axes.errorbar(row.accuracy, position, xerr=spread, fmt=marker, color=colour, label=where, ms=6, linewidth=2)
        if len(row.accuracies) > 1:
            below = [position - 0.28] * len(row.accuracies)
            axes.plot(row.accuracies, below, "|", color=MUTED, ms=4, label="one seed")
    # The numbers stand in a column right of the axes, where nothing runs through them.
    axes.annotate(
        f"{100 * row.accuracy:.1f} {wording.spread(row.accuracy_std)}".strip() + f"{wording.NARROW_SPACE}%",
        (1.0, position),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=LABEL_FONT,
        color=WRONG if where in standing.LOUD else INK,
    )


def _draw_cost(rows: Sequence[ComparisonRow], level: float | None, split: str) -> Figure:
    standings = {standing.standing(row, level) for row in rows}
    of_standings = 0.05 + COST_LEGEND_ROW * math.ceil(len(standings) / LEGEND_COLUMNS)
    bottom = COST_TIME_AXIS + of_standings + (COST_SIZES if _with_sizes(rows) else 0)
    width, total = WIDTH - COST_LEFT - COST_RIGHT, COST_AXES + COST_TOP + bottom
    figure = Figure(figsize=(WIDTH, total))
    axes = figure.add_axes((COST_LEFT / WIDTH, bottom / total, width / WIDTH, COST_AXES / total))
    low, high = accuracy_range(rows, level)
    axes.set_ylim(low, high)
    _scale_time(axes, [row.train_seconds or 1.0 for row in rows])
    if level is not None:
        axes.axhline(level, color=MUTED, linestyle="--", linewidth=1.1)
        axes.annotate(
            f"zero-shot {wording.percent(level)}",
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=LABEL_FONT,
            color=MUTED,
        )
    for row in rows:
        _draw_cost_mark(axes, row, standing.standing(row, level), low)
    _label_marks(axes, rows, level, size=(width * 72, COST_AXES * 72))
    axes.set_xlabel("training time, logarithmic")
    axes.set_ylabel(accuracy_label(split))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _legend_of_standings(figure, axes)
    if _with_sizes(rows):
        _legend_of_sizes(figure, rows, above=of_standings / total)
    return figure


def _draw_cost_mark(axes: Axes, row: ComparisonRow, where: str, low: float) -> None:
    colour, marker = MARKS[where]
    size = math.sqrt(_mark_area(row.trainable_params))
    x, y = row.train_seconds or 1.0, row.accuracy
    if y < low:
        axes.plot(x, low, marker=marker, color=colour, label=where, ms=size, linestyle="none", clip_on=False)
        return
    spread = np.array(around(y, row.accuracy_ci95))[:, None]
    axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.45)
    axes.plot(x, y, marker=marker, color=colour, label=where, ms=size, linestyle="none", alpha=0.75)


def _label_marks(axes: Axes, rows: Sequence[ComparisonRow], level: float | None, *, size: tuple[float, float]) -> None:
    """Writes each method's name near its mark, with a thin line to it where it stands off."""
    low = axes.get_ylim()[0]
    texts, anchors, obstacles = [], [], []
    for row in rows:
        anchor = in_points(axes, row.train_seconds or 1.0, max(low, row.accuracy))
        anchors.append(anchor)
        texts.append(_mark_label(row, low))
        obstacles += _mark_boxes(axes, row, anchor)
    if level is not None:
        _, height = in_points(axes, rows[0].train_seconds or 1.0, level)
        obstacles += [Box(0, height - 1, size[0], height + 1), Box(size[0] - 75, height, size[0], height + 12)]
    sizes = [text_size(text, LABEL_FONT) for text in texts]
    boxes = placed_labels(anchors, sizes, obstacles=obstacles, bounds=Box(1, 3, *size))
    for text, anchor, box in zip(texts, anchors, boxes, strict=True):
        write_label(axes, text, anchor, box)


def _mark_label(row: ComparisonRow, low: float) -> str:
    name = wording.shortened(wording.method_label(row.name), LABEL_LENGTH)
    return name if row.accuracy >= low else f"{name} ({wording.percent(row.accuracy)}, off the scale)"


def _mark_boxes(axes: Axes, row: ComparisonRow, anchor: tuple[float, float]) -> list[Box]:
    """What a mark and its interval cover, in points."""
    x, y = anchor
    radius = math.sqrt(_mark_area(row.trainable_params)) / 2
    low, high = (in_points(axes, row.train_seconds or 1.0, end)[1] for end in row.accuracy_ci95)
    return [Box(x - radius, y - radius, x + radius, y + radius), Box(x - 1, low, x + 1, high)]


def in_points(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Data -> points from the lower left corner of the axes, whose place in the figure is fixed."""
    corner = axes.transAxes.transform((0, 0))
    across, up = (axes.transData.transform((x, y)) - corner) * 72.0 / axes.figure.dpi
    return float(across), float(up)


def write_label(axes: Axes, text: str, anchor: tuple[float, float], box: Box, *, colour: str = INK) -> None:
    """Write a mark's label into its box, with a thin line to the mark where it stands off. All in points."""
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    nearest = leader_end(anchor, box)
    if math.dist(anchor, nearest) > 10:
        axes.annotate(
            "",
            nearest,
            anchor,
            xycoords="axes points",
            textcoords="axes points",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 3, "shrinkB": 0},
        )
    axes.annotate(text, middle, xycoords="axes points", ha="center", va="center", fontsize=LABEL_FONT, color=colour)


def _scale_time(axes: Axes, seconds: Sequence[float]) -> None:
    """A logarithmic axis with ticks that people know from clocks."""
    axes.set_xscale("log")
    low, high = min(seconds), max(seconds)
    room = max(1.7, (high / low) ** 0.1)
    axes.set_xlim(low / room, high * room**3)  # labels like to stand right of their marks
    ticks = time_ticks(low / room, high * room**2.7)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [_time_label(tick) for tick in ticks])


def time_ticks(low: float, high: float) -> list[float]:
    """Ticks between two times in seconds: at least two where the second is 6.25 times the first, and few."""
    ticks = [tick for tick in TIMES if low <= tick <= high]
    return ticks if len(ticks) > 1 else [tick for tick in CLOSE_TIMES if low <= tick <= high]


def _time_label(seconds: float) -> str:
    for least, name in ((3600, "h"), (60, "min"), (0.1, "s")):
        if seconds >= least:
            return f"{seconds / (1 if name == 's' else least):g} {name}"
    return f"{1000 * seconds:g} ms"


def _mark_area(parameters: int) -> float:
    """Area of a mark in square points: linear in the number of digits."""
    return 18.0 + 17.0 * max(0.0, math.log10(max(1, parameters)) - 2)


def _legend_of_standings(figure: Figure, axes: Axes) -> None:
    """Each standing that occurs, once, below the plot; and the ticks of single seeds where there are some."""
    found = set(axes.get_legend_handles_labels()[1])
    marks = {label: look for label, look in (MARKS | SEED_MARK).items() if label in found}
    handles = [Line2D([], [], marker=marker, color=colour, linestyle="none", ms=6) for colour, marker in marks.values()]
    columns = {"ncols": LEGEND_COLUMNS, "handletextpad": 0.3, "columnspacing": 1.4}
    if figure.get_layout_engine() is None:
        figure.legend(handles, list(marks), loc="lower center", **columns)
    else:
        figure.legend(handles, list(marks), loc="outside lower center", **columns)


def _with_sizes(rows: Sequence[ComparisonRow]) -> bool:
    """Whether the marks of some methods are larger than those of others."""
    return len({row.trainable_params for row in rows}) > 1


def _legend_of_sizes(figure: Figure, rows: Sequence[ComparisonRow], *, above: float) -> None:
    """How large a mark is for the fewest and the most trained parameters, from a height of the figure on."""
    counts = [row.trainable_params for row in rows]
    ends = [min(counts), max(counts)]
    sizes = [math.sqrt(_mark_area(count)) for count in ends]
    marks = [Line2D([], [], marker="o", color=GRID, mec=MUTED, linestyle="none", ms=size) for size in sizes]
    figure.legend(
        marks,
        [_count_label(count) for count in ends],
        loc="lower center",
        bbox_to_anchor=(0.5, above),
        ncols=len(ends),
        title="trained parameters",
        title_fontsize=LABEL_FONT,
        handletextpad=0.3,
        columnspacing=1.2,
        fontsize=LABEL_FONT,
    )


def _count_label(count: int) -> str:
    """2415 -> "2,415"; 151_277_313 -> "151 million"."""
    if count < 1e6:
        return wording.thousands(count)
    return f"{count / 1e6:.3g} million" if count < 1e9 else f"{count / 1e9:,.3g} billion"


def accuracy_label(split: str) -> str:
    """The label of an axis of accuracy.

    Args:
        split: the images, as an adjective; may be empty.
    """
    return f"accuracy, {split} images" if split else "accuracy"


def around(value: float, interval: Interval) -> Interval:
    """An interval as distances to both sides, as matplotlib wants it."""
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)
