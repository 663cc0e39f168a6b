"""A hyperparameter search -> plots: scores by trial, importance of the settings, and settings against scores.

What the trials are is decided in `clip_har.evaluation.sweep`; file formats are in `style`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation.sweep import SweepTable, SweepTrial, best_so_far
from clip_har.files import write_atomically
from clip_har.report.few_shot_plots import COLOURS
from clip_har.report.plots import LABEL_LENGTH
from clip_har.report.style import ACCENT, BASELINE, GRID, INK, MUTED, WRONG, Plot, render

SWEEP_PLOTS = {"history": "history.png", "importance": "importance.png", "parallel": "parallel_coordinates.png"}
WIDTH, HEIGHT = 6.6, 3.6  # inches
BAR_HEIGHT = 0.27
LINE = "#9aa4b0"
"""Of the best so far: the marks are in the methods' colours."""
MOST_LINES = 200
"""Trials in the parallel coordinates: the best, and of the others the latest."""
FEW = 5
"""Up to so many whole numbers each have a tick of their own, at equal distances."""
ABSENT = -0.12
"""Height of the place for trials that do not have a setting, below the axis from 0 to 1."""
SCORES = LinearSegmentedColormap.from_list("scores", ["#c9d3de", ACCENT, "#0b3a6f"])


def write_sweep_plots(table: SweepTable, out: Path) -> None:
    """Write history.png, importance.png if the trials tell it, and parallel_coordinates.png."""
    for key, plot in sweep_plots(table).items():
        write_atomically(out / SWEEP_PLOTS[key], plot.png)


def sweep_plots(table: SweepTable) -> dict[str, Plot]:
    """The plots of a table that has a complete trial."""
    plots = {
        "history": render(
            partial(_draw_history, table),
            name="history",
            title=f"Validation {table.metric} by trial",
            description="Score of each trial, the best so far, and what is expected of the best after selection.",
            for_page=False,
        ),
        "parallel": render(
            partial(_draw_parallel, table),
            name="parallel",
            title=f"Settings and validation {table.metric}",
            description="A line for each trial through its settings, in the colour of its score.",
            for_page=False,
        ),
    }
    if table.importances:
        plots["importance"] = render(
            partial(_draw_importance, table),
            name="importance",
            title="Importance of the settings (fANOVA)",
            description="Fraction of the score's variance between trials that each setting explains.",
            for_page=False,
        )
    return plots


# --- scores by trial --------------------------------------------------------------------------------------


def _draw_history(table: SweepTable) -> Figure:
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.3), layout="constrained")
    axes = figure.add_subplot()
    handles = _draw_trials(axes, table)
    steps = best_so_far(table.trials)
    numbers, heights = [number for number, _ in steps], [score for _, score in steps]
    last = max(trial.number for trial in table.trials)
    axes.step([*numbers, last], [*heights, heights[-1]], where="post", color=LINE, linewidth=1.5, zorder=2)
    handles.append(Line2D([], [], color=LINE, linewidth=1.5, label="best so far"))
    best = table.best
    assert best is not None and best.score is not None
    axes.plot(best.number, best.score, "o", ms=10, mfc="none", mec=INK, mew=1.2, zorder=4)
    if table.expected is not None:
        axes.axhline(table.expected, color=INK, linestyle=":", linewidth=1.3)
        label = f"best, expected after selection: {table.expected:.1%}"
        handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1.3, label=label))
    _limit(axes, table)
    if axes.get_ylim()[0] <= table.zero_shot:
        axes.axhline(table.zero_shot, color=MUTED, linestyle="--", linewidth=1.2)
        label = f"zero-shot: {table.zero_shot:.1%}"
        handles.append(Line2D([], [], color=MUTED, linestyle="--", linewidth=1.2, label=label))
    axes.set_xlim(-0.03 * max(1, last) - 0.3, last * 1.03 + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {table.metric}")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handletextpad=0.5, columnspacing=1.4)
    return figure


def _draw_trials(axes: Axes, table: SweepTable) -> list[Line2D | Patch]:
    """A mark for each trial, in the colour of its method if several are searched; those stopped early are crosses."""
    handles: list[Line2D | Patch] = []
    for (name, trials), colour in zip(_by_method(table.trials), _colours(), strict=False):
        complete = [(trial.number, trial.score) for trial in trials if trial.state == "complete"]
        stopped = [(trial.number, trial.score) for trial in trials if trial.state == "pruned" and trial.score]
        if complete:
            axes.plot(*zip(*complete, strict=True), "o", color=colour, ms=4.5, mew=0, alpha=0.85, zorder=3)
            handles.append(Line2D([], [], marker="o", linestyle="", color=colour, ms=4.5, label=name))
        if stopped:
            axes.plot(*zip(*stopped, strict=True), "x", color=colour, ms=4.5, mew=1.1, alpha=0.7, zorder=3)
    if any(trial.state == "pruned" for trial in table.trials):
        handles.append(Line2D([], [], marker="x", linestyle="", color=MUTED, ms=4.5, label="stopped early"))
    return handles


def _by_method(trials: Sequence[SweepTrial]) -> list[tuple[str, list[SweepTrial]]]:
    groups: dict[str, list[SweepTrial]] = {}
    for trial in trials:
        name = trial.params.get("method", trial.params.get("preset"))
        groups.setdefault("trial" if name is None else wording.method_label(str(name)), []).append(trial)
    return list(groups.items())


def _colours() -> Sequence[str]:
    return (*COLOURS, BASELINE, *(str(colour) for colour in ("#8c564b", "#7f7f7f", "#bcbd22")))


def _limit(axes: Axes, table: SweepTable) -> None:
    """Leave out what failed badly: the axis begins where three quarters of the trials are, or at zero-shot."""
    scores = np.array([trial.score for trial in table.trials if trial.state == "complete" and trial.score is not None])
    top = float(scores.max())
    low = min(float(np.quantile(scores, 0.1)), top - 0.01)
    if table.zero_shot > low - (top - low):
        low = min(low, table.zero_shot)
    room = 0.12 * (top - low)
    axes.set_ylim(max(0.0, low - room), min(1.0, top + room))


# --- importance -------------------------------------------------------------------------------------------


def _draw_importance(table: SweepTable) -> Figure:
    rows = sum(len(found.shares) + 1 for found in table.importances)
    figure = Figure(figsize=(WIDTH, 0.9 + BAR_HEIGHT * rows), layout="constrained")
    axes = figure.add_subplot()
    height, ticks, names = 0.0, [], []
    for found in table.importances:
        group = found.group if found.group == "all trials" else wording.method_label(found.group)
        label = f"{group} ({wording.counted(found.trials, 'trial')})".replace("all trials (", "all (")
        axes.text(0, -height, label, ha="left", va="center", color=MUTED, fontsize=8.5)
        height += 1
        for name, share in found.shares.items():
            axes.barh(-height, share, height=0.68, color=ACCENT)
            axes.text(share + 0.01, -height, f"{share:.0%}", va="center", color=INK, fontsize=8.5)
            ticks.append(-height)
            names.append(wording.shortened(name, LABEL_LENGTH))
            height += 1
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.08)
    axes.set_ylim(-height + 0.4, 0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlabel("fraction of the variance between trials")
    return figure


# --- parallel coordinates ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One setting's axis, from 0 to 1."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def place(self, value: Any) -> float:
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        scale = math.log if self.log else float
        span = scale(self.high) - scale(self.low)
        return 0.5 if span == 0 else (scale(value) - scale(self.low)) / span

    def ticks(self) -> list[tuple[float, str]]:
        if self.choices:
            return [(self.place(value), wording.shortened(str(value), 16)) for value in self.choices]
        if self.low == self.high:
            return [(0.5, f"{self.low:.3g}")]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(self.place(value), f"{value:.2g}") for value in (self.low, middle, self.high)]


