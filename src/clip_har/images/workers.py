"""Worker processes that decode: they leave the end of a run to their parent, and none outlives its use.

What they do with each file is in batches.py.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, TypeVar

from clip_har.errors import DataError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

T = TypeVar("T")

_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM)
SECONDS_TO_DIE = 5.0


def ignore_interrupts(_worker: int = 0) -> None:
    """Let this process ignore Ctrl-C and SIGTERM, which a terminal and SLURM send to the whole process group.

    The parent decides what an interruption means; a worker that dies of one first looks like a fault.
    """
    for number in _LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)


def iterate(loader: DataLoader[T]) -> Iterator[T]:
    """Yield a loader's batches, and end its workers however the iteration ends.

    Args:
        loader: with `ignore_interrupts` as its `worker_init_fn`.

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
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_PARENT)
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
        return None
    code = codes[0] or 0
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return DataError(
        f"A process that decodes images was {how}, most often because memory ran out",
        remedy="Use fewer --workers, or 0 to decode in the main process.",
    )


def _end(workers: list[BaseProcess]) -> None:
    """Kill what is still there: a worker stuck in a file does not hear that it should end."""
    for worker in workers:
        if worker.is_alive():
            worker.join(timeout=SECONDS_TO_DIE)
        if worker.is_alive():
            worker.kill()
            worker.join()
