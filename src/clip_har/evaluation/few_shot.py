"""Accuracy by number of training images per class: what several comparisons, one for each number, say together.

The comparisons' rows come from `comparison`; how the table looks is in report and console.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clip_har.evaluation.comparison import ComparisonRow, baseline_row
from clip_har.wording import is_baseline


@dataclass(frozen=True, kw_only=True)
class FewShotMethod:
    """One method or preset, by the number of training images per class."""

    name: str
    """The entry as it was asked for."""
    rows: Mapping[int, ComparisonRow]
    """Images per class -> the method's row, in ascending order. A number whose trainings failed is missing."""


@dataclass(frozen=True, kw_only=True)
class FewShotTable:
    """Several methods at several numbers of training images per class."""

    shots: tuple[int, ...]
    """Training images per class, in ascending order."""
    methods: tuple[FewShotMethod, ...]
    """Those that are trained, in the order asked."""
    zero_shot: float | None
    """Zero-shot's accuracy, in [0, 1], which does not depend on the number of images; None where it is not known."""
    split: str
    """The split whose images were evaluated."""
    images: int
    """How many these are."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all trainings."""
        rows = [row for method in self.methods for row in method.rows.values()]
        return tuple(sorted({seed for row in rows for seed in row.seeds}))

    def best(self, shots: int) -> FewShotMethod | None:
        """The method of the highest mean accuracy at a number of images per class."""
        known = [method for method in self.methods if shots in method.rows]
        return max(known, key=lambda method: method.rows[shots].accuracy, default=None)

    def to_json(self) -> dict[str, Any]:
        """few_shot.json."""
        return {
            "shots": list(self.shots),
            "split": self.split,
            "images": self.images,
            "zero_shot": self.zero_shot,
            "methods": [
                {
                    "method": method.name,
                    "results": [{"shots": shots, **_figures(row)} for shots, row in method.rows.items()],
                }
                for method in self.methods
            ],
        }


def few_shot_table(
    rows: Mapping[int, Sequence[ComparisonRow]], *, zero_shot: float | None, split: str, images: int
) -> FewShotTable:
    """The table of several comparisons.

    Args:
        rows: training images per class -> the rows of the comparison; at least one.
        zero_shot: its accuracy, where it is not among the rows.
        split: the split whose images were evaluated.
        images: how many these are.
    """
    shots = tuple(sorted(rows))
    names = dict.fromkeys(row.name for number in shots for row in rows[number])
    found = {name: {n: row for n in shots for row in rows[n] if row.name == name} for name in names}
    trained = [name for name in names if not any(is_baseline(row.method) for row in found[name].values())]
    level = next((row.accuracy for n in shots if (row := baseline_row(rows[n])) is not None), zero_shot)
    return FewShotTable(
        shots=shots,
        methods=tuple(FewShotMethod(name=name, rows=found[name]) for name in trained),
        zero_shot=level,
        split=split,
        images=images,
    )


def _figures(row: ComparisonRow) -> dict[str, Any]:
    keys = ("seeds", "accuracies", "accuracy", "accuracy_std", "accuracy_ci95", "macro_f1", "macro_f1_std")
    content = {key: row.to_json()[key] for key in (*keys, "train_seconds", "p", "note")}
    return content | ({} if row.unseen is None else {"unseen": asdict(row.unseen)})
