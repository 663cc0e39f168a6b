"""Commands in forked processes that can be killed: torch is imported once, then each command is a fork away.

Run as a program it reads one JSON request per line and answers each with one line. The process that imports never
computes, because a process that has computed cannot be forked safely.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from open_clip import SimpleTokenizer
from PIL import Image

import clip_har
from samples import MODEL_CONFIG
from spared import read_vocabulary_once, spare_disk, spare_pixels, spare_workers

RENAMES = "renames"
IMPORTED_LATER = ("torchvision.transforms.v2", "pyarrow.parquet", "torch.distributed.fsdp", "torch._dynamo")
"""What commands import on the way, each process anew if not here."""


class Server:
    """Starts commands; use as a context manager."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that `select` sees what has not been read
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(
        self,
        *commands: list[str],
        log: Path,
        at_rename: int | None = None,
        after: float | None = None,
        together: bool = False,
        cache: Path | None = None,
    ) -> list[dict[str, Any]]:
        """Run commands at the same time, to their end or until they are killed.

        Args:
            log: where their output goes.
            at_rename: kill each with SIGKILL just before it renames a file for this time, from 1.
            after: kill each with SIGKILL after this many seconds.
            together: start them as torchrun does the processes of one training.
            cache: clip-har's, if not the test's own.

        Returns:
            Per command its exit code (-9 where it was killed) and how often it renamed a file.
        """
        port = _free_port() if together else None
        self._ask(_request(*commands, log=log, cache=cache, at_rename=at_rename, after=after, port=port))
        return self._answers()

    @contextlib.contextmanager
    def started(self, command: list[str], *, log: Path, given: Path | None = None) -> Iterator[Started]:
        """Start a command that is sent signals, as a terminal starts it: in a process group of its own.

        The process is killed if the block does not end it; no other command can be run before.

        Args:
            log: where its output goes: to this file with .0, errors to the same with .errors.
            given: file that is its standard input; if it is a terminal, also where output and errors go.
        """
        self._ask(_request(command, log=log, given=given, group=True))
        assert self._process.stdout is not None
        process = Started(int(self._process.stdout.readline()), Path(f"{log}.0"), self._answers)
        try:
            yield process
        finally:
            process.wait(0)

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def _answers(self, seconds: float | None = None) -> list[dict[str, Any]]:
        """What the commands ended with; nothing if they take longer."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return []
        answer: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return answer


class Started:
    """A command that runs."""

    def __init__(self, pid: int, log: Path, answers: Callable[[float], list[dict[str, Any]]]) -> None:
        self.pid, self.log, self.errors = pid, log, log.with_suffix(".errors")
        self._answers = answers
        self._code: int | None = None

    def errors_so_far(self) -> str:
        """What it has written to standard error."""
        return self.errors.read_text() if self.errors.exists() else ""

    def poll(self, seconds: float = 0) -> int | None:
        """The exit code; None if it still runs after that time."""
        if self._code is None and (answers := self._answers(seconds)):
            self._code = answers[0]["code"]
        return self._code

    def send(self, number: signal.Signals) -> None:
        """A signal for its whole process group."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended, or has no group yet
                os.killpg(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """The exit code, which is -9 if it had to be killed because it took longer."""
        self.poll(seconds)
        while self.poll(0.1) is None:
            self.send(signal.SIGKILL)
        assert self._code is not None
        return self._code


def _request(*commands: list[str], log: Path, cache: Path | None = None, **others: Any) -> dict[str, Any]:
    request = dict.fromkeys(("at_rename", "after", "port", "given", "group")) | others
    request["given"] = others.get("given") and str(others["given"])
    own = str(cache) if cache else os.environ.get("CLIP_HAR_CACHE", "")  # empty in a module's fixture
    return request | {"commands": commands, "log": str(log), "cache": own}


def serve() -> None:
    for name in IMPORTED_LATER:
        importlib.import_module(name)
    Image.init()
    for module in pkgutil.walk_packages(clip_har.__path__, "clip_har."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    patch = pytest.MonkeyPatch()
    spare_disk(patch)
    spare_pixels(patch)
    spare_workers(patch)
    read_vocabulary_once(patch)
    SimpleTokenizer(context_length=MODEL_CONFIG["model_cfg"]["text_cfg"]["context_length"])
    gc.collect()
    gc.freeze()  # else each process would copy all that is imported to count references to it
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    for line in sys.stdin:
        request = json.loads(line)
        children = [_start(command, number, request) for number, command in enumerate(request["commands"])]
        if request["group"]:
            print(children[0][0], flush=True)
        if request["after"] is not None:
            time.sleep(request["after"])
            for pid, _ in children:
                os.kill(pid, signal.SIGKILL)
        answers = []
        for pid, counted in children:
            _, status = os.waitpid(pid, 0)
            renames = int(counted.read_text()) if counted.exists() else None
            answers.append({"code": os.waitstatus_to_exitcode(status), RENAMES: renames})
        print(json.dumps(answers), flush=True)


def _start(command: list[str], number: int, request: dict[str, Any]) -> tuple[int, Path]:
    counted = Path(f"{request['log']}.{number}.renames")
    counted.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            output = os.open(f"{request['log']}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(os.open(request["given"] or os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if request["cache"]:
                os.environ["CLIP_HAR_CACHE"] = request["cache"]
            if request["group"]:
                _as_in_a_terminal(Path(f"{request['log']}.{number}").with_suffix(".errors"))
            if request["port"]:
                os.environ |= as_launched(number, len(request["commands"]), request["port"])
            code = _run(command, request["at_rename"], counted)
        finally:
            os._exit(code)
    return pid, counted


def _as_in_a_terminal(errors: Path) -> None:
    """A process group, Ctrl-C that is not ignored, and standard error apart, or a terminal that is standard input."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not os.isatty(0):
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        return
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    terminal = os.open(os.ttyname(0), os.O_RDWR)  # which is the group's own, as its leader has had none
    for stream in range(3):
        os.dup2(terminal, stream)
    os.close(terminal)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def as_launched(rank: int, processes: int, port: int) -> dict[str, str]:
    """The variables by which torchrun tells a process its place."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    return {**{key: str(value) for key, value in ranks.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _run(command: list[str], at_rename: int | None, counted: Path) -> int:
    from clip_har import cli

    done = 0
    rename = os.replace

    def counting(self: Path, target: Any) -> Path:
        nonlocal done
        done += 1
        if done == at_rename:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(self, target)
        return Path(target)

    Path.replace = counting  # type: ignore[method-assign,assignment]
    code = cli.main(command)
    sys.stdout.flush()
    counted.write_text(str(done))
    return code


def random_wait(seconds: float) -> float:
    """A moment that nobody chose."""
    return random.Random(time.time_ns()).uniform(0, seconds)


if __name__ == "__main__":
    serve()
