"""What the file system refuses to ordinary users, for tests that may run as root."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import pytest

CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
"""Linux's right of root to write where the permissions forbid it."""


@contextlib.contextmanager
def permissions_hold() -> Iterator[None]:
    """In here this thread is refused what permissions forbid, also where it runs as root."""
    if os.name != "posix":
        pytest.skip("permissions of folders are POSIX's")
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may write anywhere, and only Linux lets it renounce that")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)  # of this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable: bits 0 to 31, then 32 to 63
    _check(libc.capget(header, sets))
    effective = sets[0]
    sets[0] &= ~(1 << CAP_DAC_OVERRIDE)
    _check(libc.capset(header, sets))
    try:
        yield
    finally:
        sets[0] = effective
        _check(libc.capset(header, sets))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
