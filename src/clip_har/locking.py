"""One writer per folder: an exclusive lock that ends with its process, however that ends. Knows nothing of runs."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_har import distributed
from clip_har.errors import RunError
from clip_har.files import is_utf8

LOCK_NAME = ".lock"
_POLL_SECONDS = 0.01
# A POSIX lock belongs to the process, so threads of one process need this to keep out of each other's way.
_held: dict[Path, str] = {}
_waiting: dict[Path, threading.Lock] = {}
_guard = threading.Lock()


@contextmanager
def exclusive(folder: Path, *, for_weights: bool = True) -> Iterator[None]:
    """Be the only writer of a folder. It is made if it is missing, and removed again if nothing was written to it.

    Started by a launcher, the first process takes the lock for all; all must call this.

    Args:
        for_weights: whether weights are written there, which are read from no path that is not valid UTF-8.

    Raises:
        RunError: it is a file, its path is not valid UTF-8, or another process writes to it, here or on a machine that
            shares the disk.
        OSError: the folder cannot be made or written to.
    """
    if for_weights and not is_utf8(folder):
        raise RunError(f"--out {folder} is not valid UTF-8, so weights cannot be read there", remedy="Rename it.")
    lock = _Lock(folder)
    problem: str | OSError | None = None
    if distributed.is_main():
        try:
            problem = lock.acquire()
        except OSError as error:  # for all processes: none may wait for the first
            problem = error
    problem = distributed.gather_objects(problem)[0]
    if isinstance(problem, (FileExistsError, NotADirectoryError)):
        raise RunError(f"--out {folder} is a file", remedy="Pass a folder with --out.") from problem
    if isinstance(problem, OSError):
        raise problem
    if problem is not None:
        raise RunError(problem, remedy="Wait until it has finished, or choose another --out.")
    try:
        yield
    finally:
        lock.release()


class _Lock:
    """A POSIX record lock on FOLDER/.lock.

    flock would be inherited by forked workers and outlive a killed process with them; a record lock is not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LOCK_NAME
        self._made: list[Path] = []
        self._descriptor: int | None = None

    def acquire(self) -> str | None:
        """Take the lock, or say who has it."""
        with _guard:
            if self._key in _held:
                return f"{self._folder} is already being written to by this process ({_held[self._key]})"
            self._make_folder()
            while True:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
                if not _try_lock(descriptor):
                    holder = _read_holder(descriptor)
                    os.close(descriptor)
                    return f"{self._folder} is being written to by {holder}"
                if _is_same_file(descriptor, self._path):
                    break
                os.close(descriptor)  # its holder removed the file between our opening and our locking it
            self._descriptor = descriptor
            _held[self._key] = f"process {os.getpid()}"
            _write_holder(descriptor)
        return None

    def release(self) -> None:
        """Give the lock back; the file goes first, so that whoever waits for it sees that it is gone."""
        if self._descriptor is None:
            return
        with _guard:
            with suppress(OSError):
                self._path.unlink()
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
            _held.pop(self._key, None)
            for folder in self._made:
                with suppress(OSError):  # not empty: something was written
                    folder.rmdir()

    @property
    def _key(self) -> Path:
        return self._folder.resolve()

    def _make_folder(self) -> None:
        missing = [self._folder, *self._folder.parents]
        self._made = [folder for folder in missing if not folder.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)


class WaitingLock:
    """A lock on a file that one waits for; held for moments, and ended with its process. The file stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _guard:
            self._threads = _waiting.setdefault(path.resolve(), threading.Lock())
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock and take it; True."""
        self._threads.acquire()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
            while not _try_lock(descriptor):
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self._threads.release()
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None
        self._threads.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(["clip-har", *sys.argv[1:]])[:200],
    }
    os.ftruncate(descriptor, 0)
    os.write(descriptor, (json.dumps(holder) + "\n").encode())


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.read(descriptor, 4096))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):  # it has just taken the lock, and not yet written who it is
        return "another process"
