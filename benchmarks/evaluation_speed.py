"""How long an evaluation's mathematics takes, and how much memory it needs, on made-up scores.

    python benchmarks/evaluation_speed.py [--images 5400] [--classes 15] [--large] [--resamples N] [--folder DIR]

Measures metrics with all intervals for two models, as `evaluate` needs them, then temperature, thresholds and sets.
With --large: one model, 1,000,000 images and 1,000 classes, the scores as a memory map of 4 GB in --folder, which is
removed afterwards. The peak is of memory that only this process holds: pages of the map, which the system can drop,
are not in it.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from clip_har.evaluation import calibrate, check_confidence, compute_metrics, evaluate

Result = TypeVar("Result")
Scores = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    images = arguments.images or (1_000_000 if arguments.large else 5400)
    classes = arguments.classes or (1000 if arguments.large else 15)
    print(f"{images:,} images, {classes:,} classes")
    if arguments.large:
        large(images, classes, arguments.resamples, arguments.folder)
    else:
        small(images, classes)


def small(images: int, classes: int) -> None:
    """Two models on the same images, as `evaluate` measures them."""
    targets_N = np.random.default_rng(0).integers(0, classes, images)
    before_NC, after_NC = (made_up(targets_N, classes, skill, seed) for skill, seed in ((1.0, 1), (3.0, 2)))
    names = [str(index) for index in range(classes)]
    paths = [str(index) for index in range(images)]
    timed(
        "two models, metrics and intervals",
        lambda: evaluate(classes=names, paths=paths, targets_N=targets_N, baseline_NC=before_NC, finetuned_NC=after_NC),
    )
    half = images // 2
    calibration = timed("calibration on half of them", lambda: calibrate(after_NC[:half], targets_N[:half]))
    timed("its check on the other half", lambda: check_confidence(calibration, after_NC[half:], targets_N[half:]))


def large(images: int, classes: int, resamples: int, folder: Path) -> None:
    """One model whose scores do not have to fit into memory."""
    path = folder / f"evaluation_speed-{images}-{classes}.f32"
    targets_N = np.random.default_rng(0).integers(0, classes, images)
    try:
        write_scores(path, targets_N, classes)
        scores_NC = np.memmap(path, dtype=np.float32, mode="r", shape=(images, classes))
        names = [str(index) for index in range(classes)]
        timed(
            f"one model, metrics and intervals of {resamples:,} resamples",
            lambda: compute_metrics(scores_NC, targets_N, classes=names, resamples=resamples),
        )
    finally:
        path.unlink(missing_ok=True)


def made_up(targets_N: Targets, classes: int, skill: float, seed: int) -> Scores:
    """Softmax of noise, with more for the true class."""
    logits_NC = np.random.default_rng(seed).normal(size=(len(targets_N), classes)).astype(np.float32)
    logits_NC[np.arange(len(targets_N)), targets_N] += skill
    powers_NC = np.exp(logits_NC)
    scores_NC: Scores = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return scores_NC


def write_scores(path: Path, targets_N: Targets, classes: int) -> None:
    """Scores of a model that is right now and then, written a few images at a time."""
    with path.open("wb") as stream:
        for first in range(0, len(targets_N), 10_000):
            made_up(targets_N[first : first + 10_000], classes, 4.0, first).tofile(stream)


def timed(label: str, function: Callable[[], Result]) -> Result:
    """Call it, and print how long it took and the most memory that was held meanwhile, beyond that before it."""
    before = own_memory()
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, worked = time.perf_counter(), time.process_time()
    result = function()
    seconds, busy = time.perf_counter() - started, time.process_time() - worked
    done.set()
    watcher.join()
    print(f"{label}: {seconds:.2f} s ({busy:.2f} s of processor), {(peak[0] - before) / 2**20:,.0f} MiB", flush=True)
    return result


def own_memory() -> int:
    """Bytes that this process holds for itself, from Linux's /proc."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
