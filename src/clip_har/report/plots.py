"""One evaluation -> plots: confusion matrix, F1 per class, training curve, interpolation curve.

Comparisons are in `comparison_plots`, colours and file formats in `style`, sheets of photographs in `sheet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from clip_har import wording
from clip_har.evaluation import EpochRecord, EvalResult, Evaluated
from clip_har.report.confusion import CLASSES_LIMIT
from clip_har.report.style import (
    ACCENT,
    BASELINE,
    GRID,
    HEAT_RIGHT,
    HEAT_WRONG,
    INK,
    MUTED,
    ON_HEAT,
    WRONG,
    Plot,
    render,
)

COUNTS_UP_TO_CLASSES = 25
LABELS_UP_TO_CLASSES = 100
UNLABELLED_SIDE = 12.0  # inches
LABEL_LENGTH = 26
CANDIDATE_LETTERS = 45
"""Letters of all candidates' names together that fit side by side below a curve."""
TITLE_NAME_LENGTH = 22
PAGE_WIDTH = 5.2  # inches: narrow enough for text of 9 pt to stay readable on a phone
WHITE_TEXT_FROM_ALPHA = 0.8


def confusion_plot(result: EvalResult, model: Evaluated, *, name: str) -> Plot:
    """Confusion matrix: colour is the share of the row, blue where right and orange where wrong.

    With more than `LABELS_UP_TO_CLASSES` classes it has no labels and keeps one size.
    """
    label = _title_name(model.name)
    return render(
        partial(_draw_confusion, model, result.classes),
        name=name,
        title=f"{label}: confusion matrix",
        description=(
            f"Confusion matrix of {label} over {len(result.classes)} classes and {result.n} images; "
            f"{wording.percent(model.metrics.accuracy)} lie on the diagonal."
        ),
        for_page=len(result.classes) > CLASSES_LIMIT,  # with fewer, the page has a table
    )


def per_class_plot(result: EvalResult) -> Plot:
    """F1 of each class that has images, best first: zero-shot against the finetuned model if there is one.

    Of more than `LABELS_UP_TO_CLASSES` classes those with the lowest F1 are shown.
    """
    best = _title_name(result.best.name)
    against = "" if result.finetuned is None else " against zero-shot"
    return render(
        partial(_draw_per_class, result),
        name="per-class",
        title=f"F1 of each class: {best}{against}",
        description=f"F1 of each class for {best}{against}; the table of classes has the same numbers.",
        for_page=False,
    )


def training_plot(history: Sequence[EpochRecord], zero_shot: float | None) -> Plot:
    """Losses and validation accuracy of each epoch, or of each candidate of a solver, the selected one marked.

    Args:
        history: at least one epoch.
        zero_shot: its accuracy on the same validation images, drawn as a level to compare with; None if not known.
    """
    kept = kept_epoch(history)
    judged_by = _judged_by(history)
    selected = "" if kept is None else f" Selected on {judged_by}: {_epoch_name(kept)}."
    of_candidates = bool(history[0].candidate)
    count = f"of {wording.counted(len(history), 'candidate')} ({history[0].candidate} to {history[-1].candidate})"
    if not of_candidates:
        count = f"over {wording.counted(len(history), 'epoch')}"
    return render(
        partial(_draw_training, history, zero_shot),
        name="training",
        title=f"Training: loss and {judged_by} accuracy by {'candidate' if of_candidates else 'epoch'}",
        description=f"Loss and {judged_by} accuracy {count}.{selected}",
    )


def interpolation_plot(points: Sequence[tuple[float, float]], chosen: float | None = None) -> Plot:
    """Validation accuracy of weights between zero-shot and tuned: WiSE-FT, Wortsman et al. 2022 (arXiv 2109.01903).

    Args:
        points: share of the tuned weights, from 0 (zero-shot) to 1 (tuned), and validation accuracy; at least one.
        chosen: the share that was taken; `chosen_point` says which it is otherwise.
    """
    alpha, accuracy = chosen_point(points, chosen)
    return render(
        partial(_draw_interpolation, sorted(points), (alpha, accuracy)),
        name="interpolation",
        title="Weight interpolation between zero-shot and fine-tuned",
        description=(
            f"Validation accuracy at {len(points)} points between zero-shot (0) and fine-tuned (1) weights; "
            f"{alpha:g} was selected, with {wording.percent(accuracy)}."
        ),
    )


