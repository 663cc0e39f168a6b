"""Several models at several methods as JSON and CSV, and the cells that page and terminal share.

Each function returns text; no file is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clip_har import wording
from clip_har.evaluation.model_comparison import ComparedModel, ModelTable, results_of, row_figures
from clip_har.report.comparison_tables import csv_cell
from clip_har.report.tables import as_csv, as_json

COLUMNS = (
    "model",
    "method",
    "accuracy",
    "accuracy_ci95_low",
    "accuracy_ci95_high",
    "accuracy_std",
    "seeds",
    "accuracies",
    "macro_f1",
    "macro_f1_std",
    "train_seconds",
    "trainable_params",
    "p",
    "pareto",
    "images_per_second",
    "seconds_per_image",
    "parameters",
    "image_parameters",
    "weights_float32_bytes",
    "image_size",
    "embed_dim",
    "gflops",
    "licence",
    "research_only",
    "pretraining_data",
    "missing",
    "note",
)
"""`missing` is why there are no figures; empty if there are."""


def models_json(table: ModelTable) -> str:
    """models.json."""
    return as_json(table.to_json())


def models_csv(table: ModelTable) -> str:
    """models.csv: a row for each model and method, the most accurate model first; lists with spaces."""
    frontier = {(point.model, point.method) for point in table.points if point.on_frontier}
    rows = []
    for model, method, row in results_of(table):
        values = {**_model_values(model), "method": method, "missing": model.missing(method)}
        if row is not None:
            values |= row_figures(row)
            values["accuracy_ci95_low"], values["accuracy_ci95_high"] = row.accuracy_ci95
            values["pareto"] = (model.name, method) in frontier
        rows.append([csv_cell(values.get(column)) for column in COLUMNS])
    return as_csv([COLUMNS, *rows])


def _model_values(model: ComparedModel) -> dict[str, Any]:
    return {
        **asdict(model.figures),
        "model": model.name,
        "image_size": image_side(model),
        "seconds_per_image": model.figures.seconds_per_image,
        "weights_float32_bytes": model.figures.weights_bytes,
    }


def image_side(model: ComparedModel) -> str:
    """Side of the model's images in pixels: "224", or height and width where they differ; "" if not known."""
    size = model.figures.image_size
    if size is None:
        return ""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def parameters_text(count: int | None) -> str:
    """151_277_313 -> "151.3 M"; "" if not known."""
    if count is None:
        return ""
    return f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} B"


def rate_text(images_per_second: float | None) -> str:
    """37.84 -> "38", 3.784 -> "3.8"; "" if not known."""
    if images_per_second is None:
        return ""
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def missing_lines(table: ModelTable, labels: Mapping[str, str]) -> list[str]:
    """What could not be compared and why, a line each."""
    return [
        f"{labels[model]}{f', {wording.method_label(method)}' if method else ''}: {reason}"
        for model, method, reason in table.missing
    ]


def missing_summary(table: ModelTable) -> str:
    """What could not be compared, on a line: "Missing: 1 of 3 models (RN50); 1 of 6 results (demo with prolip)"."""
    labels = wording.model_labels([model.name for model in table.models])
    models = [labels[model] for model, method, _ in table.missing if not method]
    results = [f"{labels[model]} with {method}" for model, method, _ in table.missing if method]
    said = [f"{len(models)} of {wording.counted(len(table.models), 'model')} ({', '.join(models)})"] if models else []
    total = len(table.compared) * len(table.methods)
    said += [f"{len(results)} of {wording.counted(total, 'result')} ({', '.join(results)})"] if results else []
    return f"Missing: {'; '.join(said)}" if said else ""


def reading_note(table: ModelTable) -> str:
    """What the numbers are, in a sentence or two."""
    images = f"Accuracy on {wording.counted(table.images, f'{table.split} image')}, the same for every model."
    if not table.seeds:
        return images
    return f"{images} Mean ± sample standard deviation over seeds {', '.join(map(str, table.seeds))}."
