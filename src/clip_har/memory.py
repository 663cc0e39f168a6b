"""What a training costs: peak memory of the process or the GPU, measured; and how a CPU is spared costs."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch


class PeakMemory:
    """Peak memory between construction and `bytes()`: of the GPU where there is one, else of the process.

    On Linux the process's high-water mark is reset at the start; elsewhere it counts from the process's start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif Path("/proc/self/clear_refs").exists():
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                return  # not allowed here: the mark then counts from the process's start

    def bytes(self) -> int | None:
        """The peak so far in bytes, or None where the system does not tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        status = Path("/proc/self/status")
        if status.exists():
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            return int(lines["VmHWM"].split()[0]) * 1024
        if sys.platform == "win32":
            return None
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next allocation in place of giving it back to the system.

    By default every tensor above 32 MB is mapped again and its pages are zeroed one by one, which more than halves the
    speed of training a convolutional tower on a CPU in batches of 64 (benchmarks/tower_step.py). Elsewhere than on
    glibc nothing is done.

    Returns:
        Whether it was set.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26))
    )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors are not worth sharing: threads cost more than they give, and far more on a busy CPU.

    The row "whole_job" of benchmarks/run.py trains that way.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