def chosen_point(points: Sequence[tuple[float, float]], chosen: float | None = None) -> tuple[float, float]:
    """The point nearest to `chosen`, or without it the most accurate; of equals the one nearest to zero-shot."""
    if chosen is None:
        return min(points, key=lambda point: (-point[1], point[0]))
    return min(points, key=lambda point: abs(point[0] - chosen))


def kept_epoch(history: Sequence[EpochRecord]) -> EpochRecord | None:
    """The epoch whose weights were kept: the last that was the best so far."""
    return next((record for record in reversed(history) if record.best), None)


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, one for each position, and no lines but the vertical grid."""
    axes.set_yticks(range(len(names)), [wording.shortened(name, LABEL_LENGTH) for name in names])
    axes.set_ylim(-0.7, len(names) - 0.25)
    axes.grid(axis="y", visible=False)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _draw_confusion(model: Evaluated, classes: Sequence[str]) -> Figure:
    n_classes = len(classes)
    if n_classes > LABELS_UP_TO_CLASSES:
        return _draw_unlabelled(model)
    cell = float(np.interp(n_classes, [3, 15, 60], [0.62, 0.37, 0.165]))
    font = float(np.interp(n_classes, [3, 15, 60], [9.5, 8.5, 7.0]))
    labels = [wording.shortened(name, LABEL_LENGTH) for name in classes]
    margin = 0.5 + max(map(len, labels)) * font * 0.0087
    width = max(4.2, n_classes * cell + margin + 0.2)
    figure = Figure(figsize=(width, n_classes * cell + margin + 0.35), layout="constrained")
    axes = figure.add_subplot()
    confusion = model.metrics.confusion
    heat = _heat(confusion)
    axes.imshow(heat, interpolation="none", aspect="equal")
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_yticks(range(n_classes), labels, fontsize=font)
    axes.set_xticks(range(n_classes), labels, fontsize=font, rotation=90)
    axes.set_ylabel("true class")
    axes.set_xlabel("predicted class")
    axes.tick_params(length=0)
    edges = np.arange(n_classes + 1) - 0.5
    axes.hlines(edges, -0.5, n_classes - 0.5, color=GRID, linewidth=0.4)
    axes.vlines(edges, -0.5, n_classes - 0.5, color=GRID, linewidth=0.4)
    if n_classes <= COUNTS_UP_TO_CLASSES:
        _write_counts(axes, confusion, heat[..., 3], font)
    return figure


def _draw_unlabelled(model: Evaluated) -> Figure:
    figure = Figure(figsize=(UNLABELLED_SIDE, UNLABELLED_SIDE), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(_heat(model.metrics.confusion), interpolation="nearest", aspect="equal")
    axes.grid(False)
    axes.set_ylabel("true class")
    axes.set_xlabel("predicted class")
    return figure


def _heat(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """RGBA, [C, C, 4]: transparent where nothing falls, so that the page's ground shows in light and dark."""
    support = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    heat = np.empty((*confusion.shape, 4))
    heat[..., :3] = to_rgb(HEAT_WRONG)
    np.einsum("iic->ic", heat)[:, :3] = to_rgb(HEAT_RIGHT)
    # Below 1, the exponent lifts rare mistakes above the ground; the counts say how rare.
    heat[..., 3] = (confusion / support) ** 0.75
    return heat


