"""--engine ray: Ray Tune runs the trials of a study, on a cluster or on this machine.

The study stays in the process that was started, which asks it for trials and tells it what came of them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clip_har.cluster.session import LOCAL, connected
from clip_har.config import RayConfig, SweepConfig
from clip_har.errors import UserError
from clip_har.files import cache_folder
from clip_har.progress import SILENT, Progress
from clip_har.sweeping.jobs import from_json, to_json
from clip_har.sweeping.loop import OncePerSweep, line_of
from clip_har.sweeping.space import trial_config
from clip_har.sweeping.study import OpenTrial, Study
from clip_har.sweeping.trial import EPOCH_METRICS, Experiments, Outcome, run_trial

RAY_FOLDER = "ray"
GRACE_EPOCHS, FEWEST_TRIALS = 3, 5
"""The median rule stops no trial before so many epochs, and needs so many trials; as with Optuna's pruner."""
MOST_EPOCHS = 1_000_000
_prepared: dict[str, Experiments] = {}
"""In a Ray worker: dataset and models of the sweep that it works on, for its next trial."""


def run_on_ray(config: SweepConfig, study: Study, progress: Progress, command: str) -> None:
    """Run trials on Ray until the study has enough of them or the time is over."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths are relative to where the command was started
    address = "auto" if os.environ.get("RAY_ADDRESS") else LOCAL
    with connected(RayConfig(engine="ray", ray_address=address)) as ray:
        _tune(ray, config, study, progress, command)


def _tune(ray: Any, config: SweepConfig, study: Study, progress: Progress, command: str) -> None:
    from ray import tune

    store = config.out.resolve() / RAY_FOLDER
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") and config.backbone.device != "cpu" else 0
        trainable = tune.with_parameters(_train, config_json=to_json(_for_any_machine(config)), command=command)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=_searcher(config, study, progress),
                scheduler=_scheduler(config),
                num_samples=config.trials,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(store), verbose=0),
        ).fit()
    finally:
        study.release()
        shutil.rmtree(store, ignore_errors=True)


def _for_any_machine(config: SweepConfig) -> SweepConfig:
    """The config with paths that hold in the processes of Ray."""
    cache = cache_folder(config.backbone.cache).resolve()
    return replace(config, out=config.out.resolve(), backbone=replace(config.backbone, cache=cache))


def _train(assigned: Mapping[str, Any], *, config_json: str, command: str) -> None:
    """One trial, in a process of Ray."""
    from ray import tune

    config = from_json(config_json)
    metric = EPOCH_METRICS[config.metric]

    def on_epoch(entry: Mapping[str, Any]) -> None:
        tune.report({"score": entry[metric], "epoch": entry["epoch"]})

    try:
        if config_json not in _prepared:
            _prepared.clear()
            _prepared[config_json] = Experiments(config, SILENT)
        given = trial_config(assigned["values"], config.fixed)
        outcome = run_trial(given, Path(assigned["folder"]), _prepared[config_json], SILENT, command, on_epoch)
    except UserError as error:
        outcome = Outcome(state="failed", note=str(error))
    score = outcome.score(config.metric)
    tune.report(
        {
            "score": 0.0 if score is None else score,
            "epoch": outcome.epochs or 0,
            "outcome": json.dumps(outcome.to_json()),
        }
    )


def _scheduler(config: SweepConfig) -> Any:
    """What stops trials early, by the epochs that they report."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    if config.pruner == "median":
        return MedianStoppingRule(
            time_attr="training_iteration",
            grace_period=GRACE_EPOCHS,
            min_samples_required=FEWEST_TRIALS,
            hard_stop=True,
        )
    if config.pruner == "halving":
        return ASHAScheduler(time_attr="training_iteration", grace_period=1, reduction_factor=3, max_t=MOST_EPOCHS)
    return FIFOScheduler()


@dataclass
class _Assigned:
    """A trial of the study that Ray is running."""

    opened: OpenTrial
    epoch: int = 0


def _searcher(config: SweepConfig, study: Study, progress: Progress) -> Any:
    """The study as Ray Tune asks for trials; a function, because Ray takes seconds to import."""
    from ray.tune.search import Searcher

    ends = time.monotonic() + config.timeout if config.timeout is not None else float("inf")
    quiet = OncePerSweep(progress)

    class StudySearcher(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(metric="score", mode="max")
            self._assigned: dict[str, _Assigned] = {}

        def suggest(self, trial_id: str) -> Any:
            opened = study.next_trial() if time.monotonic() < ends else None
            if opened is None:
                return Searcher.FINISHED
            self._assigned[trial_id] = _Assigned(opened=opened)
            return {"values": study.values(opened.number), "folder": str(opened.folder.resolve())}

        def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
            if "outcome" not in result and trial_id in self._assigned:
                assigned = self._assigned[trial_id]
                assigned.epoch = int(result["epoch"])
                study.report(assigned.opened, assigned.epoch, float(result["score"]))

        def on_trial_complete(
            self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
        ) -> None:
            assigned = self._assigned.pop(trial_id, None)
            if assigned is None:
                return
            if result is not None and "outcome" in result:
                outcome = Outcome(**json.loads(result["outcome"]))
            elif error or result is None:
                outcome = Outcome(state="failed", note="its Ray process has failed")
            else:
                took = float(result.get("time_total_s", 0.0))
                outcome = Outcome(state="pruned", epochs=int(result["epoch"]), seconds=took)
            if outcome.state == "failed":
                quiet.warn(f"{assigned.opened.number}: {outcome.note}")
            study.finish(assigned.opened, outcome)
            progress.note(line_of(assigned.opened.number, outcome, study.trials(), config))

        def __deepcopy__(self, _memo: object) -> StudySearcher:
            return self

        def __reduce__(self) -> tuple[type, tuple[()]]:  # Ray saves its state, and the study is not part of it
            return object, ()

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()  # the study is in its own file

        def restore(self, checkpoint_path: str) -> None:
            del checkpoint_path

    return StudySearcher()
