"""One worker of a sweep: it runs trial after trial until no more are wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clip_har import wording
from clip_har.config import SweepConfig
from clip_har.evaluation.sweep import SweepTrial, rank
from clip_har.progress import SILENT, Bar, Progress
from clip_har.sweeping.trial import EPOCH_METRICS, Experiments, Outcome, StopTrialError, run_trial

if TYPE_CHECKING:  # it needs Optuna, which is an extra
    from clip_har.sweeping.study import OpenTrial, Study


class OncePerSweep:
    """Passes a trial's warnings on, each only once; its notes and bars would be too many."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        del text

    def warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.warn(text)

    @contextmanager
    def bar(self, description: str, *, total: int | None, unit: str) -> Iterator[Bar]:
        with SILENT.bar(description, total=total, unit=unit) as bar:
            yield bar


def work(
    config: SweepConfig,
    study: Study,
    experiments: Experiments,
    progress: Progress,
    command: str,
    *,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Run trials until the study has enough of them, the time is over, or no more are wanted.

    Args:
        wanted: asked before each trial.
    """
    ends = time.monotonic() + config.timeout if config.timeout is not None else float("inf")
    quiet = OncePerSweep(progress)
    while time.monotonic() < ends and wanted():
        opened = study.next_trial()
        if opened is None:
            return
        if opened.again:
            progress.note(f"Trial {opened.number} was interrupted: continuing it")

        def on_epoch(entry: Mapping[str, Any], opened: OpenTrial = opened) -> None:
            if study.report(opened, entry["epoch"], entry[EPOCH_METRICS[config.metric]]):
                raise StopTrialError(entry["epoch"])

        try:
            outcome = run_trial(opened.config, opened.folder, experiments, quiet, command, on_epoch)
            study.finish(opened, outcome)
        finally:
            study.release()
        progress.note(line_of(opened.number, outcome, study.trials(), config))


def line_of(number: int, outcome: Outcome, trials: tuple[SweepTrial, ...], config: SweepConfig) -> str:
    """What stays to read of a trial."""
    done = sum(trial.state != "running" for trial in trials)
    what = f"{done}/{config.trials} trial {number}: {shown_params(trials[number].params)}"
    if outcome.state == "pruned":
        return f"{what}  stopped after epoch {outcome.epochs}"
    if outcome.state == "failed":
        return f"{what}  failed"
    score = outcome.score(config.metric)
    assert score is not None
    best = min((trial for trial in trials if trial.state == "complete"), key=rank)
    took = "" if outcome.seconds is None else f"  {wording.duration(outcome.seconds)}"
    so_far = "  best so far" if best.number == number else ""
    return f"{what}  validation {config.metric} {score:.2%}{took}{so_far}"


def shown_params(params: Mapping[str, Any]) -> str:
    """ "lora, lr 0.0012, rank 8"."""
    named = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in params.items()}
    return ", ".join(text if name in ("method", "preset") else f"{name} {text}" for name, text in named.items())
