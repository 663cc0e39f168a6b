"""`--method auto`: which methods are tried within a time budget, in which order, and which of them are combined."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clip_har import checkpoint, distributed
from clip_har.config import AutoBudget, TrainConfig
from clip_har.encoder_speed import images_per_second
from clip_har.evaluation import FloatArray
from clip_har.evaluation.sweep import selection_optimism
from clip_har.experiment.members import MEMBERS_FOLDER, TrainMember, as_members, train_seconds
from clip_har.experiment.setup import Experiment
from clip_har.fusion import FusedBackbone
from clip_har.methods import Source
from clip_har.methods.cross_validation import fit_mixture
from clip_har.methods.ensemble import SMALLEST, greedy_weights, pooled
from clip_har.methods.towers import small_views
from clip_har.progress import Progress
from clip_har.wording import duration

SECONDS: dict[AutoBudget, float] = {"seconds": 60.0, "minutes": 10 * 60.0, "hours": 4 * 3600.0}
"""The time that training may take, without encoding the images."""
TRIED_FILE = "tried.json"
SOLVED: dict[str, float] = {"ridge": 2e-3, "gda": 2e-3, "proker": 1e-2, "linear-probe": 1e-2}
"""Methods solved on cached features, with the seconds that each takes for a training image on two cores."""
BACKWARD = 3.0
"""A training step's time as a multiple of the forward pass's."""
FEW_EPOCHS = 3
MANY_EPOCHS = 10
"""What lp-ft trains by default."""
SETTLED = 0.01
"""Where the error is surely below this, nothing slower is tried."""
FEW_ROUNDS = 15
"""Of greedy selection, where every combination is tried."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One method to try."""

    name: str
    """Of the method, and of the run's folder."""
    config: TrainConfig
    seconds: float
    """Expected time of training."""
    trains_encoder: bool = False


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of one step."""

    name: str
    accuracy: float | None
    """On the images that judge all members; None where it was not run."""
    interval: tuple[float, float] | None
    seconds: float | None
    chosen: bool = False
    note: str = ""


def plan(config: TrainConfig, experiment: Experiment, progress: Progress) -> tuple[Step, ...]:
    """The methods that could pay, those with the most expected gain for each second first.

    The order is that of the comparisons in docs/results.md.
    """
    images = len(experiment.dataset.split("train"))
    budget = config.budget or "minutes"
    alone = dataclasses.replace(config, preset=None, members=None, budget=None)
    solved = [
        Step(name=name, config=dataclasses.replace(alone, method=name), seconds=images * each)
        for name, each in SOLVED.items()
    ]
    if budget == "seconds" or isinstance(experiment.model.backbone, FusedBackbone):
        return tuple(solved)
    rate = images_per_second(experiment.model.backbone)
    progress.note(f"The image encoder reads {rate:,.0f} images/s here")
    longer = dataclasses.replace(alone, method="lp-ft")
    epochs = config.optimizer.epochs or FEW_EPOCHS
    side = config.augmentation.train_image_size or small_views(experiment.model.backbone)
    quick = dataclasses.replace(
        longer,
        optimizer=dataclasses.replace(config.optimizer, epochs=epochs),
        augmentation=dataclasses.replace(config.augmentation, train_image_size=side),
    )
    own_side = experiment.model.backbone.info.preprocessing.image_size[0]
    share = ((side or own_side) / own_side) ** 2
    each = BACKWARD * images / rate * (2 if config.refit else 1)  # refitted, an encoder is trained twice
    towers = [Step(name="lp-ft-quick", config=quick, seconds=epochs * each * share, trains_encoder=True)]
    if budget == "hours":
        seconds = (config.optimizer.epochs or MANY_EPOCHS) * each
        towers.append(Step(name="lp-ft", config=longer, seconds=seconds, trains_encoder=True))
    return (*solved, *towers)


def choose(
    config: TrainConfig, folder: Path, experiment: Experiment, progress: Progress, train: TrainMember
) -> tuple[list[checkpoint.Run], float]:
    """Try the plan's methods as far as time allows.

    Returns:
        The runs that are worth combining, and the seconds that all tried ones took to train.

    What was tried is written to tried.json in the folder. Steps that are finished count with the time they took.
    """
    steps = plan(config, experiment, progress)
    allowed, spent = SECONDS[config.budget or "minutes"], 0.0
    progress.note("Plan: " + ", ".join(f"{step.name} about {duration(step.seconds)}" for step in steps))
    runs: dict[str, checkpoint.Run] = {}
    skipped: dict[str, str] = {}
    evidence: _Evidence | None = None
    for step in steps:
        finished = checkpoint.is_finished(folder / MEMBERS_FOLDER / step.name)
        if runs and not finished and spent + step.seconds > allowed:
            skipped[step.name] = f"about {duration(step.seconds)}, over the budget"
        elif evidence is not None and step.trains_encoder and evidence.settled():
            skipped[step.name] = f"the error is surely below {SETTLED:.0%} already"
        else:
            begun = time.perf_counter()
            runs[step.name] = train(step.config, folder / MEMBERS_FOLDER / step.name)
            took = time.perf_counter() - begun
            spent += (runs[step.name].card.train_seconds or 0.0) if finished else took
            evidence = _Evidence(runs, experiment, config, progress)
        if step.name in skipped:
            progress.note(f"{step.name} is not tried: {skipped[step.name]}")
    assert evidence is not None
    chosen = evidence.cheapest()
    tried = [
        Tried(
            name=step.name,
            accuracy=evidence.accuracy(step.name) if step.name in runs else None,
            interval=evidence.interval(step.name) if step.name in runs else None,
            seconds=runs[step.name].card.train_seconds if step.name in runs else None,
            chosen=step.name in chosen,
            note=skipped.get(step.name, ""),
        )
        for step in steps
    ]
    for line in table(tried):
        progress.note(line)
    optimism = evidence.optimism()
    progress.note(
        f"Selected on {evidence.judged_by}, where the accuracy of the best is therefore about {100 * optimism:.1f} "
        "points too high; clip-har evaluate measures it on the test split"
    )
    if distributed.is_main():
        content = {"tried": [dataclasses.asdict(item) for item in tried], "optimism": optimism}
        checkpoint.write_json(folder / TRIED_FILE, content)
    return [runs[name] for name in chosen], train_seconds(list(runs.values()))


def table(tried: Sequence[Tried]) -> Iterator[str]:
    """What was tried, in lines of equal width."""
    width = max(len(item.name) for item in tried)
    for item in tried:
        if item.accuracy is None or item.interval is None or item.seconds is None:
            yield f"  {item.name:<{width}}  not tried: {item.note}"
            continue
        low, high = item.interval
        kept = "  combined" if item.chosen else ""
        yield (
            f"  {item.name:<{width}}  {item.accuracy:7.2%}  ({low:.1%} to {high:.1%})  "
            f"{duration(item.seconds):>7}{kept}"
        )


class _Evidence:
    """The members' answers for images that none of them was fitted on, and what follows from them."""

    def __init__(
        self, runs: dict[str, checkpoint.Run], experiment: Experiment, config: TrainConfig, progress: Progress
    ) -> None:
        task = experiment.task(config.seed, shots=config.shots)
        self._sources: dict[str, Source] = dict(
            zip(runs, as_members(list(runs.values()), task.train, task.val, experiment, progress), strict=True)
        )
        first = next(iter(self._sources.values())).answers
        assert first is not None
        self._labels_N = first.labels_N
        crossed = len(first.hashes) > len(task.val)
        self.judged_by = f"{len(first.hashes):,} {'cross-validated' if crossed else 'validation'} images"
        self._seconds = {name: run.card.train_seconds for name, run in runs.items()}
        self._towers = {name for name, run in runs.items() if run.method.reads(run.settings) == "image"}
        self._logs = {name: self._calibrated(name) for name in runs}

    def accuracy(self, name: str) -> float:
        return float(self._correct(name).mean())

    def interval(self, name: str) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
        return wilson(int(self._correct(name).sum()), len(self._labels_N))

    def settled(self) -> bool:
        """Whether the best so far surely leaves less error than is worth more time."""
        return max(self.interval(name)[0] for name in self._logs) > 1 - SETTLED

    def cheapest(self) -> tuple[str, ...]:
        """The combination that costs least at prediction, of those within one standard error of the lowest loss."""
        names = list(self._logs)
        losses = {
            subset: self._loss_N(subset)
            for size in range(1, len(names) + 1)
            for subset in itertools.combinations(names, size)
        }
        best = min(losses, key=lambda subset: float(losses[subset].mean()))

        def within(subset: tuple[str, ...]) -> bool:
            worse_N = losses[subset] - losses[best]
            return float(worse_N.mean()) <= float(worse_N.std()) / math.sqrt(len(worse_N))

        def cost(subset: tuple[str, ...]) -> tuple[int, int, float]:
            return len(self._towers & set(subset)), len(subset), float(losses[subset].mean())

        fitting = [subset for subset in losses if within(subset)]
        fewest_towers = min(cost(subset)[0] for subset in fitting)
        # Members on cached features cost nothing to add: of these, the best combination is kept whole.
        return min(
            (subset for subset in fitting if cost(subset)[0] == fewest_towers), key=lambda subset: cost(subset)[2]
        )

    def optimism(self) -> float:
        """By how much the best member's accuracy is too high where it was chosen."""
        correct_KN = np.stack([self._correct(name) for name in self._logs]).astype(np.float64)
        return selection_optimism(lambda rows: correct_KN[:, rows].mean(axis=1), correct_KN.shape[1])

    def _calibrated(self, name: str) -> torch.Tensor:
        answers = self._sources[name].answers
        assert answers is not None
        log_NC = answers.probabilities_NC.clamp(min=SMALLEST).log()
        return (fit_mixture(log_NC, None, self._labels_N).scale * log_NC).log_softmax(dim=-1)

    def _correct(self, name: str) -> FloatArray:
        correct: FloatArray = (self._logs[name].argmax(dim=1) == self._labels_N).numpy().astype(np.float64)
        return correct

    def _loss_N(self, subset: Sequence[str]) -> FloatArray:
        logs_KNC = torch.stack([self._logs[name] for name in subset])
        weights_K = torch.ones(1)
        if len(subset) > 1:
            weights_K = greedy_weights(logs_KNC, self._labels_N, "log-probabilities", rounds=FEW_ROUNDS)
        loss_N = F.nll_loss(pooled(logs_KNC, weights_K, "log-probabilities"), self._labels_N, reduction="none")
        return loss_N.double().numpy()


def wilson(right: int, count: int) -> tuple[float, float]:
    """The score interval of a share, at 95 %."""
    from scipy.stats import binomtest  # slow to import, and predicting needs none of it

    found = binomtest(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
