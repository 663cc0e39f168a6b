"""Micro-batching: what many threads ask at about the same time is computed together, in one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """A queue, and a thread that empties it in batches.

    A batch begins when the thread is free and something is there. It is computed as soon as it is full, or when its
    first item has waited long enough: a single item costs that wait, and under load no time is lost.

    Args:
        compute: items -> their results, in order.
        largest: items per batch.
        wait: seconds that an item waits for others.
        observed: called with the size of each batch and its seconds.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        largest: int,
        wait: float,
        observed: Callable[[int, float], None] = lambda _items, _seconds: None,
    ) -> None:
        self._compute = compute
        self._largest = largest
        self._wait = wait
        self._observed = observed
        self._queue: deque[tuple[float, Item, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def stop(self) -> None:
        """Compute what is queued, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether items are computed."""
        return self._thread.is_alive()

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; its future can be cancelled until it is in a batch.

        Raises:
            RuntimeError: after `stop`.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._ending:
                raise RuntimeError("the batcher has ended")
            self._queue.append((time.monotonic(), item, future))
            self._changed.notify_all()
        return future

    def _run(self) -> None:
        while batch := self._next_batch():
            wanted = [(item, future) for _, item, future in batch if future.set_running_or_notify_cancel()]
            if wanted:
                self._answer([item for item, _ in wanted], [future for _, future in wanted])

    def _next_batch(self) -> list[tuple[float, Item, Future[Result]]]:
        """Wait for a batch; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending)
            if self._queue:
                until = self._queue[0][0] + self._wait
                while len(self._queue) < self._largest and not self._ending:
                    remaining = until - time.monotonic()
                    if remaining <= 0 or not self._changed.wait(remaining):
                        break
            return [self._queue.popleft() for _ in range(min(self._largest, len(self._queue)))]

    def _answer(self, items: list[Item], futures: list[Future[Result]]) -> None:
        begun = time.monotonic()
        try:
            results = self._compute(items)
        except Exception as error:  # of whatever kind, it is for those who asked
            for future in futures:
                future.set_exception(error)
            return
        self._observed(len(items), time.monotonic() - begun)
        for future, result in zip(futures, results, strict=True):
            future.set_result(result)
