"""What an evaluation found beyond the metrics, as tables for a terminal. Printing them is console's job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # only for annotations: `predict` need not wait for scikit-learn
    from clip_har.evaluation.findings import Findings, Robustness, ShiftScore


def tables(findings: Findings) -> Iterator[Table]:
    """A table for each thing that was found."""
    if findings.robustness is not None:
        yield _robustness(findings.robustness)
    if findings.shift is not None:
        yield _shift(findings.shift)


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
        p = "< 0.001" if found.mcnemar_p < 0.001 else f"{found.mcnemar_p:.3f}"
        table.add_row("run", f"{found.finetuned:.2%}", _interval(found.finetuned_ci95), p)
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _pair(before: float, after: float | None) -> str:
    return f"{100 * before:.1f}" if after is None else f"{100 * before:.1f} → {100 * after:.1f}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
