"""The training loop: `fit` yields its state after every step and after every epoch, or candidate.

It neither saves nor evaluates; the caller does both, and may stop at any yield.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip_har import distributed
from clip_har.config import Settings
from clip_har.errors import RunError, TrainingError
from clip_har.hard_pairs import HardPairs
from clip_har.memory import one_thread
from clip_har.methods import Classifier, GradientMethod, Method, OutOfFold, SolvedMethod, Task
from clip_har.trainer.batches import Epoch, epoch_seed
from clip_har.trainer.ema import MovingAverage
from clip_har.trainer.engine import Engine
from clip_har.trainer.memory import chosen_batch_size, explaining_memory

RANK_SEED = 7_919


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a training needs to continue bit-identically (on the CPU), as tensors and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Where a training stands. `classifier` is live: copy what you keep."""

    classifier: Classifier
    step: int
    """Optimizer steps taken, or candidates solved."""
    total_steps: int
    epoch: int
    """Epochs finished; for a solver, candidates finished."""
    epoch_end: bool
    """Whether this state closes an epoch or is a candidate: the moment to validate and save."""
    loss: float
    """Loss of the last step, or at an epoch's end the epoch's mean."""
    mean_loss: float
    """Mean loss of the epoch so far."""
    lr: float
    """Learning rate of the first parameter group, at the last step."""
    images: int
    """Images of this step, over all processes."""
    batch_size: int
    """Images per forward pass and process; 0 for a solver."""
    accumulate: int
    """Forward passes per optimizer step; 0 for a solver."""
    seconds: float
    """Wall time of the epoch so far, without what the caller did between the yields."""
    snapshot: Callable[..., Snapshot]
    """Everything to continue from here. Where several processes train, all must call it. With `copied=False`, its
    tensors may be the live ones, which the next step changes."""
    kept_weights: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """The weights to validate and keep, in place inside the with block: the moving average where there is one."""
    description: str = ""
    """What distinguishes a solver's candidate."""
    out_of_fold: OutOfFold | None = None
    """What a solver's candidate answered in cross-validation."""


