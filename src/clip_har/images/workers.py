"""Worker processes that decode: they leave the end of a run to their parent, and none outlives its use.

What they do with each file is in batches.py.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from clip_har.errors import DataError
from clip_har.interrupts import END_SIGNALS

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

T = TypeVar("T")

SECONDS_TO_DIE = 5.0
LOST_BATCH = 75
"""Exit code of a worker that could not hand over a batch."""


def worker_count(asked: int) -> int:
    """Processes that decode: as asked, or one per core for -1."""
    return asked if asked >= 0 else _cores()


def _cores() -> int:
    return os.cpu_count() or 1


def ignore_interrupts(_worker: int = 0) -> None:
    """Let this process ignore Ctrl-C, SIGTERM and SIGHUP, which a terminal and SLURM send to the whole process group.

    The parent decides what an interruption means; a worker that dies of one first looks like a fault.
    """
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def start_worker(_worker: int = 0) -> None:
    """Prepare a process that decodes: it leaves interrupts to its parent, and ends if it loses a batch.

    A batch that cannot be sent, most often because memory ran out, is otherwise dropped, and the parent waits for it
    for ever.
    """
    ignore_interrupts()

    def end(error: Exception, _batch: object) -> None:
        print(f"A worker cannot hand over a batch: {error!r}", file=sys.stderr, flush=True)
        os._exit(LOST_BATCH)

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]
    sys.excepthook = _unless_parent_left


def _unless_parent_left(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an error, but not that the parent hung up, as an interrupted one does in the middle of taking a batch.

    The thread that hands over file descriptors shows errors so (multiprocessing.resource_sharer).
    """
    if not isinstance(error, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, traceback)


def iterate(loader: DataLoader[T]) -> Iterator[T]:
    """Yield a loader's batches, and end its workers however the iteration ends.

    Args:
        loader: with `start_worker` as its `worker_init_fn`.

    Raises:
        DataError: a worker was killed, as by the kernel when memory runs out.
    """
    before = set(multiprocessing.active_children())
    iterator, workers = None, list[BaseProcess]()
    try:
        with _undisturbed_start():
            iterator = iter(loader)
            workers = [child for child in multiprocessing.active_children() if child not in before]
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                raise _death_of_a_worker(workers, error) or error from None
            yield batch
    finally:
        # Deleting the iterator would do the same, but an error's traceback may hold it.
        getattr(iterator, "_shutdown_workers", lambda: None)()
        _end(workers)


@contextmanager
def _undisturbed_start() -> Iterator[None]:
    """Hold interrupts back while processes start, and keep torch from raising errors of them at any odd place.

    A new process inherits the blocked signals, so that none can hit it before it ignores them. torch's handler of
    SIGCHLD raises in whatever code runs when a worker dies; without it the next batch says so.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _death_of_a_worker(workers: list[BaseProcess], error: RuntimeError) -> DataError | None:
    """Say what became of the workers, or None where the error is not of their death."""
    for worker in workers:
        worker.join(timeout=0.1)
    codes = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]
    if not codes:
        if "No space left on device" in str(error) or "unable to open shared memory" in str(error):
            return DataError("Shared memory for decoded images ran out", remedy="Use fewer --workers, or 0.")
        if "exited unexpectedly" not in str(error):
            return None
    code = codes[0] or 0 if codes else 0
    how = f"killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    return DataError(
        f"A process that decodes images was {how}, usually because it ran out of memory",
        remedy="Use fewer --workers, or 0 to decode in the main process.",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _end(workers: list[BaseProcess]) -> None:
    """Kill what is still there: a worker stuck in a file does not hear that it should end."""
    for worker in workers:
        if worker.is_alive():
            worker.join(timeout=SECONDS_TO_DIE)
        if worker.is_alive():
            worker.kill()
            worker.join()
