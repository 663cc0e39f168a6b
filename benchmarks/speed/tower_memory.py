"""Peak memory of training steps against stock PEFT and open_clip, each in a process that only takes such steps."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from clip_har.memory import PeakMemory, keep_freed_memory
from clip_har.methods import Batch
from speed.harness import Row, row
from speed.tower_training import (
    BATCH,
    CLASSES,
    KINDS,
    Step,
    own_step,
    own_training,
    plain_model,
    precisions,
    stock_step,
)

STEPS = 3
STOCK = "stock"
"""The reference's process; the others are named after their precision."""


def rows(folder: Path) -> list[Row]:
    """Peak memory in MiB, for each method."""
    found = []
    for kind, reference in KINDS.items():
        stock = peak_of(kind, STOCK)
        for precision in precisions():
            found.append(
                row(
                    f"peak memory of steps, {kind}, {precision}",
                    "MiB",
                    [peak_of(kind, precision)],
                    [stock],
                    f"{reference}, float32",
                    target=1 / 0.7,
                    note=f"ViT-B/32, {BATCH} images; of the whole process, its own imports included",
                )
            )
    return found


def peak_of(kind: str, side: str) -> float:
    """Peak memory in MiB of a process that takes a few steps."""
    words = [sys.executable, "-m", "speed.tower_memory", kind, side]
    folder = Path(__file__).parents[1]
    printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout
    return float(printed.split()[-1])


def take_steps(kind: str, side: str) -> None:
    peak = PeakMemory(torch.device("cpu"))  # what getrusage gives would include the process that started this one
    batch = Batch.of(torch.randn(BATCH, 3, 224, 224), torch.arange(BATCH) % CLASSES)
    if side != STOCK:
        keep_freed_memory()
        method, classifier, task = own_training(kind)
        step: Step = partial(own_step(method, classifier, batch, task), side)
    else:
        step = stock_step(plain_model(kind), batch, 100.0)
    for _ in range(STEPS):
        step()
    print((peak.bytes() or 0) / 2**20)


if __name__ == "__main__":
    take_steps(*sys.argv[1:])
