"""Some workers of a Ray cluster that work on items: results in order, few items ahead, a dead worker's items again.

Who connects to the cluster is session.py; what a worker does is said by the class that is given.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from clip_har.config import RayConfig
from clip_har.errors import ConfigError, MachineError, UserError
from clip_har.progress import Progress

RETRIES = 3
"""Times that an item is tried again after a worker died over it."""
RESTARTS = 20
"""Times that a worker is started again."""
_AHEAD = 2
"""Items given to a worker at a time: one to work on, one to begin with at once."""
_KEPT = 4
"""Items per worker that are asked for ahead of the oldest one without a result."""
_POLL_SECONDS, _PATIENCE_SECONDS = 2.0, 30.0
_END = object()


class Worker(Protocol):
    """What a class of workers has; arguments and results are sent between processes."""

    @property
    def common(self) -> Any:
        """What all workers must have in common; asked first, so that it also makes the worker ready."""

    def work(self, item: Any) -> Any:
        """The result for an item."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What is done to an item on a processor before a worker on a GPU gets it."""

    read: Callable[..., Any]
    """Called with `arguments` and the item."""
    arguments: tuple[Any, ...] = ()
    processes: int = -1
    """At a time; -1 is one per processor of the cluster."""


@dataclass(kw_only=True, eq=False)
class _Seat:
    """A worker."""

    actor: Any
    starting: Any = None
    """The reference of its start; None once it has started."""
    process: tuple[int, float] | None = None
    busy: int = 0


@dataclass(kw_only=True, eq=False)
class _Task:
    """An item on its way."""

    item: Any
    given: Any
    """What a worker gets: the item, or the reference of what was read."""
    reading: Any = None
    working: Any = None
    seat: _Seat | None = None
    results: list[Any] = field(default_factory=list)


class Hosted:
    """The process that runs a worker, which it names with every result."""

    def __init__(self, kind: Callable[..., Worker], arguments: tuple[Any, ...], folder: str) -> None:
        self._worker, self._process = kind(*arguments), (os.getpid(), time.time())
        _enter(folder)

    def start(self) -> tuple[tuple[int, float], Any]:
        return self._process, self._worker.common

    def work(self, item: Any) -> tuple[tuple[int, float], Any, Any]:
        return self._process, self._worker.common, self._worker.work(item)


def _enter(folder: str) -> None:
    """Relative paths mean what they mean to the command, on machines that have its folder."""
    try:
        os.chdir(folder)
    except OSError:
        return


def _read(folder: str, read: Callable[..., Any], arguments: tuple[Any, ...], item: Any) -> Any:
    _enter(folder)
    return read(*arguments, item)


