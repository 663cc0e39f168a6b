"""The epoch whose weights are kept: the best on validation or, when an encoder is trained, a later one as good."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clip_har.experiment.fit import TrainingRun
from clip_har.methods.lp_ft import LpFt
from clip_har.methods.ridge import Ridge
from tasks import settings

VAL = 100
ERROR = math.sqrt(0.8 * 0.2 / VAL)
"""One standard error of the accuracies below."""


def kept(figures: list[tuple[float, float]], *, reads: str = "image", solved: bool = False, patience: int = 0) -> Any:
    """The run after epochs with these macro F1 and losses; all have an accuracy of 0.8."""
    run = cast(Any, object.__new__(TrainingRun))
    given = settings(patience=patience)
    run.method, run.settings = (Ridge if solved else LpFt)(given), given
    run.classifier, run.task = SimpleNamespace(reads=reads), SimpleNamespace(val=range(VAL))
    run.history = []
    for number, (f1, loss) in enumerate(figures, start=1):
        entry = {"epoch": number, "val_macro_f1": f1, "val_loss": loss, "val_accuracy": 0.8}
        entry["best"] = run._is_kept(entry)
        for other in run.history:
            other["best"] &= not entry["best"]
        run.history.append(entry)
    return run


def epoch(run: Any) -> int:
    (found,) = [entry["epoch"] for entry in run.history if entry["best"]]
    return int(found)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([(0.7, 1.0), (0.8, 1.0), (0.8 - 0.9 * ERROR, 1.0)], 3),
        ([(0.7, 1.0), (0.8, 1.0), (0.8 - 1.1 * ERROR, 1.0)], 2),
        ([(0.8, 1.0), (0.8 - 0.9 * ERROR, 1.0), (0.8 - 1.8 * ERROR, 1.0)], 2),  # from the best, not from the kept one
        ([(0.7, 1.0), (0.8, 1.0), (0.1, 9.0), (0.79, 1.0)], 4),
        ([(0.5, 1.0)], 1),
    ],
)
def test_an_encoder_keeps_the_last_epoch_that_is_not_clearly_worse(
    figures: list[tuple[float, float]], expected: int
) -> None:
    assert epoch(kept(figures)) == expected


@pytest.mark.parametrize("given", [{"reads": "embedding"}, {"solved": True}])
def test_on_cached_features_the_best_is_kept(given: dict[str, Any]) -> None:
    assert epoch(kept([(0.7, 1.2), (0.8, 1.0), (0.79, 1.1)], **given)) == 2


def test_patience_counts_from_the_best_epoch() -> None:
    run = kept([(0.8, 1.0), (0.79, 1.0), (0.79, 1.0)], patience=2)
    assert epoch(run) == 3 and run._stops_early()
    assert not kept([(0.8, 1.0), (0.79, 1.0)], patience=2)._stops_early()
