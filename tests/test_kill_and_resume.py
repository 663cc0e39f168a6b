"""kill -9 at random moments, several times: the continued training ends with the weights of one never stopped."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_har import checkpoint
from samples import write_dataset

KILLS = 3


def command(data: Path, model: str, out: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "clip_har.cli", "train", f"--data={data}", f"--model={model}", f"--out={out}"),
        *("--precision=float32", "--workers=0", "--save-steps=1", "--epochs=8", "--batch-size=3", "--lr=1e-3"),
        *flags,
    ]


def weights_hash(run: Path) -> str:
    run_ = checkpoint.load_run(run)
    return hashlib.sha256((run / run_.method.weights_file).read_bytes()).hexdigest()


def kill_while_training(arguments: list[str], out: Path, wait: float) -> bool:
    """Start a training and kill it `wait` seconds after its first new state; False if it was done before."""
    before = set((out / "last").glob("step-*"))
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and not set((out / "last").glob("step-*")) - before:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow  # five processes, each of which has to import torch
@pytest.mark.parametrize(
    "flags",
    [
        ("--method=full", "--hard-pairs=0.5", "--ema=0.9", "--accumulate=2", "--loss=supcon"),
        ("--method=lora", "--placement=attention", "--augment=strong", "--mixup=0.3"),
    ],
    ids=["full", "lora-attention"],
)
def test_killed_at_random_moments_it_ends_bit_identical(
    flags: tuple[str, ...], tiny_model: str, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", train=14, test=2)
    subprocess.run(command(data, tiny_model, tmp_path / "whole", *flags), check=True, capture_output=True)
    out = tmp_path / "killed"
    waits = random.Random(time.time_ns())
    kills = 0
    for _ in range(KILLS):
        resume = ("--resume",) if checkpoint.has_run(out) else ()
        kills += kill_while_training(command(data, tiny_model, out, *flags, *resume), out, waits.uniform(0, 0.4))
    assert kills >= 1
    steps = [path.name for path in sorted((out / "last").glob("step-*"))]
    (out / "last" / steps[-1]).write_bytes(b"damaged")  # the one before must do
    done = subprocess.run(
        command(data, tiny_model, out, *flags, "--resume"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert weights_hash(out) == weights_hash(tmp_path / "whole")