class WorkerPool:
    """Workers on a cluster, which end with it.

    Args:
        ray: connected, see `session.connected`.
        kind, arguments: the class of a worker, and what it is made with.
        gpu: whether each worker takes a GPU, or else one processor.
        named: a few words for an item, for a message.

    Raises:
        ConfigError: the cluster cannot have such a worker.
    """

    def __init__(
        self,
        ray: Any,
        config: RayConfig,
        kind: Callable[..., Worker],
        arguments: tuple[Any, ...],
        *,
        gpu: bool,
        named: Callable[[Any], str],
        progress: Progress,
    ) -> None:
        self._ray, self._progress, self._named, self._gpu = ray, progress, named, gpu
        self._folder = os.getcwd()  # noqa: PTH109 - sent as text
        resources = ray.cluster_resources()
        self._processors = max(1, int(resources.get("CPU", 1)))
        available = int(resources.get("GPU" if gpu else "CPU", 0))
        if available < 1:
            raise ConfigError(
                f"The Ray cluster has no {'GPU' if gpu else 'CPU'}",
                remedy="Pass --device cpu." if gpu else "Start a node with CPUs: ray start --address HEAD:6379",
            )
        self.size = config.ray_workers if config.ray_workers > 0 else available
        needs = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
        actor = ray.remote(Hosted).options(**needs, max_restarts=RESTARTS, max_task_retries=RETRIES)
        self._seats = [_Seat(actor=actor.remote(kind, arguments, self._folder)) for _ in range(self.size)]
        for seat in self._seats:
            seat.starting = seat.actor.start.remote()
        self._common: Any = None

    def start(self) -> Any:
        """Wait for the first worker; what it says of all workers. The others join while they work.

        Raises:
            UserError: a worker cannot start.
        """
        began, told = time.monotonic(), False
        while not any(seat.starting is None for seat in self._seats):
            self._ray.wait([seat.starting for seat in self._seats], num_returns=1, timeout=_POLL_SECONDS)
            self._welcome()
            if not told and time.monotonic() - began > _PATIENCE_SECONDS:
                told = True
                self._progress.note(f"Waiting for Ray to start a worker on a free {'GPU' if self._gpu else 'CPU'}")
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        workers = f"{self.size} worker{'s' if self.size > 1 else ''}"
        self._progress.note(f"Ray: {workers} on {machines} machine{'s' if machines > 1 else ''}")
        return self._common

    def in_order(self, items: Iterable[Any], reader: Reader | None = None) -> Generator[Any, None, None]:
        """The result of each item, in order. Items are asked for a few ahead of the results.

        Raises:
            UserError: a worker says so, or workers die of an item again and again.
        """
        waiting, tasks, ended = iter(items), deque[_Task](), False
        read = _Reading(self, reader) if reader is not None else None
        window = _KEPT * self.size + (read.processes if read else 0)
        while True:
            while not ended and len(tasks) < window:
                item = next(waiting, _END)
                if ended := item is _END:
                    break
                reading = read.begin(item) if read else None
                tasks.append(_Task(item=item, given=item if reading is None else reading, reading=reading))
            self._hand_out(tasks)
            if tasks and tasks[0].results:
                yield tasks.popleft().results[0]
            elif tasks:
                self._wait(tasks)
            else:
                return

    def _hand_out(self, tasks: Iterable[_Task]) -> None:
        for task in tasks:
            if task.seat is not None or task.reading is not None:
                continue
            seat = min((seat for seat in self._seats if seat.starting is None), key=lambda seat: seat.busy)
            if seat.busy >= _AHEAD:
                return
            seat.busy += 1
            task.seat, task.working = seat, seat.actor.work.remote(task.given)

    def _wait(self, tasks: Iterable[_Task]) -> None:
        """Wait until something is read, done or started."""
        reading = {task.reading: task for task in tasks if task.reading is not None}
        working = {task.working: task for task in tasks if task.working is not None}
        starting = [seat.starting for seat in self._seats if seat.starting is not None]
        references = [*reading, *working, *starting]
        self._ray.wait(references, num_returns=1, timeout=_POLL_SECONDS, fetch_local=False)
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
        for reference in ready:
            if reference in reading:
                reading[reference].reading = None
            elif reference in working:
                self._finish(working[reference])
        self._welcome()

    def _finish(self, task: _Task) -> None:
        seat = task.seat
        assert seat is not None
        process, common, result = self._value(task.working, task.item)
        if common != self._common:
            raise ConfigError(
                "A Ray worker was started again with another precision or other weights",
                remedy="Set --precision, and use the same weights on all machines.",
            )
        if seat.process not in (None, process):
            self._progress.warn("A Ray worker died and was started again; its images are read again")
        seat.process, seat.busy = process, seat.busy - 1
        task.working, task.given = None, None
        task.results.append(result)

    def _welcome(self) -> None:
        """Take in the workers that have started."""
        starting = [seat for seat in self._seats if seat.starting is not None]
        if not starting:
            return
        ready, _ = self._ray.wait([seat.starting for seat in starting], num_returns=len(starting), timeout=0)
        for seat in starting:
            if seat.starting not in ready:
                continue
            seat.process, common = self._value(seat.starting, None)
            if self._common is not None and common != self._common:
                raise MachineError(
                    "The workers of the Ray cluster do not have the same weights, precision or version of clip-har",
                    remedy="Install the same version on all machines, and set --precision.",
                )
            self._common, seat.starting = common, None

    def _value(self, reference: Any, item: Any) -> Any:
        """The result behind a reference.

        Raises:
            UserError: what a worker refused, or that it died too often.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, (UserError, OSError, MemoryError)):
                raise cause from None
            raise
        except exceptions.RayError as error:
            if item is None:
                what, remedy = "A Ray worker died each time that it was started", "Use fewer --ray-workers."
            else:
                what = f"Ray workers died {RETRIES + 1} times over the images {self._named(item)}"
                remedy = "Use fewer --ray-workers if memory ran out, and run the same command again to continue."
            raise MachineError(f"{what} ({type(error).__name__})", remedy=remedy) from error


class _Reading:
    """Reads items on the processors of the cluster."""

    def __init__(self, pool: WorkerPool, reader: Reader) -> None:
        ray = pool._ray
        self.processes = reader.processes if reader.processes > 0 else pool._processors
        self._shared = ray.put(reader.arguments)
        self._folder, self._read = pool._folder, reader.read
        self._task = ray.remote(_read).options(num_cpus=1, max_retries=RETRIES)

    def begin(self, item: Any) -> Any:
        return self._task.remote(self._folder, self._read, self._shared, item)


def item_names(names: Iterator[str] | Iterable[str]) -> str:
    """How a message names some consecutive images."""
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{listed[0]} to {listed[-1]}"
