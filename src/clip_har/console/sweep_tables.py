"""The table of a hyperparameter search in a terminal: its best trials, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clip_har import wording
from clip_har.console.table import ShownTable
from clip_har.evaluation.sweep import SweepTable, SweepTrial

SHOWN = 10


def sweep_table(found: SweepTable) -> Table:
    """The best trials, a column for each setting that was searched."""
    best = found.ranking[:SHOWN]
    names = [name for name in dict.fromkeys(name for trial in best for name in trial.params) if name != "epochs"]
    title = f"Best {len(best)} of {wording.counted(len(found.trials), 'trial')}, on {found.images:,} validation images"
    table = ShownTable(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("trial", found.metric, "epochs", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for place, trial in enumerate(best):
        table.add_row(*_cells(trial, names), style="bold" if place == 0 else "")
    return table


def sweep_lines(found: SweepTable) -> Iterator[str]:
    """How many trials there were, what the best is worth, and how it does on the test images."""
    counts = found.counts()
    said = {"complete": "complete", "pruned": "stopped early", "failed": "failed", "running": "still running"}
    yield "Trials: " + ", ".join(f"{counts[state]} {text}" for state, text in said.items() if counts[state])  # type: ignore[index]
    best, name = found.best, found.metric
    if best is not None and best.score is not None and found.optimism is not None and found.expected is not None:
        yield (
            f"Validation {name} of the best: {best.score:.2%}; expected after selection: {found.expected:.2%} "
            f"({100 * found.optimism:.1f} points less, because it is the best of {counts['complete']} on the same "
            f"images); zero-shot {found.zero_shot:.2%}"
        )
    if found.test is not None:
        test = found.test
        gain = 100 * (test.accuracy - test.zero_shot)
        interval = ""
        if test.difference_ci95 is not None:
            low, high = (100 * bound for bound in test.difference_ci95)
            interval = f", 95 % interval {low:+.2f} to {high:+.2f}"
        where = "Test" if test.split == "test" else "Validation (there is no test split)"
        yield (
            f"{where} accuracy of the best: {test.accuracy:.2%} on {test.n:,} images; zero-shot {test.zero_shot:.2%} "
            f"({gain:+.2f} percentage points{interval})"
        )
    elif counts["running"]:
        yield "The worker that ends last evaluates the best on the test images"


def _cells(trial: SweepTrial, names: list[str]) -> list[Text | str]:
    epochs = "" if trial.epochs is None else str(trial.epochs)
    seconds = "" if trial.seconds is None else wording.duration(trial.seconds)
    values = [_value(trial.params[name]) if name in trial.params else "" for name in names]
    return [str(trial.number), f"{trial.score:.2%}", epochs, seconds, *map(Text, values)]


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
