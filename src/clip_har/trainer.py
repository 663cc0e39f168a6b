"""The training loop: `fit` yields its state after every step and after every epoch, or candidate.

It neither saves nor evaluates; the caller does both, and may stop at any yield.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip_har.errors import TrainingError
from clip_har.methods import Classifier, GradientMethod, Method, SolvedMethod, Task

BETAS = (0.9, 0.98)
"""AdamW's moments as CLIP was trained (arXiv 2103.00020, table 19) and the historic recipe used them."""


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Where a training stands. `classifier` and `optimizer` are live: copy what you keep."""

    classifier: Classifier
    optimizer: torch.optim.Optimizer | None
    """None for methods with a solver of their own."""
    step: int
    """Optimizer steps taken, or candidates solved."""
    total_steps: int
    epoch: int
    """Epochs finished; for a solver, candidates finished."""
    epoch_end: bool
    """Whether this state closes an epoch or is a candidate: the moment to validate and save."""
    loss: float
    """Loss of the last step, or at an epoch's end the epoch's mean."""
    lr: float
    """Learning rate of the first parameter group, at the last step."""
    seconds: float
    """Wall time of the epoch so far, without what the caller did between the yields."""
    description: str = ""
    """What distinguishes a solver's candidate."""


def fit(
    method: Method,
    classifier: Classifier,
    task: Task,
    settings: Mapping[str, Any],
    *,
    optimizer_state: Mapping[int, Mapping[str, Tensor]] | None = None,
    epochs_done: int = 0,
) -> Iterator[TrainState]:
    """Train `classifier` in place.

    Every epoch's batch order and dropout follow from the seed and the epoch's number alone, so a training that
    continues from a saved epoch ends bit-identical, on the CPU, to one that was never stopped. Dropout draws from
    torch's global generator, which is seeded at the start of each epoch.

    Args:
        settings: the run's flat configuration.
        optimizer_state: with `epochs_done`, what `optimizer.state_dict()["state"]` was at that epoch's end.

    Raises:
        TrainingError: the loss or a gradient is no longer finite; raised before the step that would spoil the weights.
    """
    if isinstance(method, SolvedMethod):
        yield from _solve(method, classifier, task, epochs_done)
    elif isinstance(method, GradientMethod):
        optimizer = torch.optim.AdamW(method.parameter_groups(classifier), betas=BETAS, fused=True)
        peaks = [group["lr"] for group in optimizer.param_groups]
        if optimizer_state is not None:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(optimizer_state)})
        features_N = task.train.table.embedding if classifier.reads == "embedding" else task.train.table.hidden
        with _one_thread():
            for epoch in range(epochs_done, settings["epochs"]):
                yield from _epoch(method, classifier, optimizer, peaks, features_N, task, settings, epoch)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Steps on cached embeddings are too small to share: threads cost more than they give, and far more on a busy CPU.

    benchmarks/lora_epochs.py measures it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _epoch(
    method: GradientMethod,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    peaks: list[float],
    features_N: Tensor,
    task: Task,
    settings: Mapping[str, Any],
    epoch: int,
) -> Iterator[TrainState]:
    epoch_seed = task.seed * 100_003 + epoch
    torch.manual_seed(epoch_seed)
    order_N = torch.randperm(len(features_N), generator=torch.Generator().manual_seed(epoch_seed))
    batches = order_N.split(settings["batch_size"])
    total = len(batches) * settings["epochs"]
    warmup = round(len(batches) * settings["warmup_epochs"])
    loss_sum, seconds, last_finite = 0.0, 0.0, math.nan
    for index, batch_B in enumerate(batches):
        started = time.perf_counter()
        step = epoch * len(batches) + index
        factor = lr_factor(step, total=total, warmup=warmup)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        loss = _step(method, classifier, optimizer, features_N[batch_B], task.train.labels_N[batch_B], task, settings)
        if loss is None:
            raise _non_finite(step, peaks[0] * factor, last_finite)
        last_finite = loss
        loss_sum += loss * len(batch_B)
        seconds += time.perf_counter() - started
        last = index == len(batches) - 1
        yield TrainState(
            classifier=classifier,
            optimizer=optimizer,
            step=step + 1,
            total_steps=total,
            epoch=epoch + 1 if last else epoch,
            epoch_end=last,
            loss=loss_sum / len(features_N) if last else loss,
            lr=peaks[0] * factor,
            seconds=seconds,
        )


def _step(
    method: GradientMethod,
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    features_B: Tensor,
    labels_B: Tensor,
    task: Task,
    settings: Mapping[str, Any],
) -> float | None:
    """One optimizer step; the batch's loss, or None, with the weights untouched, where it is not finite."""
    classifier.train()
    optimizer.zero_grad(set_to_none=True)
    loss = method.loss(classifier, features_B, labels_B, task)
    value = loss.item()
    if not math.isfinite(value):
        return None
    loss.backward()
    limit = settings["gradient_clip"] or math.inf
    norm = torch.nn.utils.clip_grad_norm_(classifier.parameters(), limit)
    if not math.isfinite(norm.item()):
        return None
    optimizer.step()
    return value


def lr_factor(step: int, *, total: int, warmup: int) -> float:
    """Linear warm-up to 1, then a cosine to 0 (Loshchilov & Hutter 2016, arXiv 1608.03983, eq. 5, one cycle)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _solve(method: SolvedMethod, classifier: Classifier, task: Task, done: int) -> Iterator[TrainState]:
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
            optimizer=None,
            step=number,
            total_steps=method.candidates,
            epoch=number,
            epoch_end=True,
            loss=candidate.train_loss,
            lr=0.0,
            seconds=time.perf_counter() - started,
            description=candidate.description,
        )


def _non_finite(step: int, lr: float, last_finite: float) -> TrainingError:
    return TrainingError(
        f"The loss or its gradient is not finite at step {step + 1} (lr {lr:.3g}, last finite loss {last_finite:.4g})",
        remedy="The weights before this step are kept. Lower --lr or raise --warmup-epochs.",
    )
