"""On a GPU: how much of its measured matrix throughput encoding uses, and what a million images take."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from clip_har.encoder_speed import random_backbone
from speed.harness import Row, in_pairs, row

GFLOP = {"ViT-B-32": 8.8, "ViT-L-14": 162.0}
"""Of one image through the image encoder, a multiplication and an addition counted as two."""
BATCH = 256


def rows(folder: Path, *, pairs: int = 3) -> list[Row]:
    """Share of the peak of a large bfloat16 matrix product; nothing without a GPU."""
    if not torch.cuda.is_available():
        return []
    found = []
    for architecture in GFLOP:
        backbone = random_backbone(architecture, device="cuda", precision="bfloat16")
        images_BCHW = torch.randn(BATCH, 3, 224, 224)
        encode = torch.compile(backbone.encode_images)

        encoding = partial(_rate, partial(encode, images_BCHW), BATCH * GFLOP[architecture] / 1000)
        ours, peak = in_pairs(encoding, matmul_teraflops, pairs)
        rate = 1000 * max(ours) / GFLOP[architecture]
        note = f"{rate:,.0f} images/s, a million in {1e6 / rate / 60:.1f} min; compiled, bfloat16, batches of {BATCH}"
        reference = "product of two matrices of 8192 x 8192, bfloat16"
        found.append(
            row(
                f"encoding with {architecture} on {torch.cuda.get_device_name()}",
                "TFLOP/s",
                ours,
                peak,
                reference,
                more_is_better=True,
                target=0.5,
                note=note,
            )
        )
    return found


def matmul_teraflops() -> float:
    """The most that a matrix product reaches here."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return _rate(lambda: a @ a, 2 * 8192**3 / 1e12)


def _rate(function: Callable[[], object], work: float, repeats: int = 10) -> float:
    function()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    torch.cuda.synchronize()
    return repeats * work / (time.perf_counter() - started)
