"""What an evaluation found beyond the metrics, as tables for a terminal. Printing them is console's job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clip_har import wording
from clip_har.console.table import ShownTable
from clip_har.shown_text import shown
from clip_har.wording import file_size

if TYPE_CHECKING:  # only for annotations: `predict` need not wait for scikit-learn
    from clip_har.evaluation import ComparisonRow
    from clip_har.evaluation.few_shot import FewShotTable
    from clip_har.evaluation.findings import (
        BaseNovel,
        ExplainResult,
        Findings,
        PromptTrial,
        Robustness,
        ShiftScore,
        Unseen,
        WiseCurve,
    )
    from clip_har.evaluation.model_comparison import ComparedModel, ModelTable
    from clip_har.evaluation.unknown import UnknownActions
    from clip_har.exporting.certificate import Certificate


def tables(findings: Findings) -> Iterator[Table]:
    """A table for each thing that was found."""
    if findings.robustness is not None:
        yield _robustness(findings.robustness)
    if findings.shift is not None:
        yield _shift(findings.shift)
    if findings.unseen is not None:
        yield _unseen(findings.unseen)
    if findings.unknown is not None:
        yield _unknown(findings.unknown)
    if findings.wise_curve is not None:
        yield _wise_curve(findings.wise_curve)


def unseen_columns(rows: Sequence[ComparisonRow]) -> Table | None:
    """Base, novel and harmonic mean of each compared method; None where no action was held out."""
    if all(row.unseen is None for row in rows):
        return None
    table = _table("Accuracy on trained (base) and held-out (novel) classes, each among its own class names")
    table.add_column("method")
    for name in ("base", "novel", "harmonic"):
        table.add_column(name, justify="right")
    for row in rows:
        if row.unseen is not None:
            table.add_row(Text(row.name), *_base_novel(row.unseen), Text(row.note))
    return table


def certificate(found: Certificate) -> Table:
    """An export compared with its run in torch."""
    table = ShownTable(
        title=f"{found.images:,} validation images: {found.agreement:.2%} same labels, largest difference of a "
        f"probability {found.largest_probability_difference:.2g}, {file_size(found.bytes)}"
    )
    table.add_column("metric")
    models = (found.original, found.export)
    for name in ("run", "export"):
        table.add_column(name, justify="right")
    table.add_row("accuracy", *(f"{model.accuracy:.2%}" for model in models))
    table.add_row("ECE", *(f"{model.ece:.4f}" for model in models))
    for level in found.original.coverage or {}:
        covered = [f"{(model.coverage or {})[level]:.2%}" for model in models]
        table.add_row(f"coverage of {float(level):.0%} sets", *covered)
    speeds = [model.images_per_second for model in models]
    table.add_row("images/s", *("-" if speed is None else f"{speed:.1f}" for speed in speeds))
    return table


def few_shot(found: FewShotTable) -> Table:
    """A row per method with zero-shot first, a column per number of training images per class; the best is green."""
    from clip_har.report.few_shot_tables import reading_note  # here: `predict` need not wait for matplotlib

    table = _table(reading_note(found))
    table.add_column("images per class", overflow="fold")
    for shots in found.shots:
        table.add_column(f"{shots:,}", justify="right", no_wrap=True)
    if found.zero_shot is not None:
        table.add_row("zero-shot", *[f"{100 * found.zero_shot:.2f} %"] * len(found.shots))
    for method in found.methods:
        cells = []
        for shots in found.shots:
            row = method.rows.get(shots)
            spread = "" if row is None or row.accuracy_std is None else f" ± {100 * row.accuracy_std:.2f}"
            text = "-" if row is None else f"{100 * row.accuracy:.2f}{spread} %"
            cells.append(Text(text, style="bold green" if found.best(shots) is method else ""))
        table.add_row(Text(method.name), *cells)
    return table


def compared_models(found: ModelTable) -> Iterator[Table | Text]:
    """A line for each model with its speed and size, below it one for each method; then what is missing and why."""
    from clip_har.report import model_tables  # here: `predict` need not wait for matplotlib

    labels = wording.model_labels([model.name for model in found.models])
    frontier = {(point.model, point.method) for point in found.points if point.on_frontier}
    table = _table(model_tables.reading_note(found))
    table.collapse_padding = True  # so that it fits 80 columns
    table.add_column("model", overflow="fold")
    for name in ("accuracy", "95 % CI", "F1", "training", "images/s", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in found.ranked:
        size = model_tables.parameters_text(model.figures.parameters)
        rate = model_tables.rate_text(model.figures.images_per_second)
        state = "missing  " if model.error else ""
        table.add_row(Text(labels[model.name], style="bold"), Text(state, style="bold red"), "", "", "", rate, size)
        for method in () if model.error else found.methods:
            table.add_row(*_model_cells(model, method, on_frontier=(model.name, method) in frontier))
    yield table
    yield Text("F1: macro F1; size: parameters; *: no other is as accurate with a faster encoder")
    for line in model_tables.missing_lines(found, labels):
        yield Text(shown(line))


def _model_cells(model: ComparedModel, method: str, *, on_frontier: bool) -> list[str | Text]:
    row = model.row(method)
    name = f"  {method}"
    if row is None:
        return [Text(name), Text("missing  ", style="bold red")]
    spread = "" if row.accuracy_std is None else f" ± {100 * row.accuracy_std:.1f}"
    low, high = row.accuracy_ci95
    mark = "*" if on_frontier else " "
    accuracy = Text(f"{100 * row.accuracy:.1f}{spread} % {mark}", style="bold green" if on_frontier else "")
    interval = f"{100 * low:.1f}-{100 * high:.1f}"
    return [
        Text(name),
        accuracy,
        interval,
        f"{row.macro_f1:.3f}",
        time_text(row.train_seconds) if row.train_seconds else "-",
    ]


def prompt_tables(trial: PromptTrial) -> Iterator[Table | Text]:
    """A row per wording, best first, then what the best changes for each class."""
    table = _table(f"Zero-shot accuracy on {trial.images:,} validation images")
    for name in ("templates", "descriptions", "prompts", "accuracy", "95 % interval", "macro F1", "p", "example"):
        table.add_column(name, justify="left" if name in ("templates", "descriptions", "example") else "right")
    for score in trial.scores:
        p = "default" if score.mcnemar_p is None else _p(score.mcnemar_p)
        figures = (f"{score.accuracy:.2%}", _interval(score.accuracy_ci95), f"{score.macro_f1:.3f}", p)
        table.add_row(score.templates, Text(score.phrasings), str(score.sentences), *figures, Text(score.example))
    yield table
    best = trial.scores[0]
    if best != trial.default:
        changes = _table(f"Recall, default → {best.templates} with {best.phrasings}")
        for name in ("class", "recall", "description"):
            changes.add_column(name, justify="right" if name == "recall" else "left")
        rows = zip(trial.classes, trial.default.recall, best.recall, strict=True)
        for name, before, after in sorted(rows, key=lambda row: row[1] - row[2]):
            changes.add_row(Text(name), _pair(before, after), Text(trial.phrases[best.phrasings][name]))
        yield changes
    yield Text(
        "p: McNemar's test against the default. The best of several on the same images is an optimistic estimate."
    )


def explanation_tables(result: ExplainResult) -> Iterator[Table]:
    """A row per explained image; confused classes; what training changed."""
    table = _table(f"{len(result.explanations)} images explained" + f" ({result.map_method})" * bool(result.map_method))
    for name in ("image", "predicted", "true", "closest prompt", "closest training image", "overlay"):
        table.add_column(name, overflow="fold")
    for item in result.explanations:
        near = f"{item.neighbours[0].path} ({item.neighbours[0].similarity:.2f})" if item.neighbours else "-"
        cells = (item.path, f"{item.predicted} {item.confidence:.0%}", item.true or "?", item.prompts[0][0], near)
        table.add_row(*(Text(cell) for cell in (*cells, item.overlay or "-")))
    yield table
    if result.confused:
        pairs = _table("Most frequent confusions")
        for name in ("true", "predicted", "images", "of"):
            pairs.add_column(name, justify="right" if name in ("images", "of") else "left")
        for pair in result.confused:
            pairs.add_row(Text(pair.true), Text(pair.predicted), str(pair.count), str(pair.support))
        yield pairs
    if result.changes:
        changes = _table("Recall, zero-shot → run")
        for name in ("class", "recall", "fixed", "broken"):
            changes.add_column(name, justify="left" if name == "class" else "right")
        for change in sorted(result.changes, key=lambda change: change.baseline - change.finetuned):
            recall = _pair(change.baseline, change.finetuned)
            changes.add_row(Text(change.name), recall, str(change.fixed), str(change.broken))
        yield changes


def _robustness(found: Robustness) -> Table:
    """A row per corruption, a column per severity: zero-shot's accuracy, and the run's after it."""
    severities = sorted({score.severity for score in found.scores})
    of = {(score.kind, score.severity): score for score in found.scores}
    tuned = found.clean_finetuned is not None
    table = _table(f"Accuracy on {found.images:,} corrupted images" + (", zero-shot → run" if tuned else ""))
    table.add_column("corruption")
    for severity in severities:
        table.add_column(f"severity {severity}", justify="right")
    for kind in dict.fromkeys(score.kind for score in found.scores):
        own = [of[kind, severity] for severity in severities]
        table.add_row(Text(kind), *(_pair(score.baseline, score.finetuned) for score in own))
    blanks = [""] * (len(severities) - 1)
    table.add_row("mean", _pair(found.mean_baseline, found.mean_finetuned), *blanks)
    table.add_row("clean", _pair(found.clean_baseline, found.clean_finetuned), *blanks)
    return table


def _shift(found: ShiftScore) -> Table:
    table = _table(f"{found.name}: {found.images:,} images of {found.classes} shared classes")
    for name in ("model", "accuracy", "95 % interval", "p"):
        table.add_column(name, justify="left" if name == "model" else "right")
    table.add_row("zero-shot", f"{found.baseline:.2%}", _interval(found.baseline_ci95), "")
    if found.finetuned is not None and found.finetuned_ci95 is not None and found.mcnemar_p is not None:
        table.add_row("run", f"{found.finetuned:.2%}", _interval(found.finetuned_ci95), _p(found.mcnemar_p))
    return table


def _unseen(found: Unseen) -> Table:
    table = _table(f"Held-out classes: {', '.join(found.novel_classes)}")
    for name in ("model", "base", "novel", "harmonic"):
        table.add_column(name, justify="left" if name == "model" else "right")
    table.add_row("zero-shot", *_base_novel(found.baseline))
    name = "run (novel: accuracy of zero-shot)" if found.falls_back else "run"
    table.add_row(name, *_base_novel(found.finetuned))
    return table


def _unknown(found: UnknownActions) -> Table:
    """A row per score; the last two columns are at the threshold from validation images."""
    table = _table(f"Unknown actions: {found.known:,} images of trained classes, {found.unknown:,} of held-out ones")
    for name in ("model", "score", "AUROC", "FPR at 95 % TPR", "known rejected", "unknown rejected"):
        table.add_column(name, justify="left" if name in ("model", "score") else "right")
    for one in found.scores:
        figures = (one.auroc, one.fpr95, one.false_alarms, one.detected)
        table.add_row(Text(one.model), one.score, *("-" if x is None else f"{100 * x:.1f} %" for x in figures))
    return table


def _base_novel(found: BaseNovel) -> list[str]:
    return [f"{100 * share:.2f} %" for share in (found.base, found.novel, found.harmonic)]


def _wise_curve(found: WiseCurve) -> Table:
    """A row per alpha; the chosen one is marked."""
    names = [name for name in ("novel", "corrupted", "shift") if getattr(found.points[0], name) is not None]
    table = _table("WiSE-FT: accuracy by alpha, the fraction of the fine-tuned weights")
    for name in ("alpha", "in domain", *names, ""):
        table.add_column(name, justify="right")
    for point in found.points:
        figures = [f"{100 * getattr(point, name):.1f}" for name in ("in_domain", *names)]
        table.add_row(f"{point.alpha:g}", *figures, "selected" if point.alpha == found.chosen else "")
    return table


def _table(title: str) -> Table:
    return ShownTable(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)


def time_text(seconds: float) -> str:
    """At most nine characters: "4.2 s", "24 m 20 s", "2 h 1 m"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} m {round(seconds) % 60} s"
    return f"{round(seconds / 60) // 60} h {round(seconds / 60) % 60} m"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _pair(before: float, after: float | None) -> str:
    return f"{100 * before:.1f}" if after is None else f"{100 * before:.1f} → {100 * after:.1f}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
