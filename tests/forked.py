"""Commands in forked processes that can be killed: torch is imported once, then each command is a fork away.

Run as a program it reads one JSON request per line and answers each with one line. The process that imports never
computes, because a process that has computed cannot be forked safely.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from open_clip import SimpleTokenizer
from PIL import Image

import clip_har
from samples import MODEL_CONFIG
from spared import read_vocabulary_once, spare_disk, spare_pixels

RENAMES = "renames"


class Server:
    """Starts commands; use as a context manager."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    ) -> list[dict[str, Any]]:
        """Run commands at the same time, to their end or until they are killed.

        Args:
            log: where their output goes.
            at_rename: kill each with SIGKILL just before it renames a file for this time, from 1.
            after: kill each with SIGKILL after this many seconds.
            together: start them as torchrun does the processes of one training.

        Returns:
            Per command its exit code (-9 where it was killed) and how often it renamed a file.
        """
        request = {"commands": commands, "log": str(log), "at_rename": at_rename, "after": after}
        request["port"] = _free_port() if together else None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return answer


def serve() -> None:
    importlib.import_module("torchvision.transforms.v2")  # what commands import on the way
    Image.init()
    for module in pkgutil.walk_packages(clip_har.__path__, "clip_har."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    patch = pytest.MonkeyPatch()
    spare_disk(patch)
    spare_pixels(patch)
    read_vocabulary_once(patch)
    SimpleTokenizer(context_length=MODEL_CONFIG["model_cfg"]["text_cfg"]["context_length"])
    gc.collect()
    gc.freeze()  # else each process would copy all that is imported to count references to it
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    for line in sys.stdin:
        request = json.loads(line)
        children = [_start(command, number, request) for number, command in enumerate(request["commands"])]
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
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if request["port"]:
                os.environ |= _as_launched(number, len(request["commands"]), request["port"])
            code = _run(command, request["at_rename"], counted)
        finally:
            os._exit(code)
    return pid, counted


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _as_launched(rank: int, processes: int, port: int) -> dict[str, str]:
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
    counted.write_text(str(done))
    return code


def random_wait(seconds: float) -> float:
    """A moment that nobody chose."""
    return random.Random(time.time_ns()).uniform(0, seconds)


if __name__ == "__main__":
    serve()
