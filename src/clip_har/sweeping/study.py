"""The Optuna study of a sweep, in a file that several workers share: which trial is next, and what came of each.

A worker holds the lock of its trial's folder while it trains. A trial whose worker has gone is therefore known, and
the next worker continues it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from clip_har.config import Choices, Searched, SweepConfig, TrainConfig
from clip_har.errors import RunError, first_line
from clip_har.evaluation.sweep import SweepTrial, rank
from clip_har.locking import WaitingLock, exclusive
from clip_har.sweeping.space import sampled, trial_config
from clip_har.sweeping.storage import open_storage, study_file
from clip_har.sweeping.trial import Outcome

TRIALS_FOLDER = "trials"
STUDY_NAME = "clip-har"
FACTS, OUTCOME, STARTS = "facts", "outcome", "starts"
STARTUP_TRIALS = 10
MOST_STARTS = 3
"""How often a trial is begun before it counts as failed: one that kills its process would do so for ever."""
TPE_ATTEMPTS, RANDOM_ATTEMPTS = 10, 200
"""To find settings that were not tried; then none are left."""
_STATES: Mapping[str, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class OpenTrial:
    """A trial that this worker runs."""

    number: int
    folder: Path
    config: TrainConfig
    """With its preset applied."""
    again: bool = False
    """Whether another worker began it."""


class Study:
    """The study in a sweep's folder, created if it is missing.

    Args:
        facts: what all trials depend on; a study with other facts is refused.

    Raises:
        RunError: the study is damaged, or was made with other facts.
    """

    def __init__(self, config: SweepConfig, search: Mapping[str, Searched], facts: Mapping[str, Any]) -> None:
        self._config = config
        self._search = search
        self._fixed = config.fixed
        self._path = study_file(config)
        self._lock = WaitingLock(config.out / ".study.lock")
        self._held: dict[int, contextlib.ExitStack] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._lock, self._readable():
            self._study = optuna.create_study(
                storage=open_storage(config),
                study_name=STUDY_NAME,
                direction="maximize",
                sampler=optuna.samplers.RandomSampler(seed=0),  # trials are sampled by _new
                pruner=_pruner(config),
                load_if_exists=True,
            )
            self._require_same(json.loads(json.dumps(facts)))

    def next_trial(self) -> OpenTrial | None:
        """The trial to run now: one that was interrupted, else a new one; None if no more are wanted.

        Its folder is locked until `finish`, or `release` after an interruption.
        """
        with self._lock:
            trials = self._trials()
            for trial in trials:
                if trial.state == TrialState.RUNNING and (opened := self._adopted(trial)) is not None:
                    return opened
            if len(trials) >= self._config.trials:
                return None
            return self._new(trials)

    def report(self, opened: OpenTrial, epoch: int, value: float) -> bool:
        """Take in the metric after an epoch; whether the pruner sees no point in going on."""
        with self._lock:
            trial = self._trial(opened)
            if epoch not in self._frozen(opened).intermediate_values:
                trial.report(value, step=epoch)
            return self._config.pruner != "none" and trial.should_prune()

    def finish(self, opened: OpenTrial, outcome: Outcome) -> None:
        """Write what came of a trial, and delete the runs that are not the best."""
        with self._lock:
            trial = self._trial(opened)
            trial.set_user_attr(OUTCOME, outcome.to_json())
            score = outcome.score(self._config.metric) if outcome.state == "complete" else None
            self._study.tell(opened.number, score, state=_STATES[outcome.state])
            self._held.pop(opened.number).close()
            if not self._config.keep_all:
                self._delete_others()

    def release(self) -> None:
        """Let another worker continue what this one was running, if anything."""
        for held in self._held.values():
            held.close()
        self._held.clear()

    def trials(self) -> tuple[SweepTrial, ...]:
        """All trials by number."""
        return tuple(map(self._shown, self._trials()))

    def predictions(self) -> dict[int, str]:
        """Number of each complete trial -> its packed predictions for the validation images."""
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        return {trial.number: trial.user_attrs[OUTCOME]["predictions"] for trial in complete}

    def finished(self) -> optuna.Study:
        """A copy in memory of the complete trials, for the importance of settings."""
        memory = optuna.create_study(direction="maximize")
        memory.add_trials([trial for trial in self._trials() if trial.state == TrialState.COMPLETE])
        return memory

    def best_config(self) -> TrainConfig:
        """The config of the best trial; what is fixed if there is none."""
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        return self.config_of(min(complete, key=rank).number) if complete else trial_config({}, self._fixed)

    def logarithmic(self) -> frozenset[str]:
        """Settings that are sampled on a logarithmic scale."""
        return frozenset(name for name, searched in self._search.items() if getattr(searched, "log", False))

    def values(self, number: int) -> dict[str, Any]:
        """The values that were sampled for a trial."""
        return self._values(self._trials()[number])

    def config_of(self, number: int) -> TrainConfig:
        """A trial's config, its preset applied."""
        return trial_config(self.values(number), self._fixed)

    def folder(self, number: int) -> Path:
        """A trial's run folder."""
        return self._config.out / TRIALS_FOLDER / str(number)

    def _hold(self, number: int) -> None:
        """Lock a trial's folder until `finish` or `release`."""
        with contextlib.ExitStack() as held:
            held.enter_context(exclusive(self.folder(number)))
            self._held[number] = held.pop_all()

    def _trials(self) -> list[FrozenTrial]:
        with self._readable():
            return self._study.get_trials(deepcopy=False)

    def _frozen(self, opened: OpenTrial) -> FrozenTrial:
        return self._trials()[opened.number]

    def _trial(self, opened: OpenTrial) -> Trial:
        return Trial(self._study, self._frozen(opened)._trial_id)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {name: decoded(value, self._search[name]) for name, value in trial.params.items()}

    def _adopted(self, trial: FrozenTrial) -> OpenTrial | None:
        """A trial whose worker has gone; None if it is alive, or the trial was begun too often."""
        folder = self.folder(trial.number)
        try:
            self._hold(trial.number)
        except RunError:  # somebody trains it
            return None
        opened = OpenTrial(
            number=trial.number, folder=folder, config=trial_config(self._values(trial), self._fixed), again=True
        )
        starts = trial.user_attrs.get(STARTS, 1)
        if starts >= MOST_STARTS:
            note = f"interrupted {starts} times"
            self._trial(opened).set_user_attr(OUTCOME, Outcome(state="failed", note=note).to_json())
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._held.pop(trial.number).close()
            return None
        self._trial(opened).set_user_attr(STARTS, starts + 1)
        return opened

    def _new(self, trials: Sequence[FrozenTrial]) -> OpenTrial | None:
        """A new trial with settings that none has; None if all combinations were tried."""
        tried = [trial.params for trial in trials]
        for attempt in range(TPE_ATTEMPTS + RANDOM_ATTEMPTS):
            config, asked = self._sampled(trials, attempt)
            if asked.params not in tried:
                break
        else:
            return None
        number = len(trials)
        folder = self.folder(number)
        self._hold(number)
        # One record: a worker that is killed leaves a trial with all of its settings, or none.
        self._study.add_trial(
            create_trial(state=TrialState.RUNNING, params=asked.params, distributions=asked.distributions)
        )
        return OpenTrial(number=number, folder=folder, config=config)

    def _sampled(self, trials: Sequence[FrozenTrial], attempt: int) -> tuple[TrainConfig, Trial]:
        """Settings sampled in a copy of the study, in memory.

        The sampler's seed follows from the trial's number: a sweep that was interrupted goes on as it would have, and
        workers with the same seed do not sample the same.
        """
        memory = optuna.create_study(direction="maximize", sampler=self._sampler(len(trials), attempt))
        if attempt < TPE_ATTEMPTS:
            memory.add_trials(trials)
        asked = memory.ask()

        def suggest(name: str, searched: Searched) -> Any:
            distribution = distribution_of(searched)
            if isinstance(distribution, CategoricalDistribution):
                value: Any = asked.suggest_categorical(name, distribution.choices)
            elif isinstance(distribution, IntDistribution):
                value = asked.suggest_int(
                    name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                )
            else:
                assert isinstance(distribution, FloatDistribution)
                value = asked.suggest_float(
                    name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                )
            return decoded(value, searched)

        _, values = sampled(suggest, self._search, self._fixed)
        return trial_config(values, self._fixed), asked

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = (self._config.seed * 1_000_003 + number * 1_009 + attempt) % 2**32
        if self._config.sampler == "random" or attempt >= TPE_ATTEMPTS:
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # In groups, because which settings a trial has depends on its method.
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP_TRIALS, constant_liar=True
            )

    def _delete_others(self) -> None:
        """Delete the run folders of finished trials, but for the best; the lock is held."""
        trials = list(map(self._shown, self._trials()))
        best = min((trial for trial in trials if trial.state == "complete"), key=rank, default=None)
        for trial in trials:
            if trial.state != "running" and trial != best and (folder := self.folder(trial.number)).is_dir():
                shutil.rmtree(folder, ignore_errors=True)

    def _shown(self, trial: FrozenTrial) -> SweepTrial:
        outcome = Outcome(**trial.user_attrs.get(OUTCOME, {"state": "failed"}))
        pruned = trial.state == TrialState.PRUNED
        last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
        return SweepTrial(
            number=trial.number,
            state="running" if trial.state == TrialState.RUNNING else outcome.state,
            params=self._values(trial),
            score=last if pruned else outcome.score(self._config.metric),
            accuracy=outcome.accuracy,
            macro_f1=outcome.macro_f1,
            loss=outcome.loss,
            epochs=outcome.epochs,
            seconds=outcome.seconds,
            note=outcome.note,
        )

    def _require_same(self, facts: dict[str, Any]) -> None:
        """Note the facts of a new study, or compare them with those it was made with."""
        known = self._study.user_attrs.get(FACTS)
        if known is None:
            self._study.set_user_attr(FACTS, facts)
            return
        different = [key for key in sorted(known.keys() | facts.keys()) if known.get(key) != facts.get(key)]
        if different:
            changes = ", ".join(_change(key, known.get(key), facts.get(key)) for key in different)
            raise RunError(
                f"The study in {self._config.out} was made with other settings: {changes}",
                remedy="Pass the same ones to continue it, or choose another --out.",
            )

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Say that the study is damaged where Optuna cannot read it."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (ValueError, KeyError, TypeError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise RunError(
                f"{self._path} is damaged: {first_line(error)}",
                remedy="Restore it from a copy, or choose another --out.",
            ) from error


def distribution_of(searched: Searched) -> BaseDistribution:
    """Optuna's form of what a setting may be."""
    if isinstance(searched, Choices):
        return CategoricalDistribution([_encoded(value) for value in searched.values])
    if searched.whole:
        step = 1 if searched.step is None else int(searched.step)
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log, step=step)
    return FloatDistribution(searched.low, searched.high, log=searched.log, step=searched.step)


def _encoded(value: Any) -> Any:
    """Optuna knows plain values only: a list is written as JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def decoded(value: Any, searched: Searched) -> Any:
    """The value of a setting for what Optuna has of it."""
    if isinstance(searched, Choices):
        return next(choice for choice in searched.values if _encoded(choice) == value)
    return value


def _pruner(config: SweepConfig) -> optuna.pruners.BasePruner:
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3, n_min_trials=5)
    if config.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _change(key: str, before: Any, now: Any) -> str:
    if key in ("images", "weights") or key.startswith("[search]"):
        return f"other {key}" if before and now else f"{key} {'added' if now else 'removed'}"
    return f"{key} {json.dumps(before)} -> {json.dumps(now)}"
