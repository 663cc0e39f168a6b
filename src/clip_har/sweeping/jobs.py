"""--jobs: further workers of the same sweep in processes of their own; run as a module, this is one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from clip_har.config import SweepConfig, to_flat_json
from clip_har.config.flat import from_flat_json
from clip_har.errors import UserError
from clip_har.progress import SILENT, Progress


def to_json(config: SweepConfig) -> str:
    """A config as text for another process."""
    flat = to_flat_json(dataclasses.replace(config, search={}))
    return json.dumps({**flat, "search": config.search, "execution": dataclasses.asdict(config.execution)})


def from_json(text: str) -> SweepConfig:
    """What `to_json` wrote."""
    flat = json.loads(text)
    search = flat.pop("search")
    return dataclasses.replace(from_flat_json(SweepConfig, flat), search=search)


@contextlib.contextmanager
def helpers(config: SweepConfig, command: str, progress: Progress) -> Iterator[None]:
    """All --jobs but this one, for the length of a with block, at whose end they are waited for."""
    started: list[tuple[subprocess.Popen[str], IO[str]]] = []
    cores = max(1, (os.cpu_count() or 1) // config.jobs)
    environment = {"OMP_NUM_THREADS": str(cores), **os.environ}
    try:
        for _ in range(config.jobs - 1):
            errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads would fill
            process = subprocess.Popen(
                [sys.executable, "-m", "clip_har.sweeping.jobs", str(os.getpid()), command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                env=environment,
            )
            started.append((process, errors))
            _write(process.stdin, to_json(config))
        yield
        for process, said in started:
            if process.wait():
                said.seek(0)
                last = (said.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                progress.warn(f"A worker has ended early: {last}")
    finally:
        for process, said in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
            said.close()


def _write(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already, which is said at the end
        stream.write(text + "\n")
        stream.flush()


def main(parent: int, command: str) -> int:
    """Work on the sweep that standard input describes, for as long as its parent lives."""
    from clip_har import light_imports

    light_imports.enable()
    from clip_har.sweeping.loop import work
    from clip_har.sweeping.opening import open_sweep

    config = from_json(sys.stdin.readline())
    try:
        study, experiments = open_sweep(config, SILENT)
        work(config, study, experiments, SILENT, command, wanted=lambda: os.getppid() == parent)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
