"""How much each searched setting matters, by fANOVA (Hutter et al. 2014, proceedings.mlr.press/v32/hutter14.html)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import optuna

from clip_har.evaluation.sweep import Importance, SweepTable, SweepTrial

FEWEST_TRIALS = 8
ALL = "all trials"


def importances(study: optuna.Study, table: SweepTable) -> tuple[Importance, ...]:
    """Of the settings that all complete trials have; then, for each method, of those that only its trials have.

    Args:
        study: the complete trials of the table, in its order.
    """
    return tuple(_importances(study, [trial for trial in table.trials if trial.state == "complete"]))


def _importances(study: optuna.Study, trials: Sequence[SweepTrial]) -> Iterator[Importance]:
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    shared = [name for name in names if all(name in trial.params for trial in trials)]
    yield from _within(ALL, range(len(trials)), shared, study, trials)
    kind = next((name for name in ("method", "preset") if name in shared), None)
    if kind is None:
        return
    for method in dict.fromkeys(trial.params[kind] for trial in trials):
        rows = [row for row, trial in enumerate(trials) if trial.params[kind] == method]
        own = [name for name in names if name not in shared and all(name in trials[row].params for row in rows)]
        yield from _within(str(method), rows, own, study, trials)


def _within(
    group: str, rows: Sequence[int], names: Sequence[str], study: optuna.Study, trials: Sequence[SweepTrial]
) -> Iterator[Importance]:
    """The shares within some trials; nothing where they are too few or all alike."""
    varying = [name for name in names if len({str(trials[row].params[name]) for row in rows}) > 1]
    if len(rows) < FEWEST_TRIALS or not varying or len({trials[row].score for row in rows}) < 2:
        return
    part = optuna.create_study(direction="maximize")
    part.add_trials([study.trials[row] for row in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(part, evaluator=evaluator, params=varying)
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    yield Importance(group=group, trials=len(rows), shares={name: float(share) for name, share in ordered.items()})
