"""Predictions on standard output, as `clip-har predict` prints them without --out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from clip_har.cli.shared import say
from clip_har.config import PredictConfig
from clip_har.console import Output
from clip_har.experiment.predict_files import Answers
from clip_har.experiment.prediction_rows import JsonRows, RowFormat, csv_rows
from clip_har.predict import Prediction, PredictionCounts
from clip_har.progress import Progress
from clip_har.shown_text import shown_json, shown_lines

AT_ONCE = 1000
"""Rows of a table; more images fill several."""
WORTH_A_BAR = 100


def print_predictions(answers: Answers, config: PredictConfig, progress: Progress) -> PredictionCounts:
    """Print the predictions as they come, or a table of many at once, and what could not be read."""
    output, counts = Output(), PredictionCounts()
    form = "json" if config.json else config.format or ("table" if output.is_terminal else "text")
    if form == "table":
        for shown_at_once in _tables(answers, progress):
            output.predictions(shown_at_once)
            _tell(shown_at_once, counts)
    elif form == "json":
        shown_at_once = list(answers.predictions)
        listed = json.dumps([item.to_json() for item in shown_at_once], indent=2, ensure_ascii=False)
        sys.stdout.write(shown_json(listed) + "\n")
        _tell(shown_at_once, counts)
    elif form == "text":
        for item in answers.predictions:
            if item.error is None:
                output.prediction(item)
            _tell([item], counts)
    else:
        _write_rows(answers, config, form, counts)
    if counts.unreadable > 1:
        say(f"{counts.unreadable:,} of {counts.answered + counts.unreadable:,} images cannot be read")
    return counts


def _write_rows(answers: Answers, config: PredictConfig, form: str, counts: PredictionCounts) -> None:
    """Rows for another program; a terminal gets them without what would act."""
    rows: RowFormat = JsonRows() if form == "jsonl" else csv_rows(answers.predictor.run, config)
    harmless: Callable[[str], str] = shown_json if form == "jsonl" else shown_lines if sys.stdout.isatty() else str
    _put(rows.header, harmless)
    for item in answers.predictions:
        _put(rows.row(item), harmless)
        _count([item], counts)


def _put(row: bytes, harmless: Callable[[str], str]) -> None:
    text = harmless(row.decode(errors="surrogateescape"))
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
    sys.stdout.buffer.flush()


def _tables(answers: Answers, progress: Progress) -> Iterator[list[Prediction]]:
    """The rows of each table. The first is waited for with a bar, if it is of more than a few."""
    total = AT_ONCE if answers.total is None else min(answers.total, AT_ONCE)
    first: list[Prediction] = []
    if total < WORTH_A_BAR:
        first = list(islice(answers.predictions, AT_ONCE))
    else:
        with progress.bar("Predicting", total=total, unit="images") as bar:
            for item in islice(answers.predictions, AT_ONCE):
                first.append(item)
                bar.advance()
    while first:
        yield first
        first = list(islice(answers.predictions, AT_ONCE))


def _tell(predictions: Sequence[Prediction], counts: PredictionCounts) -> None:
    _count(predictions, counts)
    for item in predictions:
        if item.error or item.warning:
            say(f"{'cannot read' if item.error else 'warning:'} {item.image}: {item.error or item.warning}")


def _count(predictions: Sequence[Prediction], counts: PredictionCounts) -> None:
    counts.unreadable += sum(item.error is not None for item in predictions)
    counts.answered += sum(item.error is None for item in predictions)
