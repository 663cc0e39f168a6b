"""Results as JSON, CSV, Markdown and plain text, for programs and spreadsheets.

Each function returns the text of one file; no file is written here.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.metrics import classification_report

from clip_har.evaluation import ComparisonRow, EvalResult, Evaluated, Metrics
from clip_har.report import wording

# Names as the CSV files of earlier versions spelled them, and where the value stands in `Metrics`.
METRIC_FIELDS = {
    "Accuracy": "accuracy",
    "Top-3 Accuracy": "top3_accuracy",
    "Top-5 Accuracy": "top5_accuracy",
    "Macro Precision": "macro_precision",
    "Macro Recall": "macro_recall",
    "Macro F1": "macro_f1",
    "Weighted Precision": "weighted_precision",
    "Weighted Recall": "weighted_recall",
    "Weighted F1": "weighted_f1",
    "ECE": "ece",
}
PREDICTION_COLUMNS = (
    "path",
    "true",
    "baseline",
    "baseline_confidence",
    "finetuned",
    "finetuned_confidence",
    "correct",
)
COMPARISON_COLUMNS = (
    "method",
    "accuracy",
    "accuracy_ci95_low",
    "accuracy_ci95_high",
    "macro_f1",
    "ece",
    "trainable_params",
    "trainable_fraction",
    "peak_memory_bytes",
    "train_seconds",
    "mcnemar_p",
)


def results_json(result: EvalResult) -> str:
    """results.json."""
    return _json(result.to_json())


def results_csv(result: EvalResult) -> str:
    """results.csv: a row for each metric and type; the difference is finetuned minus baseline."""
    rows: list[Sequence[object]] = [("Metric", "Value", "Type")]
    before = metric_values(result.baseline.metrics)
    after = metric_values(result.finetuned.metrics) if result.finetuned else {}
    rows += [(name, wording.number(value), "baseline") for name, value in before.items()]
    rows += [(name, wording.number(value), "finetuned") for name, value in after.items()]
    rows += [(name, wording.number(value - before[name]), "difference") for name, value in after.items()]
    return _csv(rows)


def metric_values(metrics: Metrics) -> dict[str, float]:
    """The scalar metrics under the names that people read."""
    return {name: float(getattr(metrics, field)) for name, field in METRIC_FIELDS.items()}


def confusion_csv(result: EvalResult) -> str:
    """confusion_matrix.csv of the finetuned model, or of the baseline alone: rows true, columns answers."""
    rows: list[Sequence[object]] = [("", *result.classes)]
    confusion = result.best.metrics.confusion.tolist()
    rows += [(name, *counts) for name, counts in zip(result.classes, confusion, strict=True)]
    return _csv(rows)


def predictions_csv(result: EvalResult) -> str:
    """predictions.csv: a row for each image; `correct` is about the finetuned model where there is one."""
    n = result.n
    baseline = _answers(result.baseline, result.classes)
    finetuned = _answers(result.finetuned, result.classes) if result.finetuned else [("", "")] * n
    correct = np.where(result.best.predictions == result.targets_N, "true", "false")
    rows: list[Sequence[object]] = [PREDICTION_COLUMNS]
    rows += [
        (result.paths[i], result.classes[result.targets_N[i]], *baseline[i], *finetuned[i], correct[i])
        for i in range(n)
    ]
    return _csv(rows)


def classification_text(result: EvalResult) -> str:
    """classification_report.txt: scikit-learn's report for each model, over the classes that have images."""
    models = [result.baseline] + ([result.finetuned] if result.finetuned else [])
    present = np.unique(result.targets_N)
    parts = []
    for model in models:
        report = classification_report(
            result.targets_N,
            model.predictions,
            labels=present,
            target_names=[wording.one_line(result.classes[index]) for index in present],
            digits=4,
            zero_division=0,
        )
        title = f"{wording.method_label(model.name)}: {result.n} images of the {result.split} split"
        parts.append(f"{title}\n{'=' * len(title)}\n{report}")
    return "\n\n".join(parts)


def comparison_json(rows: Sequence[ComparisonRow]) -> str:
    """comparison.json."""
    return _json([row.to_json() for row in rows])


def comparison_csv(rows: Sequence[ComparisonRow]) -> str:
    """comparison.csv: the columns of comparison.json, the interval in two."""
    table: list[Sequence[object]] = [COMPARISON_COLUMNS]
    for row in rows:
        values = (
            row.accuracy,
            *row.accuracy_ci95,
            row.macro_f1,
            row.ece,
            row.trainable_params,
            row.trainable_fraction,
            row.peak_memory_bytes,
            row.train_seconds,
            row.mcnemar_p,
        )
        table.append((row.method, *("" if value is None else wording.number(value) for value in values)))
    return _csv(table)


def comparison_markdown(rows: Sequence[ComparisonRow], result: EvalResult | None) -> str:
    """comparison.md: a table to paste, with a line on how to read it.

    `result`, the evaluation of any of the methods, tells which images these are.
    """
    lines = [
        "| method | accuracy | 95 % interval | macro F1 | ECE | trainable parameters | training | "
        "peak memory | McNemar against zero-shot |",
        "| --- | ---: | :---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {' | '.join(_markdown_cells(row))} |" for row in rows]
    images = "The same images" if result is None else f"{result.n} images of the {result.split} split, the same"
    note = (
        f"{images} for every method. Intervals: bootstrap over images. "
        "McNemar: two-sided p that a method and zero-shot are right equally often."
    )
    return "\n".join([*lines, "", note, ""])


def _markdown_cells(row: ComparisonRow) -> list[str]:
    cells = [
        wording.method_label(row.method).replace("|", "\\|"),
        wording.percent(row.accuracy),
        wording.percent_interval(row.accuracy_ci95),
        f"{row.macro_f1:.3f}",
        f"{row.ece:.3f}",
        f"{wording.thousands(row.trainable_params)} ({wording.share(row.trainable_fraction)})",
        "–" if row.train_seconds is None else wording.duration(row.train_seconds),
        "–" if row.peak_memory_bytes is None else wording.size(row.peak_memory_bytes),
        "–" if row.mcnemar_p is None else wording.p_value(row.mcnemar_p),
    ]
    return [cell.replace(wording.NARROW_SPACE, " ") for cell in cells]


def _answers(model: Evaluated, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the confidence of the answer to each image."""
    return [
        (classes[index], wording.number(float(confidence)))
        for index, confidence in zip(model.predictions, model.confidence, strict=True)
    ]


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
