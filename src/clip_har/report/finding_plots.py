"""Findings of an evaluation -> plots: reliability, risk-coverage, corruptions, WiSE-FT beyond the test split.

Plots of the metrics are in `plots`, the map of embeddings in `embedding_map`, colours and formats in `style`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation.findings import Confidence, CorruptionScore, ReliabilityBin, Robustness, WiseCurve, WisePoint
from clip_har.report.parts import ReportParts
from clip_har.report.plots import PAGE_WIDTH
from clip_har.report.style import ACCENT, BASELINE, INK, MUTED, WRONG, Plot, render
from clip_har.report.unknown_plot import unknown_plot

FINDING_PLOTS = {
    "reliability": "reliability.png",
    "risk_coverage": "risk_coverage.png",
    "corruptions": "corruptions.png",
    "wise_beyond": "wise_ft_beyond.png",
    "unknown": "unknown_actions.png",
}
"""Plot -> file name."""
CORRUPTION_COLUMNS = 4
# Colour and line of each curve through the mixtures, so that they are told apart without colour.
WISE_LINES = {
    "in_domain": (ACCENT, "o-"),
    "corrupted": (WRONG, "s--"),
    "shift": (INK, "^-."),
    "unseen": (BASELINE, "D:"),
}
WISE_NAMES = {
    "in_domain": "test images",
    "corrupted": "corrupted test images",
    "shift": "other dataset",
    "unseen": "unseen classes",
}
Models = Mapping[str, Confidence]


def finding_plots(findings: ReportParts, name: str) -> dict[str, Plot]:
    """The plots of what was found, under the keys of `FINDING_PLOTS`.

    Args:
        findings: what there is.
        name: the adapted model's method.
    """
    label = wording.shortened(wording.method_label(name), 22)
    models = confidences(findings, label)
    plots = {}
    if models:
        plots["reliability"] = reliability_plot(models)
        plots["risk_coverage"] = risk_coverage_plot(models)
    if findings.robustness is not None and findings.robustness.scores:
        plots["corruptions"] = corruption_plot(findings.robustness, label)
    if findings.wise_curve is not None:
        plots["wise_beyond"] = wise_plot(findings.wise_curve)
    if findings.unknown is not None:
        plots["unknown"] = unknown_plot(findings.unknown)
    return plots


def confidences(findings: ReportParts, label: str) -> dict[str, Confidence]:
    """The models whose confidence was examined, by name, zero-shot first."""
    found = {"zero-shot": findings.confidence_baseline, label: findings.confidence_finetuned}
    return {name: confidence for name, confidence in found.items() if confidence is not None}


def reliability_plot(models: Models) -> Plot:
    """Reliability diagrams (DeGroot & Fienberg 1983) of each model, before and after temperature scaling."""
    eces = "; ".join(
        f"{name}: ECE {found.ece_before:.3f} before and {found.ece_after:.3f} after" for name, found in models.items()
    )
    return render(
        partial(_draw_reliability, models),
        name="reliability",
        title="Reliability before and after temperature scaling",
        description=f"Accuracy against confidence, before and after temperature scaling. {eces}.",
    )


def risk_coverage_plot(models: Models) -> Plot:
    """Error rate among the answered images against the share that is answered, the surest first."""
    areas = "; ".join(f"{name} {found.aurc:.3f}" for name, found in models.items())
    return render(
        partial(_draw_risk_coverage, models),
        name="risk-coverage",
        title="Risk-coverage curve",
        description=f"Error rate against coverage. Area under the curve: {areas}.",
    )


def corruption_plot(robustness: Robustness, label: str) -> Plot:
    """A small plot for each corruption: accuracy at severities 0 (the images as they are) to 5."""
    kinds = by_kind(robustness.scores)
    return render(
        partial(_draw_corruptions, robustness, kinds, label),
        name="corruptions",
        title="Accuracy under corruptions of rising severity",
        description=f"Accuracy under {len(kinds)} corruptions by severity; the table has the same numbers.",
    )


def by_kind(scores: Sequence[CorruptionScore]) -> dict[str, list[CorruptionScore]]:
    """Kind -> scores by rising severity, in the order in which the kinds first occur."""
    kinds: dict[str, list[CorruptionScore]] = {}
    for score in scores:
        kinds.setdefault(score.kind, []).append(score)
    return {kind: sorted(found, key=lambda score: score.severity) for kind, found in kinds.items()}


def wise_plot(curve: WiseCurve) -> Plot:
    """Accuracy of mixtures of zero-shot and tuned weights on the test images and beyond them."""
    return render(
        partial(_draw_wise, curve),
        name="wise-beyond",
        title="Between zero-shot and fine-tuned weights, on and beyond the test images",
        description=f"Accuracy of {len(curve.points)} mixtures of zero-shot (0) and fine-tuned (1) weights; the table "
        "has the same numbers.",
    )


def _draw_reliability(models: Models) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 2.72 * len(models) + 0.1), layout="constrained")
    grid = figure.subplots(len(models), 2, sharex=True, sharey=True, squeeze=False)
    for row, (name, found) in zip(grid, models.items(), strict=True):
        colour = BASELINE if name == "zero-shot" else ACCENT
        _draw_bins(row[0], found.reliability_before, colour, f"{name}, uncalibrated\nECE {found.ece_before:.3f}")
        scaled = f"{name}, temperature {found.temperature:.2f}\nECE {found.ece_after:.3f}"
        _draw_bins(row[1], found.reliability_after, colour, scaled)
        row[0].set_ylabel("accuracy")
    for axes in grid[-1]:
        axes.set_xlabel("confidence")
    return figure


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin], colour: str, title: str) -> None:
    """Bars of accuracy, the gap to the diagonal in outline, the more opaque the more images are in the bin."""
    most = max((entry.count for entry in bins), default=1) or 1
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    for entry in bins:
        if not entry.count:
            continue
        width, left = entry.upper - entry.lower, entry.lower
        axes.bar(left, entry.accuracy, width * 0.92, align="edge", color=colour, alpha=0.3 + 0.7 * entry.count / most)
        axes.hlines(entry.confidence, left, left + width * 0.92, color=WRONG, linewidth=1.4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_title(title, loc="left", color=INK, fontsize=8.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _draw_risk_coverage(models: Models) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for name, found in models.items():
        colour, line = (BASELINE, "--") if name == "zero-shot" else (ACCENT, "-")
        axes.plot(*zip(*found.risk_coverage, strict=True), line, color=colour, linewidth=2, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("coverage, most confident first")
    axes.set_ylabel("error rate")
    axes.legend(loc="upper left")
    return figure


def _draw_corruptions(robustness: Robustness, kinds: Mapping[str, list[CorruptionScore]], label: str) -> Figure:
    columns = min(CORRUPTION_COLUMNS, len(kinds))
    lines = math.ceil(len(kinds) / columns)
    figure = Figure(figsize=(1.9 * columns + 0.5, 1.55 * lines + 0.75), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    places = grid.ravel().tolist()
    for axes, (kind, scores) in zip(places, kinds.items(), strict=False):
        severities = [0, *(score.severity for score in scores)]
        before = [robustness.clean_baseline, *(score.baseline for score in scores)]
        axes.plot(severities, before, "s--", color=BASELINE, ms=3.5, linewidth=1.3, label="zero-shot")
        _draw_finetuned(axes, robustness.clean_finetuned, scores, label)
        axes.set_title(kind.replace("-", " "), loc="left", color=INK, fontsize=9)
        axes.set_xticks(range(6))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(length=0)
    for axes in places[len(kinds) :]:
        axes.set_visible(False)
    for axes in places[max(0, len(kinds) - columns) : len(kinds)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("severity", fontsize=9, color=MUTED)
    handles, names = places[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=2)
    return figure


def _draw_finetuned(axes: Axes, clean: float | None, scores: Sequence[CorruptionScore], label: str) -> None:
    known = [(0, clean), *((score.severity, score.finetuned) for score in scores)]
    points = [(severity, accuracy) for severity, accuracy in known if accuracy is not None]
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color=ACCENT, ms=3.5, linewidth=1.6, label=label)


def _draw_wise(curve: WiseCurve) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    readers: dict[str, Callable[[WisePoint], float | None]] = {
        "in_domain": lambda point: point.in_domain,
        "corrupted": lambda point: point.corrupted,
        "shift": lambda point: point.shift,
        "unseen": lambda point: point.novel,
    }
    for key, read in readers.items():
        known = [(point.alpha, value) for point in curve.points if (value := read(point)) is not None]
        if known:
            colour, line = WISE_LINES[key]
            axes.plot(*zip(*known, strict=True), line, color=colour, ms=4.5, linewidth=1.8, label=WISE_NAMES[key])
    axes.axvline(curve.chosen, color=MUTED, linestyle=":", linewidth=1.2, label="selected on validation")
    axes.set_xlim(-0.03, 1.03)
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("accuracy")
    axes.set_xlabel("alpha, fraction of the fine-tuned weights")
    figure.legend(loc="outside upper left", ncols=3)
    return figure
