"""What fits: the largest batch, found by trying, and what to do when the memory ran out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from clip_har import distributed
from clip_har.config import Settings
from clip_har.errors import ConfigError, TrainingError
from clip_har.failures import is_out_of_memory
from clip_har.losses import CAPTION_LOSSES
from clip_har.methods import Batch, Classifier, Task
from clip_har.trainer.engine import Engine

EFFECTIVE_BATCH = 64
"""Images per optimizer step that --batch-size auto keeps, in one pass or several."""


def chosen_batch_size(engine: Engine, classifier: Classifier, task: Task, settings: Settings) -> tuple[int, int]:
    """Images per forward pass and passes per step: as given, or the largest part of `EFFECTIVE_BATCH` that fits.

    Tries one forward and backward pass, halving the batch until one succeeds; nothing is changed by the trial.

    Raises:
        ConfigError: several processes would have to try together.
    """
    optimizer = settings.optimizer
    if optimizer.batch_size != "auto":
        return optimizer.batch_size, optimizer.accumulate
    if distributed.world_size() > 1:
        raise ConfigError(
            "--batch-size auto requires a single process", remedy="Find the size with one process, then pass it to all."
        )
    size = EFFECTIVE_BATCH
    while size > 1 and not fits(engine, classifier, task, settings, size):
        size //= 2
    return size, EFFECTIVE_BATCH // size * optimizer.accumulate


def fits(engine: Engine, classifier: Classifier, task: Task, settings: Settings, size: int) -> bool:
    """Whether a forward and backward pass over `size` images has enough memory."""
    if classifier.reads != "image":
        return True
    rows = torch.arange(size) % len(task.train)
    assert task.train.files is not None
    (images,) = task.train.files.training_batches(
        [rows.tolist()[:1]], augment="none", image_size=settings.augmentation.train_image_size, seed=0
    )
    state = torch.get_rng_state()
    buffers = {key: buffer.clone() for key, buffer in classifier.named_buffers()}
    moments: list[torch.Tensor] = []
    try:
        moments = [torch.zeros_like(p) for p in engine.trained for _ in range(2)]  # AdamW's, which the steps will need
        inputs = images.expand(size, *images.shape[1:]).contiguous().to(engine.device)
        batch = Batch.of(inputs, task.train.labels_N[rows].to(engine.device))
        engine.accumulate([batch])
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        del moments
        torch.set_rng_state(state)
        for key, buffer in classifier.named_buffers():
            buffer.copy_(buffers[key])
        engine.optimizer.zero_grad(set_to_none=True)
        if engine.device.type == "cuda":
            torch.cuda.empty_cache()
    return True


@contextlib.contextmanager
def explaining_memory(engine: Engine, settings: Settings) -> Iterator[None]:
    """Turn an out-of-memory error into one line that names what helps and what each would save."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(_exhausted(engine, settings), remedy=_remedies(engine, settings)) from error


def _exhausted(engine: Engine, settings: Settings) -> str:
    batch = settings.optimizer.batch_size
    size = "a single image" if batch == "auto" else f"a batch size of {batch}"
    return f"Out of memory on {engine.device} with {size}"


def _remedies(engine: Engine, settings: Settings) -> str:
    """The three flags that help, with what each saves of the activations, which is what grows with the batch."""
    optimizer, ways = settings.optimizer, []
    size = optimizer.batch_size
    if size != "auto" and size > 1:
        smaller = f"{size // 2} --accumulate {2 * optimizer.accumulate}"
        contrasts = settings.lora.loss in CAPTION_LOSSES and optimizer.accumulate == 1
        same = "same result in a third more time" if contrasts else "same result"
        ways.append(f"--batch-size {smaller} (half the activations, {same})")
    if not settings.engine.activation_checkpointing:
        ways.append("--activation-checkpointing (most of the activations, for about a third more time)")
    if engine.precision not in ("bfloat16", "float16"):
        ways.append("--precision bfloat16 (nearly half the activations)")
    if size == "auto" or not ways:
        ways.append("a smaller --model")
    return f"Try {', '.join(ways[:-1])}{' or ' if len(ways) > 1 else ''}{ways[-1]}{_taken(engine)}."


def _taken(engine: Engine) -> str:
    weights = sum(parameter.nbytes for parameter in engine.classifier.parameters())
    state = sum(parameter.nbytes for parameter in engine.trained) * 3  # gradient and AdamW's two moments
    if engine.device.type != "cuda":
        return f"; weights and optimizer take {(weights + state) / 2**30:.1f} GiB"
    peak = torch.cuda.max_memory_allocated(engine.device)
    activations = max(0, peak - weights - state) / 2**30
    return f"; activations took {activations:.1f} GiB, weights and optimizer {(weights + state) / 2**30:.1f} GiB"
