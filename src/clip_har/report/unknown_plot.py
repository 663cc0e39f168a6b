"""ROC curves of the scores that tell unknown actions from the classes -> a plot."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from clip_har import wording
from clip_har.evaluation.unknown import UnknownActions
from clip_har.report.style import ACCENT, BASELINE, INK, MUTED, WRONG, Plot, render

COLOURS = {"max-softmax": ACCENT, "energy": WRONG, "mahalanobis": MUTED, "relative-mahalanobis": INK}
LINES = {"max-softmax": "-", "energy": "--", "mahalanobis": ":", "relative-mahalanobis": "-."}
SIDE = 4.2  # inches


def unknown_plot(found: UnknownActions) -> Plot:
    """A curve for each score of the run, and zero-shot's largest probability in grey."""
    areas = "; ".join(f"{score.model} {score.score} {wording.percent(score.auroc)}" for score in found.scores)
    return render(
        partial(_draw, found),
        name="unknown",
        title="Unknown actions",
        description=f"ROC curves of known against unknown images. Area under the curve: {areas}.",
    )


def _draw(found: UnknownActions) -> Figure:
    figure = Figure(figsize=(SIDE, SIDE + 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), ":", color=BASELINE, linewidth=1)
    for score in found.scores:
        zero_shot = wording.is_baseline(score.model)
        if zero_shot and score.score != "max-softmax" and any(not wording.is_baseline(s.model) for s in found.scores):
            continue
        name = f"{wording.method_label(score.model)}, {score.score}" if zero_shot else score.score
        colour = BASELINE if zero_shot else COLOURS[score.score]
        axes.plot(*zip(*score.roc, strict=True), LINES[score.score], color=colour, linewidth=1.8, label=name)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("unknown images accepted")
    axes.set_ylabel("known images accepted")
    axes.legend(loc="lower right")
    return figure
