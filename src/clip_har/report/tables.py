"""One evaluation as JSON, CSV and plain text, for programs and spreadsheets.

Each function returns the text of one file; no file is written here. Markdown and LaTeX are in `result_documents`,
comparisons in `comparison_tables`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.metrics import classification_report

from clip_har import wording
from clip_har.csv_cells import csv_text
from clip_har.evaluation import EvalResult, Evaluated, Metrics

# Names as the CSV files of earlier versions spelled them, and where the value stands in `Metrics`.
METRIC_FIELDS = {
    "Accuracy": "accuracy",
    "Balanced Accuracy": "balanced_accuracy",
    "Top-3 Accuracy": "top3_accuracy",
    "Top-5 Accuracy": "top5_accuracy",
    "Macro Precision": "macro_precision",
    "Macro Recall": "macro_recall",
    "Macro F1": "macro_f1",
    "Weighted Precision": "weighted_precision",
    "Weighted Recall": "weighted_recall",
    "Weighted F1": "weighted_f1",
    "Mean Average Precision": "mean_average_precision",
    "Log Loss": "log_loss",
    "Brier Score": "brier",
    "ECE": "ece",
    "Adaptive ECE": "ece_adaptive",
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


def results_json(result: EvalResult) -> str:
    """results.json."""
    return as_json(result.to_json())


def results_csv(result: EvalResult) -> str:
    """results.csv: a row for each metric and type; the difference is finetuned minus baseline."""
    rows: list[Sequence[object]] = [("Metric", "Value", "Type")]
    before = metric_values(result.baseline.metrics)
    after = metric_values(result.finetuned.metrics) if result.finetuned else {}
    rows += [(name, wording.number(value), "baseline") for name, value in before.items()]
    rows += [(name, wording.number(value), "finetuned") for name, value in after.items()]
    rows += [(name, wording.number(value - before[name]), "difference") for name, value in after.items()]
    return as_csv(rows)


def metric_values(metrics: Metrics) -> dict[str, float]:
    """The scalar metrics under the names that people read."""
    return {name: float(getattr(metrics, field)) for name, field in METRIC_FIELDS.items()}


def confusion_csv(result: EvalResult) -> str:
    """confusion_matrix.csv of the finetuned model, or of the baseline alone: rows true, columns answers."""
    rows: list[Sequence[object]] = [("", *result.classes)]
    confusion = result.best.metrics.confusion.tolist()
    rows += [(name, *counts) for name, counts in zip(result.classes, confusion, strict=True)]
    return as_csv(rows)


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
    return as_csv(rows)


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


def _answers(model: Evaluated, classes: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the confidence of the answer to each image."""
    return [
        (classes[index], wording.number(float(confidence)))
        for index, confidence in zip(model.predictions, model.confidence, strict=True)
    ]


def as_json(content: object) -> str:
    """The text of a JSON file; not-a-number is refused."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file whose first row is the header."""
    header, *others = rows
    return csv_text(header, others)
