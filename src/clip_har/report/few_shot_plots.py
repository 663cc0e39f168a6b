"""Accuracy against the number of training images per class -> a plot.

Which rows these are is decided in `clip_har.evaluation.few_shot`; file formats are in `style`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation.few_shot import FewShotMethod, FewShotTable
from clip_har.report.html import split_word
from clip_har.report.plots import LABEL_LENGTH
from clip_har.report.style import ACCENT, MUTED, Plot, render

# Colours of Okabe & Ito 2008 that show on light and dark ground; marks and dashes tell more lines apart.
COLOURS = (ACCENT, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ("-", "--", ":")
WIDTH, HEIGHT = 6.6, 4.0  # inches
LEGEND_COLUMNS = 4


def few_shot_plot(table: FewShotTable) -> Plot:
    """A line for each method with a band of one standard deviation over the seeds; zero-shot as a horizontal line."""
    numbers = ", ".join(map(str, table.shots))
    return render(
        partial(_draw, table),
        name="few-shot",
        title="Accuracy by training images per class",
        description=(
            f"Accuracy of {wording.counted(len(table.methods), 'method')} at {numbers} training images per class, on a "
            "logarithmic axis; bands are standard deviations over seeds. The table has the same numbers."
        ),
    )


def _draw(table: FewShotTable) -> Figure:
    rows_of_legend = -(-(len(table.methods) + 1) // LEGEND_COLUMNS)
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.2 * rows_of_legend), layout="constrained")
    axes = figure.add_subplot()
    for number, method in enumerate(table.methods):
        _draw_method(axes, method, number)
    if table.zero_shot is not None:
        label = f"zero-shot {wording.percent(table.zero_shot)}"
        axes.axhline(table.zero_shot, color=MUTED, linestyle="--", linewidth=1.2, label=label)
    _scale_shots(axes, table.shots)
    axes.margins(y=0.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel(f"accuracy, {split_word(table.split)} images")
    axes.set_xlabel("training images per class, logarithmic")
    figure.legend(loc="outside lower center", ncols=LEGEND_COLUMNS, handletextpad=0.4, columnspacing=1.2)
    return figure


def _draw_method(axes: Axes, method: FewShotMethod, number: int) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    shots = list(method.rows)
    mean = np.array([row.accuracy for row in method.rows.values()])
    spread = np.array([row.accuracy_std or 0.0 for row in method.rows.values()])
    if spread.any():
        low, high = np.clip(mean - spread, 0, 1), np.clip(mean + spread, 0, 1)
        axes.fill_between(shots, low, high, color=colour, alpha=0.15, linewidth=0)
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    label = wording.shortened(wording.method_label(method.name), LABEL_LENGTH)
    axes.plot(shots, mean, dash, color=colour, marker=marker, ms=5, linewidth=1.8, label=label)


def _scale_shots(axes: Axes, shots: Sequence[int]) -> None:
    """A logarithmic axis to base 2, with a tick at each number."""
    axes.set_xscale("log", base=2)
    room = 2 ** (0.04 * max(1.0, float(np.log2(shots[-1] / shots[0]))))
    axes.set_xlim(shots[0] / room, shots[-1] * room)
    axes.xaxis.set_major_locator(FixedLocator(list(shots)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(shots), [wording.thousands(number) for number in shots])