@dataclass
class _Position:
    """Where the loop is: what a snapshot's plain values hold."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0
    last_finite: float = math.nan
    batch_size: int = 0
    accumulate: int = 1
    processes: int = 1


def fit(
    method: Method,
    classifier: Classifier,
    task: Task,
    settings: Settings,
    *,
    engine: Engine | None = None,
    resume: Snapshot | None = None,
    pairs: Callable[[], HardPairs | None] = lambda: None,
) -> Iterator[TrainState]:
    """Train `classifier` in place.

    The order of images follows from the seed and the epoch's number; dropout and other draws from torch's global
    generator, which is seeded at the start of each epoch and whose state is in every snapshot. A training that
    continues from a snapshot therefore ends bit-identical, on the CPU, to one that was never stopped.

    Args:
        settings: the run's.
        engine: where and in which arithmetic; by default where the classifier is, in float32.
        resume: what `TrainState.snapshot` gave.
        pairs: asked at the start of each epoch for the hard pairs that its batches are composed of.

    Raises:
        TrainingError: the loss or a gradient is no longer finite; raised before the step that would spoil the
            weights. Or the memory does not suffice.
    """
    if isinstance(method, SolvedMethod):
        yield from _solve(method, classifier, task, resume)
    elif isinstance(method, GradientMethod):
        engine = engine or Engine(method, classifier, task, device=classifier.device)
        with one_thread() if classifier.small else contextlib.nullcontext(), explaining_memory(engine, settings):
            yield from _Loop(engine, classifier, task, settings, pairs).run(resume)


class _Loop:
    """The state that one training carries from step to step."""

    def __init__(
        self,
        engine: Engine,
        classifier: Classifier,
        task: Task,
        settings: Settings,
        pairs: Callable[[], HardPairs | None],
    ) -> None:
        self.engine = engine
        self.classifier = classifier
        self.task = task
        self.settings = settings
        self.pairs = pairs
        self.peaks = [group["lr"] for group in engine.optimizer.param_groups]
        ema = settings.optimizer.ema
        self.average = MovingAverage(engine.trained, ema) if ema else None
        self.at = _Position()

    def run(self, resume: Snapshot | None) -> Iterator[TrainState]:
        if resume is not None:
            self._restore(resume)
        else:
            chosen = chosen_batch_size(self.engine, self.classifier, self.task, self.settings)
            self.at.batch_size, self.at.accumulate = chosen
            self.at.processes = distributed.world_size()
        while self.at.epoch < self.settings.optimizer.epochs:
            epoch = self._epoch()
            if resume is None or self.at.step_in_epoch == 0:
                torch.manual_seed(epoch_seed(self.task.seed, self.at.epoch) + RANK_SEED * distributed.rank())
            resume = None
            yield from self._steps(epoch)

    def _epoch(self) -> Epoch:
        return Epoch(
            self.task.train,
            self.classifier.reads,
            batch_size=self.at.batch_size,
            accumulate=self.at.accumulate,
            settings=self.settings.augmentation,
            seed=self.task.seed,
            number=self.at.epoch,
            classes=self.task.classes,
            pairs=self.pairs(),
            logit_scale=self.task.logit_scale,
        )

    def _steps(self, epoch: Epoch) -> Iterator[TrainState]:
        at, per_epoch = self.at, len(epoch)
        total = per_epoch * self.settings.optimizer.epochs
        warmup = self.settings.optimizer.warmup_steps
        if warmup is None:
            warmup = round(per_epoch * self.settings.optimizer.warmup_epochs)
        started = time.perf_counter()
        for batches in epoch.batches(self.engine.device, done=at.step_in_epoch):
            factor = lr_factor(at.step, total=total, warmup=warmup)
            for group, peak in zip(self.engine.optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * factor
            loss = self.engine.accumulate(batches)
            if not math.isfinite(loss) or not self.engine.step(self.settings.optimizer.gradient_clip):
                raise _non_finite(at.step, self.peaks[0] * factor, at.last_finite)
            if self.average is not None:
                self.average.update(at.step + 1)
            images = len(epoch.steps[at.step_in_epoch])
            at.last_finite = loss
            at.loss_sum += loss * images
            at.images += images
            at.seconds += time.perf_counter() - started
            last = at.step_in_epoch == per_epoch - 1
            mean, seconds = at.loss_sum / at.images, at.seconds
            at.step += 1
            at.step_in_epoch += 1
            if last:
                at.epoch += 1
                at.step_in_epoch, at.loss_sum, at.images, at.seconds = 0, 0.0, 0, 0.0
            yield TrainState(
                classifier=self.classifier,
                step=at.step,
                total_steps=total,
                epoch=at.epoch,
                epoch_end=last,
                loss=mean if last else loss,
                mean_loss=mean,
                lr=self.peaks[0] * factor,
                images=images,
                batch_size=at.batch_size,
                accumulate=at.accumulate,
                seconds=seconds,
                snapshot=self._snapshot,
                kept_weights=self._kept_weights,
            )
            started = time.perf_counter()

    @contextlib.contextmanager
    def _kept_weights(self) -> Iterator[None]:
        averaged = self.average.in_place() if self.average else contextlib.nullcontext()
        with averaged, self.engine.whole_weights():
            yield

    def _snapshot(self, *, copied: bool = True) -> Snapshot:
        tensors = {f"classifier.{key}": value for key, value in trainable_state(self.classifier).items()}
        for index, slots in self.engine.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in slots.items()}
        if self.average is not None:
            tensors |= {f"average.{index}": mean for index, mean in enumerate(self.average.means)}
        for rank, state in enumerate(distributed.gather_objects(_generators())):
            tensors |= {f"generator.{rank}.{key}": value for key, value in state.items()}
        tensors = {key: distributed.whole(value.detach()).cpu() for key, value in tensors.items()}
        scaler = self.engine.scaler.state_dict() if self.engine.scaler else None
        return Snapshot(
            tensors={key: value.clone().contiguous() for key, value in tensors.items()} if copied else tensors,
            values={**vars(self.at), "scaler": scaler},
        )

    def _restore(self, snapshot: Snapshot) -> None:
        if (begun := snapshot.values["processes"]) != distributed.world_size():
            raise RunError(
                f"The checkpoint was saved with {begun} processes, but this job has {distributed.world_size()}",
                remedy=f"Resume with {begun} processes.",
            )
        parts = _by_prefix(snapshot.tensors)
        current = dict(self.classifier.state_dict())
        with torch.no_grad():
            for key, value in parts["classifier"].items():
                current[key].copy_(distributed.shard_like(current[key], value))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, _, slot = key.partition(".")
            if slot != "step":
                parameter = self.engine.trained[int(index)]
                # The fused step walks memory in order, so the moments need their parameter's layout (channels last).
                value = torch.empty_like(parameter).copy_(distributed.shard_like(parameter, value))
            slots.setdefault(int(index), {})[slot] = value
        self.engine.optimizer.load_state_dict({**self.engine.optimizer.state_dict(), "state": slots})
        if self.average is not None:
            for number, mean in enumerate(self.average.means):
                mean.copy_(distributed.shard_like(mean, parts["average"][str(number)]))
        _set_generators(_by_prefix(parts["generator"]).get(str(distributed.rank()), {}))
        values = dict(snapshot.values)
        if (scaler := values.pop("scaler")) is not None and self.engine.scaler:
            self.engine.scaler.load_state_dict(scaler)
        self.at = _Position(**values)


def trainable_state(classifier: Classifier) -> dict[str, Tensor]:
    """The tensors of a classifier that training changes: trained parameters, and the buffers of its state dict."""
    trained = {key for key, parameter in classifier.named_parameters() if parameter.requires_grad}
    frozen = {key for key, parameter in classifier.named_parameters() if not parameter.requires_grad}
    state = classifier.state_dict()
    buffers = set(state) - trained - frozen if classifier.has_changing_buffers else set()
    return {key: state[key] for key in sorted(trained | buffers)}


def lr_factor(step: int, *, total: int, warmup: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 (Loshchilov & Hutter 2016, arXiv 1608.03983, eq. 5, one cycle)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: Mapping[str, Tensor]) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"classifier": {}, "optimizer": {}, "average": {}, "generator": {}}
    for key, value in tensors.items():
        prefix, _, rest = key.partition(".")
        parts.setdefault(prefix, {})[rest] = value
    return parts


def _solve(method: SolvedMethod, classifier: Classifier, task: Task, resume: Snapshot | None) -> Iterator[TrainState]:
    done = resume.values["epoch"] if resume else 0
    candidates = method.solve(classifier, task)
    number = 0
    while True:
        started = time.perf_counter()
        candidate = next(candidates, None)
        if candidate is None:
            return
        number += 1
        if number <= done:
            continue
        yield TrainState(
            classifier=classifier,
            step=number,
            total_steps=method.candidates,
            epoch=number,
            epoch_end=True,
            loss=candidate.train_loss,
            mean_loss=candidate.train_loss,
            lr=0.0,
            images=len(task.train),
            batch_size=0,
            accumulate=0,
            seconds=time.perf_counter() - started,
            description=candidate.description,
            out_of_fold=candidate.out_of_fold,
            snapshot=_SolvedSnapshot(number),
        )


@dataclass(frozen=True)
class _SolvedSnapshot:
    """A solver starts again from the same data, so the number of candidates done is all it needs."""

    done: int

    def __call__(self, *, copied: bool = True) -> Snapshot:
        del copied
        return Snapshot(tensors={}, values={"epoch": self.done, "step": self.done, "step_in_epoch": 0})


def _non_finite(step: int, lr: float, last_finite: float) -> TrainingError:
    return TrainingError(
        f"The loss or its gradient is not finite at step {step + 1} (lr {lr:.3g}, last finite loss {last_finite:.4g})",
        remedy="Lower --lr or raise --warmup-epochs, with another --out. The weights before this step are saved.",
    )
