"""A comparison's rows as JSON, CSV, Markdown and plain text, for programs, spreadsheets and pasting.

Each function returns the text of one file; no file is written here.
"""

from __future__ import annotations

from collections.abc import Sequence

from clip_har import wording
from clip_har.evaluation import ComparisonRow, EvalResult, PairedTest
from clip_har.report import standing
from clip_har.report.tables import as_csv, as_json

COLUMNS = (
    "method",
    "accuracy",
    "accuracy_ci95_low",
    "accuracy_ci95_high",
    "accuracy_std",
    "seeds",
    "accuracies",
    "macro_f1",
    "macro_f1_std",
    "ece",
    "trainable_params",
    "trainable_fraction",
    "peak_memory_bytes",
    "train_seconds",
    "p",
    "mcnemar_p",
    "paired_test",
    "collapsed",
    "base_method",
    "note",
)
UNSEEN_COLUMNS = ("base", "novel", "harmonic")
"""Added where actions were held out of training."""
PAIRWISE_COLUMNS = ("first", "second", "difference", "p", "p_holm", "test")
MARKDOWN_HEAD = (
    "method",
    "accuracy",
    "95 % interval",
    "gain, points",
    "p",
    "standing",
    "macro F1",
    "ECE",
    "trainable parameters",
    "training",
    "peak memory",
)
TEXT_HEAD = ("method", "accuracy", "95 % interval", "macro F1", "ECE", "trained", "share", "training", "memory", "p")

UNSEEN_TITLE = "Accuracy on trained (base) and held-out (novel) classes, each among its own class names:"


def comparison_json(rows: Sequence[ComparisonRow]) -> str:
    """comparison.json."""
    return as_json([row.to_json() for row in rows])


def comparison_csv(rows: Sequence[ComparisonRow]) -> str:
    """comparison.csv: the values of comparison.json; the interval in two columns, lists with spaces between."""
    columns = (*COLUMNS, *(UNSEEN_COLUMNS if with_unseen(rows) else ()))
    return as_csv([columns, *([csv_cell(value) for value in _csv_values(row, columns)] for row in rows)])


