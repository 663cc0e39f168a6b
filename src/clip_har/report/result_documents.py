"""One evaluation as Markdown to paste and as a LaTeX table, both with intervals.

Each function returns the text of one file; no file is written here. JSON, CSV and plain text are in `tables`.
"""

from __future__ import annotations

from collections.abc import Sequence

from clip_har import wording
from clip_har.evaluation import LOWER_IS_BETTER, ClassMetrics, EvalResult, Evaluated, Interval
from clip_har.report.tables import METRIC_FIELDS

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
MARKDOWN_SPECIAL = "\\`*_[]<>|"
CLASS_HEAD = ("class", "images", "precision", "recall", "F1", "average precision")


def results_markdown(result: EvalResult) -> str:
    """results.md: metrics of both models with 95 % intervals, then the classes of the model in question."""
    models = _models(result)
    head = ["metric", *(f"{wording.method_label(model.name)}, 95 % interval" for model in models)]
    rows = [[name, *cells] for name, cells in _metric_cells(result)]
    if result.finetuned is not None:
        head.append("difference, 95 % interval")
    title = f"{wording.thousands(result.n)} images of the {result.split} split, {len(result.classes)} classes."
    parts = [title, _markdown_table(head, rows)]
    if result.mcnemar_p is not None:
        parts.append(f"McNemar’s test of the two on the same images: {wording.p_value(result.mcnemar_p)}.")
    classes = [_class_cells(entry) for entry in result.best.metrics.per_class]
    parts += [f"Classes, {wording.method_label(result.best.name)}:", _markdown_table(CLASS_HEAD, classes)]
    parts.append(_note(result))
    parts += [f"Warning: {_markdown(warning)}" for warning in result.warnings]
    return "\n\n".join(parts) + "\n"


def results_latex(result: EvalResult) -> str:
    r"""results.tex: the metrics as a table for \input; it needs the package booktabs."""
    head = ["Metric", *(wording.sentence_start(wording.method_label(model.name)) for model in _models(result))]
    if result.finetuned is not None:
        head.append("Difference")
    lines = [
        "% Needs \\usepackage{booktabs}.",
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        _latex_line(head),
        "\\midrule",
        *(_latex_line([name, *cells]) for name, cells in _metric_cells(result)),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    test = "" if result.mcnemar_p is None else f" McNemar’s test: {wording.p_value(result.mcnemar_p)}."
    note = f"{wording.thousands(result.n)} {result.split} images, {len(result.classes)} classes.{test} {_note(result)}"
    return "\n".join([*lines, f"% {note}", ""])


def _models(result: EvalResult) -> list[Evaluated]:
    return [result.baseline] if result.finetuned is None else [result.baseline, result.finetuned]


def _metric_cells(result: EvalResult) -> list[tuple[str, list[str]]]:
    """Each metric's label, with an arrow to its better side, and its cells."""
    rows = []
    for label, name in METRIC_FIELDS.items():
        values = [getattr(model.metrics, name) for model in _models(result)]
        intervals = [model.metrics.intervals[name] for model in _models(result)]
        cells = [_with_interval(value, interval) for value, interval in zip(values, intervals, strict=True)]
        if result.finetuned is not None:
            cells.append(_with_interval(values[1] - values[0], result.differences[name], sign=True))
        rows.append((f"{label} {'↓' if name in LOWER_IS_BETTER else '↑'}", cells))
    return rows


def _class_cells(entry: ClassMetrics) -> list[str]:
    if not entry.support:
        return [entry.name, "0", *["–"] * 4]
    return [
        entry.name,
        str(entry.support),
        _with_interval(entry.precision, entry.precision_ci95),
        _with_interval(entry.recall, entry.recall_ci95),
        _with_interval(entry.f1, entry.f1_ci95),
        _with_interval(entry.average_precision, entry.average_precision_ci95),
    ]


def _with_interval(value: float, interval: Interval, *, sign: bool = False) -> str:
    shown = (wording.signed(number, 3) if sign else f"{number:.3f}" for number in (value, *interval))
    middle, low, high = shown
    return f"{middle} [{low}, {high}]"


def _note(result: EvalResult) -> str:
    return (
        f"Intervals: bootstrap of {len(next(iter(result.baseline.samples.values()))):,} resamples within the true "
        "classes, in pairs for differences."
    )


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    aligned = ["---", *["---:"] * (len(head) - 1)]
    cells = [head, aligned, *([_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _markdown(text: str) -> str:
    line = wording.one_line(text)
    return "".join(f"\\{character}" if character in MARKDOWN_SPECIAL else character for character in line)


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    escaped = "".join(LATEX_SPECIAL.get(character, character) for character in wording.one_line(text))
    for character, command in (("↓", r"$\downarrow$"), ("↑", r"$\uparrow$"), (wording.MINUS, "$-$")):
        escaped = escaped.replace(character, command)
    return escaped
