"""What ends a run from outside: Ctrl-C, SIGTERM, and SIGHUP when its terminal is closed or ssh drops.

What is then saved is for experiment/ to say, and what is printed for the command line.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
"""The signals that ask a run to end."""


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt. What is ignored, such as SIGHUP under nohup, stays so."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _leave_terminal(number)
        raise KeyboardInterrupt

    with _handled(interrupt, END_SIGNALS[1:]):
        yield


@contextmanager
def deferred_interrupts() -> Iterator[list[int]]:
    """Let a step end before Ctrl-C, SIGTERM or SIGHUP does: the list is filled when one came. A second acts at once.

    Only the main thread can ask for this; elsewhere nothing is changed.
    """
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        _leave_terminal(number)
        if arrived and number != getattr(signal, "SIGHUP", None):  # a shell and the kernel may both send one
            raise KeyboardInterrupt
        arrived.append(number)

    with _handled(note, END_SIGNALS):
        yield arrived


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any], numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: was for number, was in before.items() if was is not None and was != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def _leave_terminal(number: int) -> None:
    """After a hang-up, writing to the terminal fails: what is still said goes nowhere."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # not a file, as under a test
            descriptor = stream.fileno()
            if _is_gone(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _is_gone(descriptor: int) -> bool:
    """Whether this is a terminal that was closed: still a device, but no longer one that answers as a terminal."""
    return stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)