def _axes_of(table: SweepTable, trials: Sequence[SweepTrial]) -> list[_Axis]:
    found = []
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        values = [trial.params[name] for trial in trials if name in trial.params]
        different = list({str(value): value for value in values}.values())
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not numbers or (len(different) <= FEW and all(isinstance(value, int) for value in values)):
            ordered = sorted(different) if numbers else sorted(different, key=str)
            found.append(_Axis(name=name, choices=tuple(ordered)))
        else:
            found.append(_Axis(name=name, low=min(values), high=max(values), log=name in table.logarithmic))
    return found


def _draw_parallel(table: SweepTable) -> Figure:
    ranking = table.ranking
    trials = [trial for trial in table.trials if trial.state == "complete"][-MOST_LINES:]
    trials = sorted({trial.number: trial for trial in [*trials, ranking[0]]}.values(), key=lambda t: t.score or 0.0)
    axes_of = _axes_of(table, trials)
    figure = Figure(figsize=(max(WIDTH, 1.6 + 1.35 * len(axes_of)), HEIGHT + 0.4), layout="constrained")
    axes = figure.add_subplot()
    scores = [trial.score for trial in trials if trial.score is not None]
    spread = Normalize(float(np.quantile(scores, 0.1)), max(scores))
    places = {axis.name: number for number, axis in enumerate(axes_of)}
    for trial in trials:
        heights = [axis.place(trial.params[axis.name]) if axis.name in trial.params else ABSENT for axis in axes_of]
        assert trial.score is not None
        best = trial.number == ranking[0].number
        colour = WRONG if best else SCORES(spread(trial.score))
        axes.plot(
            range(len(axes_of)),
            heights,
            "o-",
            color=colour,
            linewidth=2.4 if best else 1.0,
            ms=3,
            alpha=1.0 if best else 0.65,
            zorder=5 if best else 2,
        )
    absent = any(len(trial.params) < len(axes_of) for trial in trials)
    for axis in axes_of:
        _draw_axis(axes, places[axis.name], axis)
    axes.set_xlim(-0.75 if absent else -0.25, len(axes_of) - 1 + 0.6)
    axes.set_ylim(ABSENT - 0.06 if absent else -0.06, 1.06)
    names = [wording.shortened(axis.name, 18) + ("\n(log)" if axis.log else "") for axis in axes_of]
    axes.set_xticks(range(len(axes_of)), names)
    axes.set_yticks([])
    if absent:
        axes.text(-0.08, ABSENT, "not used", va="center", ha="right", fontsize=8, color=MUTED)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(ScalarMappable(spread, SCORES), ax=axes, pad=0.02, aspect=28, extend="min")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    bar.outline.set_visible(False)
    bar.set_label(f"validation {table.metric}")
    label = f"best: trial {ranking[0].number}, {ranking[0].score:.1%}"
    figure.legend(handles=[Line2D([], [], color=WRONG, linewidth=2.4, label=label)], loc="outside lower left")
    return figure


def _draw_axis(axes: Axes, place: int, axis: _Axis) -> None:
    axes.plot([place, place], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    for height, text in axis.ticks():
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
        axes.text(place + 0.05, height, text, va="center", ha="left", fontsize=7.5, color=INK, bbox=box, zorder=6)
