"""Processes that decode uploads. One that dies or takes too long is replaced, and only its own upload fails.

A file that makes a decoder crash, or that takes it for ever, so cannot harm other requests or the service.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from clip_har.images.preprocessing import PixelTransform
from clip_har.serving.decoding_process import Pixels, work

SECONDS_TO_START = 120.0
_CHILD = "clip_har.serving.decoding_process"


class DecoderDiedError(Exception):
    """The process that decoded an upload has ended, such as by a signal."""


class DecodingTooSlowError(Exception):
    """An upload was not decoded in time; its process was ended."""


class Decoders:
    """A fixed number of decoding processes.

    Args:
        transforms: from an image to a model's pixels, one for each model.
        count: processes.
        max_pixels: width times height above which nothing is decoded.
    """

    def __init__(self, transforms: Sequence[PixelTransform], *, count: int, max_pixels: int) -> None:
        self.replaced = 0
        """Processes that were replaced."""
        self._workers = [_Worker(transforms, max_pixels) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._counting = threading.Lock()

    def start(self) -> None:
        """Start all processes, and wait until they have imported what they need."""
        list(self._threads.map(_Worker.start_and_wait, self._workers))
        for worker in self._workers:
            self._idle.put(worker)

    def stop(self) -> None:
        """End all processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.end()

    @property
    def pids(self) -> list[int]:
        """The processes that are alive."""
        return [worker.process.pid for worker in self._workers if worker.is_alive() and worker.process.pid]  # type: ignore[union-attr]

    async def decode(self, content: bytes, transform: int, deadline: float) -> Pixels:
        """Decode an upload in the next process that is free.

        Args:
            transform: number of the model's transform.
            deadline: time of `time.monotonic` at which the process is ended.

        Raises:
            DecoderDiedError, DecodingTooSlowError: there is no answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._decode, content, transform, deadline)

    def _decode(self, content: bytes, transform: int, deadline: float) -> Pixels:
        worker = self._idle.get()  # there is one: as many threads as workers
        try:
            if not worker.is_alive():  # it died while nobody asked it
                self._replace(worker)
            return worker.decode(content, transform, deadline)
        except (DecoderDiedError, DecodingTooSlowError):
            self._replace(worker)
            raise
        finally:
            self._idle.put(worker)

    def _replace(self, worker: _Worker) -> None:
        worker.end()
        with self._counting:
            self.replaced += 1
        with suppress(OSError, EOFError):  # if no process can be started now, the next upload tries again
            worker.start()


class _Worker:
    """One process, and the connection to it; used by one thread at a time."""

    def __init__(self, transforms: Sequence[PixelTransform], max_pixels: int) -> None:
        self._arguments = (tuple(transforms), max_pixels)
        self.process: BaseProcess | None = None
        self._connection: Connection | None = None

    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        self.process, self._connection = process, ours

    def start_and_wait(self) -> None:
        self.start()
        self.decode(b"", 0, time.monotonic() + SECONDS_TO_START)

    def decode(self, content: bytes, transform: int, deadline: float) -> Pixels:
        connection = self._connection
        if connection is None:
            raise DecoderDiedError
        try:
            connection.send((transform, content))
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                raise DecodingTooSlowError
            answer: Pixels = connection.recv()
        except (EOFError, OSError) as error:
            raise DecoderDiedError from error
        return answer

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _context() -> Any:
    """How processes are started: forked from a small one that has imported what they need, where there is fork.

    A fork of the server itself would inherit the locks of its threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_CHILD])
    return context


def prepare_decoders() -> None:
    """Let the process that decoders are forked from import what they need, while this one does something else."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()
