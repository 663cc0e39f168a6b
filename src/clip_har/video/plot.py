"""A video's timeline as a picture: the smoothed probability of each action over time, and the spans below.

How plots look in general is in report/style.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from clip_har.report.style import BASELINE, GRID, INK, MUTED, render
from clip_har.video.records import Span, VideoPrediction
from clip_har.wording import shortened

WIDTH, HEIGHT = 11.0, 4.6  # inches
SHOWN = 10
"""Actions that have a colour of their own: those of the longest total time."""
POINTS = 2000
"""Columns of the plot at most; of longer videos, means are shown."""
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),  # Okabe & Ito 2008
    *("#6a51a3", "#8c6d31", "#17807e", "#e377c2"),
)
LABEL_LENGTH = 24
_CHARACTER, _LINE = 0.07, 0.14  # inches of a label in the strip
_STRIP = 0.9  # inches, its height


def timeline_png(prediction: VideoPrediction) -> bytes:
    """The plot as a PNG file."""
    name = shortened(Path(prediction.video).name, 60)
    return render(
        partial(_draw, prediction),
        name="timeline",
        title=f"Actions in {name}",
        description="Smoothed probability of each action over time, with the spans below.",
        for_page=False,
    ).png


def _draw(prediction: VideoPrediction) -> Figure:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1.6))
    colours = dict(zip(_longest(prediction), COLOURS, strict=False))
    _draw_probabilities(above, prediction, colours)
    _draw_spans(below, prediction, colours)
    handles = [Patch(color=colour, label=shortened(label, LABEL_LENGTH)) for label, colour in colours.items()]
    handles.append(Patch(color=GRID, label="other actions"))
    if any(span.label is None for span in prediction.spans):
        handles.append(Patch(facecolor="white", edgecolor=BASELINE, hatch="////", label="unsure or none of these"))
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def _longest(prediction: VideoPrediction) -> list[str]:
    """The actions with the longest total time."""
    totals: dict[str, float] = {}
    for span in prediction.spans:
        label = span.top[0][0]
        totals[label] = totals.get(label, 0.0) + span.end - span.start
    return sorted(totals, key=lambda label: -totals[label])[:SHOWN]


def _draw_probabilities(axes: Any, prediction: VideoPrediction, colours: dict[str, str]) -> None:
    times_T, smoothed_TC = _thinned(prediction)
    columns = [prediction.classes.index(label) for label in colours]
    shown_TK = smoothed_TC[:, columns]
    rest_T = np.clip(1 - shown_TK.sum(axis=1), 0, 1)
    axes.stackplot(times_T, *shown_TK.T, rest_T, colors=[*colours.values(), GRID], linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_xlim(times_T[0], prediction.seconds)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("smoothed probability")
    axes.grid(False)


def _draw_spans(axes: Any, prediction: VideoPrediction, colours: dict[str, str]) -> None:
    duration = max(prediction.seconds - float(prediction.times_T[0]), 1e-9)
    for span in prediction.spans:
        width = span.end - span.start
        style: dict[str, Any] = {"facecolor": colours.get(span.label or "", GRID), "edgecolor": "white"}
        if span.label is None:
            style = {"facecolor": "white", "edgecolor": BASELINE, "hatch": "////"}
        axes.barh(0, width, left=span.start, height=1, linewidth=0.8, **style)
        _label(axes, span, WIDTH * 0.7 * width / duration, on_colour=span.label in colours)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.set_ylabel("spans", color=MUTED)
    axes.set_xlabel("time (minutes:seconds)")
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _place: _clock(seconds)))
    axes.grid(False)


def _label(axes: Any, span: Span, inches: float, *, on_colour: bool) -> None:
    """The action's name in its bar, if it fits; upright or turned."""
    text = shortened(span.shown_label, LABEL_LENGTH)
    length = len(text) * _CHARACTER
    turned = inches < length + _CHARACTER
    if turned and (inches < _LINE or length > _STRIP):
        return
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if span.label is None else None
    axes.text(
        (span.start + span.end) / 2,
        0,
        text,
        ha="center",
        va="center",
        fontsize=7.5,
        rotation=90 if turned else 0,
        color="white" if on_colour else INK,
        bbox=box,
    )


def _thinned(prediction: VideoPrediction) -> tuple[Any, Any]:
    """At most `POINTS` times and probabilities, means over as many samples each."""
    times_T, smoothed_TC = prediction.times_T, prediction.smoothed_TC
    together = -(-len(times_T) // POINTS)
    if together > 1:
        starts = np.arange(0, len(times_T), together)
        sizes = np.diff([*starts, len(times_T)])
        times_T = times_T[starts]
        smoothed_TC = np.add.reduceat(smoothed_TC, starts, axis=0) / sizes[:, None]
    # The last sample is shown until the video ends.
    return np.append(times_T, prediction.seconds), np.concatenate([smoothed_TC, smoothed_TC[-1:]])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
