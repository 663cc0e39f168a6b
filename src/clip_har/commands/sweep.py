"""`sweep`: trainings with sampled settings; the best on validation is chosen, and evaluated on the test images once."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clip_har import report
from clip_har.config import SweepConfig, TrainConfig
from clip_har.errors import TrainingError
from clip_har.evaluation import EvalResult, validation_figures
from clip_har.evaluation.sweep import SweepTable, SweepTest, scores_of_predictions, selection_optimism
from clip_har.experiment.evaluation import evaluate_prepared
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment
from clip_har.experiment.training import finished_or_trained
from clip_har.files import remove_stray_temporaries
from clip_har.locking import WaitingLock, exclusive
from clip_har.progress import SILENT, Progress
from clip_har.sweeping.files import BEST_FILE, JSON_FILE, write_best, write_table
from clip_har.sweeping.jobs import helpers
from clip_har.sweeping.loop import OncePerSweep, work
from clip_har.sweeping.opening import check_sweep, open_sweep
from clip_har.sweeping.trial import Experiments, unpack

if TYPE_CHECKING:  # it needs Optuna, which is an extra
    from clip_har.sweeping.study import Study


def sweep(config: SweepConfig, *, progress: Progress = SILENT, command: str = "") -> SweepTable:
    """Search over training settings; the study in --out is continued if there is one.

    Raises:
        UserError: settings, search space, data, model or folder cannot be used; every trial failed.
    """
    check_sweep(config)
    study, experiments = open_sweep(config, progress)
    if config.search_engine == "ray":
        from clip_har.sweeping.ray_tune import run_on_ray

        run_on_ray(config, study, progress, command)
    else:
        with helpers(config, command, progress):
            work(config, study, experiments, progress, command)
    return _finish(config, study, experiments, progress, command)


def _finish(
    config: SweepConfig, study: Study, experiments: Experiments, progress: Progress, command: str
) -> SweepTable:
    """Write what the trials say together; the last of several workers also evaluates the best on the test images."""
    from clip_har.sweeping.importance import importances

    with WaitingLock(config.out / ".finish.lock"):
        remove_stray_temporaries(config.out)
        experiment = experiments.of(study.best_config())
        table = _table(config, study, experiment)
        running = table.counts()["running"]
        if table.best is None:
            if not running:
                raise _all_failed(table)
            return table
        number = table.best.number
        table = dataclasses.replace(table, importances=importances(study.finished(), table))
        best = study.config_of(number)
        test = _known_test(config.out, table)
        if not running:
            write_best(best, config.out, about=_about(table, config.out / BEST_FILE))
            if config.test and test is None:
                test = _evaluate(best, number, study.folder(number), experiments.of(best), progress, command)
        table = dataclasses.replace(table, test=test)
        write_table(table, config.out)
        report.write_sweep_plots(table, config.out)
    return table


def _table(config: SweepConfig, study: Study, experiment: Experiment) -> SweepTable:
    """All trials, zero-shot on the same images, and the optimism of having chosen the best."""
    trials = study.trials()
    val = experiment.task(config.seed, shots=config.shots).val
    labels_N = val.labels_N.numpy()
    zero_shot = validation_figures(
        Predictions(None, experiment).baseline(val), labels_N, len(experiment.dataset.classes)
    )
    packed = study.predictions()
    optimism = None
    if packed:
        predictions_KN = np.stack([unpack(text) for text in packed.values()])
        optimism = selection_optimism(scores_of_predictions(predictions_KN, labels_N, config.metric), len(labels_N))
    return SweepTable(
        metric=config.metric,
        trials=trials,
        images=len(labels_N),
        zero_shot=zero_shot.accuracy if config.metric == "accuracy" else zero_shot.macro_f1,
        optimism=optimism,
        logarithmic=study.logarithmic(),
    )


def _evaluate(
    config: TrainConfig, number: int, folder: Path, experiment: Experiment, progress: Progress, command: str
) -> SweepTest:
    """The best trial and zero-shot on the test images, with a report in eval/ of the trial's run folder."""
    quiet = OncePerSweep(progress)
    with exclusive(folder):
        run = finished_or_trained(config, folder, experiment, quiet, command)  # trained again if it was deleted
        answering = Predictions(run, experiment, progress)
        with exclusive(folder / "eval"):
            result = evaluate_prepared(
                run, answering, experiment, folder / "eval", seed=config.seed, progress=progress, command=command
            )
    return _test_of(result, number)


def _test_of(result: EvalResult, trial: int) -> SweepTest:
    metrics = result.best.metrics
    return SweepTest(
        trial=trial,
        split=result.split,
        n=result.n,
        accuracy=metrics.accuracy,
        accuracy_ci95=metrics.accuracy_ci95,
        zero_shot=result.baseline.metrics.accuracy,
        difference_ci95=result.difference_ci95,
        mcnemar_p=result.mcnemar_p,
    )


def _known_test(out: Path, table: SweepTable) -> SweepTest | None:
    """What an earlier command measured of the same trial: the test images are not looked at twice."""
    assert table.best is not None
    try:
        content = json.loads((out / JSON_FILE).read_text(encoding="utf-8"))["test"]
        found = SweepTest.from_json(content) if isinstance(content, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found is not None and found.trial == table.best.number else None


def _about(table: SweepTable, path: Path) -> str:
    assert table.best is not None and table.best.score is not None
    return (
        f"Trial {table.best.number}, the best of {len(table.trials)}: validation {table.metric} "
        f"{table.best.score:.2%}. Use it: clip-har train --config {shlex.quote(str(path))} --out runs/best"
    )


def _all_failed(table: SweepTable) -> TrainingError:
    if not table.trials:
        return TrainingError("No trial was started", remedy="Raise --timeout.")
    last = table.trials[-1].note.rstrip(".")
    return TrainingError(
        f"All {len(table.trials)} trials failed; the last: {last}",
        remedy="Fix the settings or the search space, and choose another --out.",
    )
