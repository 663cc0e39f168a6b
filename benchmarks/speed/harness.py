"""Pairs of measurements in turn, and what a row of the table says of them."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("clip-har", "torch", "open_clip_torch", "peft", "timm", "numpy", "pillow", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    """What is measured."""
    unit: str
    ours: float
    reference: float
    reference_name: str
    ratio: float
    """How many times better clip-har is: the median over the pairs."""
    ratios: tuple[float, ...]
    """Of each pair."""
    target: float | None = None
    """The ratio that is aimed at."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_pairs(ours: Callable[[], float], reference: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Measure both in turn, the first of a pair alternating, after one call each to warm up.

    Args:
        ours, reference: give a figure each time they are called.
    """
    for function in (ours, reference):
        function()
    first: list[float] = []
    second: list[float] = []
    for number in range(pairs):
        order = [(ours, first), (reference, second)]
        for function, kept in order if number % 2 == 0 else order[::-1]:
            kept.append(function())
    return first, second


def row(
    name: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float],
    reference_name: str,
    *,
    more_is_better: bool = False,
    target: float | None = None,
    note: str = "",
) -> Row:
    """A row from the figures of each pair."""
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, reference, strict=True)]
    return Row(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        reference=statistics.median(reference),
        reference_name=reference_name,
        ratio=statistics.median(ratios),
        ratios=tuple(ratios),
        target=target,
        note=note,
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "multiplies": multiplies(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def multiplies() -> str:
    """The widest matrix arithmetic of this processor."""
    flags = _flags()
    if "amx_bf16" in flags:
        return "AMX bfloat16"
    if "avx512_bf16" in flags:
        return "AVX-512 bfloat16"
    if "avx512f" in flags:
        return "AVX-512 float32"
    return "AVX2 float32" if "avx2" in flags else "float32"


def _flags() -> frozenset[str]:
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="ascii"), flags=re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii")
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*:\s*(.*)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