def _write_counts(axes: Axes, confusion: npt.NDArray[np.int64], alpha: npt.NDArray[np.float64], font: float) -> None:
    size = font if confusion.max() < 100 else font * 0.85
    for row, column in np.argwhere(confusion > 0):
        colour = ON_HEAT if alpha[row, column] > WHITE_TEXT_FROM_ALPHA else INK
        text = str(confusion[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _draw_per_class(result: EvalResult) -> Figure:
    entries = result.best.metrics.per_class
    order = sorted((i for i, e in enumerate(entries) if e.support), key=lambda i: (entries[i].f1, -i))
    order = order[:LABELS_UP_TO_CLASSES]
    values = np.array([entries[i].f1 for i in order])
    before = np.array([result.baseline.metrics.per_class[i].f1 for i in order])
    figure = Figure(figsize=(PAGE_WIDTH, 1.05 + 0.225 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    if result.finetuned is None:
        axes.barh(np.arange(len(order)), values, height=0.62, color=BASELINE)
    else:
        _draw_dumbbells(axes, before, values, _title_name(result.finetuned.name))
        figure.legend(loc="outside lower center", ncols=3, handletextpad=0.3, columnspacing=1.2)
    label_rows(axes, [entries[i].name for i in order])
    axes.set_xlim(-0.015, 1.015)
    axes.set_xlabel("F1")
    return figure


def _draw_dumbbells(axes: Axes, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], label: str) -> None:
    positions = np.arange(len(before))
    worse = after < before
    axes.hlines(positions, before, after, colors=list(np.where(worse, WRONG, ACCENT)), linewidth=2, alpha=0.5)
    axes.plot(before, positions, "o", color=BASELINE, markersize=5.5, label="zero-shot")
    axes.plot(after[~worse], positions[~worse], "o", color=ACCENT, markersize=6.5, label=label)
    if worse.any():
        below = f"{label}, below zero-shot"
        axes.plot(after[worse], positions[worse], "D", color=WRONG, markersize=5.5, label=below)


def _epoch_name(record: EpochRecord) -> str:
    return record.candidate or f"epoch {record.epoch}"


def _judged_by(history: Sequence[EpochRecord]) -> str:
    return "cross-validation" if history[0].cross_validated else "validation"


def _draw_training(history: Sequence[EpochRecord], zero_shot: float | None) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 4.4), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    epochs = [record.epoch for record in history]
    loss_axes.plot(epochs, [r.train_loss for r in history], "o-", color=BASELINE, ms=3.5, label="training")
    _plot_known(loss_axes, epochs, [r.val_loss for r in history], label=_judged_by(history))
    loss_axes.set_ylabel("loss")
    _plot_known(accuracy_axes, epochs, [r.val_accuracy for r in history], label=_judged_by(history))
    if zero_shot is not None:
        accuracy_axes.axhline(zero_shot, color=MUTED, linestyle="--", linewidth=1.2, label="zero-shot, validation")
    kept = kept_epoch(history)
    if kept is not None:
        for axes in (loss_axes, accuracy_axes):
            axes.axvline(kept.epoch, color=ACCENT, linewidth=1, alpha=0.35)
        if kept.val_accuracy is not None:
            star = f"selected: {_epoch_name(kept)}"
            accuracy_axes.plot(kept.epoch, kept.val_accuracy, "*", color=ACCENT, markersize=13, label=star)
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    accuracy_axes.set_ylabel("accuracy")
    _label_epochs(accuracy_axes, history)
    accuracy_axes.margins(y=0.12)
    loss_axes.legend()
    accuracy_axes.legend()
    return figure


def _label_epochs(axes: Axes, history: Sequence[EpochRecord]) -> None:
    """Epochs as numbers, candidates by what they are: slanted where they are too long to stand side by side."""
    if not history[0].candidate:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        return
    names = [wording.shortened(record.candidate, LABEL_LENGTH) for record in history]
    axes.set_xticks([record.epoch for record in history], names)
    axes.set_xlabel("candidate")
    if sum(map(len, names)) > CANDIDATE_LETTERS:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor", fontsize=8)


def _plot_known(axes: Axes, epochs: Sequence[int], values: Sequence[float | None], *, label: str) -> None:
    known = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "o-", color=ACCENT, ms=3.5, label=label)


def _draw_interpolation(points: Sequence[tuple[float, float]], chosen: tuple[float, float]) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True), "o-", color=BASELINE, ms=4)
    for share, name, side in ((0.0, "zero-shot", "left"), (1.0, "fine-tuned", "right")):
        for alpha, accuracy in points:
            if alpha == share:
                axes.plot(alpha, accuracy, "s", color=BASELINE, ms=7)
                said = f"{name} {wording.percent(accuracy)}"
                axes.annotate(said, (alpha, accuracy), xytext=(0, -14), textcoords="offset points", ha=side, fontsize=8)
    axes.plot(*chosen, "*", color=ACCENT, markersize=14)
    said = f"selected: {chosen[0]:g}, {wording.percent(chosen[1])}"
    # Near the right edge the words go to the left of the star, so that they stay in the plot.
    side = "right" if chosen[0] > 0.7 else "left" if chosen[0] < 0.3 else "center"
    axes.annotate(said, chosen, xytext=(0, 9), textcoords="offset points", ha=side, fontsize=8.5, color=ACCENT)
    axes.set_xlim(-0.03, 1.03)
    axes.margins(y=0.22)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.set_ylabel("validation accuracy")
    axes.set_xlabel("alpha, fraction of the fine-tuned weights")
    return figure


def _title_name(name: str) -> str:
    return wording.shortened(wording.method_label(name), TITLE_NAME_LENGTH)