def with_unseen(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The rows that were scored on held-out actions as well."""
    return [row for row in rows if row.unseen is not None]


def pairwise_csv(tests: Sequence[PairedTest]) -> str:
    """pairwise.csv: a row for each pair of entries."""
    rows = [(test.first, test.second, test.difference, test.p, test.p_holm, test.test) for test in tests]
    return as_csv([PAIRWISE_COLUMNS, *([csv_cell(value) for value in row] for row in rows)])


def comparison_markdown(rows: Sequence[ComparisonRow], result: EvalResult | None, level: float | None) -> str:
    """comparison.md: a table to paste, with lines on how to read it.

    Args:
        rows: as they are to stand.
        result: the evaluation of any of the methods, which tells what images these are.
        level: zero-shot's accuracy.
    """
    aligned = ["---", "---:", ":---:", "---:", "---:", "---", *["---:"] * 5]
    lines = [_markdown_line(MARKDOWN_HEAD), _markdown_line(aligned)]
    lines += [_markdown_line(_markdown_cells(row, level, largest_memory(rows))) for row in rows]
    if scored := with_unseen(rows):
        lines += ["", UNSEEN_TITLE, "", _markdown_line(("method", *UNSEEN_COLUMNS))]
        lines += [_markdown_line(("---", "---:", "---:", "---:"))]
        lines += [_markdown_line((wording.method_label(row.name), *_unseen_cells(row))) for row in scored]
    return "\n".join([*lines, "", " ".join([_images(result), *standing.reading_notes(rows)]), ""])


def comparison_text(rows: Sequence[ComparisonRow], result: EvalResult | None, level: float | None) -> str:
    """comparison.txt: the table in columns, then a line for each method on what its gain is worth."""
    table = [list(TEXT_HEAD), *(_text_cells(row, largest_memory(rows)) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(TEXT_HEAD))]
    lines = []
    for line in table:
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    verdicts = standing.verdict_lines(rows, level)
    width = max(len(row.name) for row in rows)
    unseen = [
        f"{row.name:<{width}}  " + "  ".join(f"{head} {cell}" for head, cell in zip(UNSEEN_COLUMNS, cells, strict=True))
        for row in with_unseen(rows)
        if (cells := _unseen_cells(row))
    ]
    held_out = [[UNSEEN_TITLE, *unseen]] if unseen else []
    parts = [lines, *([verdicts] if verdicts else []), *held_out, [_images(result), *standing.reading_notes(rows)]]
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    return text.replace(wording.NARROW_SPACE, " ")


def accuracy_text(row: ComparisonRow, digits: int = 2) -> str:
    """Accuracy with its spread over seeds: "93.21 %", "93.21 ± 0.35 %"."""
    value = wording.percent(row.accuracy, digits)
    if row.accuracy_std is None:
        return value
    return value.replace(wording.NARROW_SPACE, f" {wording.spread(row.accuracy_std, digits)}{wording.NARROW_SPACE}")


def macro_f1_text(row: ComparisonRow) -> str:
    """Macro F1 with its spread over seeds: "0.931", "0.931 ± 0.004"."""
    return f"{row.macro_f1:.3f}" + ("" if row.macro_f1_std is None else f" ± {row.macro_f1_std:.3f}")


def largest_memory(rows: Sequence[ComparisonRow]) -> int:
    """The most bytes of any row, whose unit the column of memory has."""
    return max((row.peak_memory_bytes or 0 for row in rows), default=0)


def _unseen_cells(row: ComparisonRow) -> list[str]:
    assert row.unseen is not None
    return [wording.percent(getattr(row.unseen, name)) for name in UNSEEN_COLUMNS]


def _csv_values(row: ComparisonRow, columns: Sequence[str]) -> list[object]:
    content = row.to_json()
    content["accuracy_ci95_low"], content["accuracy_ci95_high"] = row.accuracy_ci95
    content |= content.get("unseen") or dict.fromkeys(UNSEEN_COLUMNS)
    return [content[column] for column in columns]


def csv_cell(value: object) -> str:
    """A value as comparison.csv has it: empty for None, lists with spaces between."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(csv_cell(item) for item in value)
    return wording.number(value) if isinstance(value, (int, float)) else str(value)


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cells(row: ComparisonRow, level: float | None, memory: int) -> list[str]:
    where = standing.standing(row, level)
    said = f"**{where}**" if where in standing.LOUD else where
    known = level is not None and where != standing.ZERO_SHOT
    cells = [
        wording.method_label(row.name),
        accuracy_text(row, 1),
        wording.percent_interval(row.accuracy_ci95),
        wording.points(row.accuracy - level) if known and level is not None else "–",
        "–" if row.mcnemar_p is None else wording.p_value(row.mcnemar_p),
        f"{said}; {wording.one_line(row.note)}" if row.note else said,
        macro_f1_text(row),
        f"{row.ece:.3f}",
        f"{wording.thousands(row.trainable_params)} ({wording.share(row.trainable_fraction)})",
        "–" if row.train_seconds is None else wording.duration(row.train_seconds),
        "–" if row.peak_memory_bytes is None else wording.size(row.peak_memory_bytes, memory),
    ]
    return [cell.replace(wording.NARROW_SPACE, " ").replace("|", "\\|") for cell in cells]


def _text_cells(row: ComparisonRow, memory: int) -> list[str]:
    low, high = row.accuracy_ci95
    cells = [
        wording.one_line(row.name),
        accuracy_text(row),
        wording.percent_interval((low, high)),
        f"{row.macro_f1:.3f}",
        f"{row.ece:.3f}",
        wording.thousands(row.trainable_params),
        wording.share(row.trainable_fraction) if row.trainable_params else "-",
        "-" if row.train_seconds is None else wording.duration(row.train_seconds),
        "-" if row.peak_memory_bytes is None else wording.size(row.peak_memory_bytes, memory),
        "-" if row.mcnemar_p is None else wording.p_value(row.mcnemar_p).removeprefix("p ").removeprefix("= "),
    ]
    return [cell.replace(wording.NARROW_SPACE, " ") for cell in cells]


def _images(result: EvalResult | None) -> str:
    if result is None:
        return "The same images for every method."
    return f"{wording.thousands(result.n)} images of the {result.split} split, the same for every method."
