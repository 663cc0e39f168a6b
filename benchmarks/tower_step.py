"""Steps of full fine-tuning on a CPU, with and without keeping freed memory: images/s in alternating pairs.

    python benchmarks/tower_step.py [--model NAME] [--batch 64] [--size 160] [--pairs 3]

The pair runs in processes of its own, because what glibc has been told cannot be taken back.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

from clip_har.backbone import load_backbone
from clip_har.memory import keep_freed_memory
from clip_har.methods.towers import BATCH_NORMS


def measure(model: str, batch: int, size: int | None) -> float:
    """Images per second of forward and backward passes through the image tower."""
    backbone = load_backbone(model, device="cpu", precision="float32")
    visual = backbone.model.get_submodule("visual").train().requires_grad_(True)
    for module in visual.modules():
        if isinstance(module, BATCH_NORMS):
            module.eval()
    height, width = (size, size) if size else backbone.info.preprocessing.image_size
    images_BCHW = torch.randn(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        visual(images_BCHW).square().mean().backward()
        times.append(time.perf_counter() - started)
    return batch / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--one", choices=["keep", "release"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        if given.one == "keep":
            keep_freed_memory()
        print(measure(given.model, given.batch, given.size))
        return
    found: dict[str, list[float]] = {"keep": [], "release": []}
    for _ in range(given.pairs):
        for way, rates in found.items():
            command = [sys.executable, *sys.argv, f"--one={way}"]
            rates.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    keep, release = statistics.median(found["keep"]), statistics.median(found["release"])
    print(f"{given.model}, batches of {given.batch}: {keep:.1f} images/s keeping freed memory, {release:.1f} without")
    print(f"ratio {keep / release:.2f} (medians of {given.pairs} pairs)")


if __name__ == "__main__":
    main()
