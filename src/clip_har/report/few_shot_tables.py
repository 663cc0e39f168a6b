"""Accuracy by number of training images per class as JSON and CSV, and the cells that page and terminal share.

Each function returns text; no file is written here.
"""

from __future__ import annotations

from clip_har import wording
from clip_har.evaluation.few_shot import FewShotTable
from clip_har.report.comparison_tables import csv_cell
from clip_har.report.tables import as_csv, as_json

COLUMNS = (
    "method",
    "shots",
    "accuracy",
    "accuracy_std",
    "accuracy_ci95_low",
    "accuracy_ci95_high",
    "seeds",
    "accuracies",
    "macro_f1",
    "macro_f1_std",
    "train_seconds",
    "p",
    "note",
)


def few_shot_json(table: FewShotTable) -> str:
    """few_shot.json."""
    return as_json(table.to_json())


def few_shot_csv(table: FewShotTable) -> str:
    """few_shot.csv: a row for each method and number of images, zero-shot first with 0 images; lists with spaces."""
    rows = []
    for method in table.methods:
        for shots, row in method.rows.items():
            values = {**row.to_json(), "method": method.name, "shots": shots}
            values["accuracy_ci95_low"], values["accuracy_ci95_high"] = row.accuracy_ci95
            rows.append([csv_cell(values[column]) for column in COLUMNS])
    if table.zero_shot is not None:
        known = {"method": "zero-shot", "shots": 0, "accuracy": table.zero_shot}
        rows.insert(0, [csv_cell(known.get(column)) for column in COLUMNS])
    return as_csv([COLUMNS, *rows])


def reading_note(table: FewShotTable) -> str:
    """What the numbers are, in a sentence or two."""
    images = f"Accuracy on {wording.counted(table.images, f'{table.split} image')}."
    if len(table.seeds) < 2:
        return images
    seeds = ", ".join(map(str, table.seeds))
    return (
        f"{images} Mean ± sample standard deviation over seeds {seeds}; a seed also decides which training images are "
        "sampled."
    )
