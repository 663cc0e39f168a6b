"""Decoding workers: deaf to the signals of their process group, mourned in one line, gone after use."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import hostile_images as hostile
from clip_har.errors import DataError
from clip_har.images import DecodedBatch, Preprocessing, decode_batches, workers

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals to process groups exist on POSIX systems")
MODEL = Preprocessing(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for number in range(40):
        content = hostile.encode(Image.new("RGB", (40, 30), (number, 0, 0)), "PNG")
        (tmp_path / f"{number:02d}.png").write_bytes(content)
    return sorted(tmp_path.iterdir())


def load(paths: list[Path]) -> Iterator[DecodedBatch]:
    return decode_batches(paths, MODEL.pixel_transform(), batch_size=4, workers=2)


@POSIX
def test_workers_ignore_the_signals_that_end_a_run(paths: list[Path]) -> None:
    batches = load(paths)
    first = next(batches)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child.pid, number)
    rest = list(batches)
    assert [index for batch in (first, *rest) for index in batch.indices] == list(range(40))
    assert multiprocessing.active_children() == []


@POSIX
def test_a_killed_worker_is_one_clear_line(paths: list[Path]) -> None:
    batches = load(paths * 20)
    next(batches)
    victim = multiprocessing.active_children()[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    time.sleep(0.2)
    sum(range(1000))  # no error is raised here, in code that has nothing to do with it
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(caught.value) == (
        "A process that decodes images was killed by SIGKILL, usually because it ran out of memory. "
        "Use fewer --workers, or 0 to decode in the main process."
    )
    assert multiprocessing.active_children() == []


def broken(image: Image.Image) -> Tensor:
    if image.size == (1, 1):
        return torch.zeros(3, 1, 1)
    raise RuntimeError("our own mistake")


def test_a_mistake_in_a_worker_stays_a_mistake(paths: list[Path]) -> None:
    with pytest.raises(RuntimeError, match="our own mistake"):
        list(decode_batches(paths, broken, batch_size=4, workers=2))
    assert multiprocessing.active_children() == []


class Stuck:
    """Decodes the first image and hangs at the second, as a damaged file on a network disk may."""

    def __call__(self, image: Image.Image) -> Tensor:
        if image.size != (1, 1) and image.getpixel((0, 0)) != (0, 0, 0):
            time.sleep(600)
        return torch.zeros(3, 1, 1)


@POSIX
def test_a_stuck_worker_is_ended_too(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS_TO_DIE", 0.1)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    batches = decode_batches(paths, Stuck(), batch_size=1, workers=2)
    next(batches)
    started = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
    assert time.monotonic() - started < 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
def test_repeated_loads_leave_no_process_and_no_memory_behind(paths: list[Path]) -> None:
    def used() -> int:
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024

    def descriptors() -> int:
        gc.collect()  # closed queues hold theirs in cycles
        return len(list(Path("/proc/self/fd").iterdir()))

    for _ in range(2):
        list(load(paths))
    before, open_before = used(), descriptors()
    for _ in range(8):
        list(load(paths))
        assert multiprocessing.active_children() == []
    assert used() - before < 20e6
    assert descriptors() <= open_before + 2


@POSIX
def test_sigterm_to_the_whole_group_ends_as_the_parent_decides(paths: list[Path]) -> None:
    """SLURM, docker stop and Ctrl-C signal every process of a job."""
    script = textwrap.dedent("""
        import signal, sys, time
        from pathlib import Path
        from clip_har.images import Preprocessing, decode_batches

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, interrupt)
        paths = sorted(Path(sys.argv[1]).iterdir()) * 100
        model = Preprocessing(image_size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
        try:
            for batch in decode_batches(paths, model.pixel_transform(), batch_size=4, workers=2):
                print("batch", flush=True)
                time.sleep(0.05)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    command = [sys.executable, "-c", script, str(paths[0].parent)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdout is not None and job.stdout.readline() == "batch\n"
        os.killpg(job.pid, signal.SIGTERM)
        output, errors = job.communicate(timeout=60)
    assert (output.splitlines()[-1], errors, job.returncode) == ("interrupted", "", 0)
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)


HANGS_UP = """
import os, socket, sys, threading
from multiprocessing import resource_sharer
from clip_har.images.workers import ignore_interrupts, start_worker
{prepare}()
resource_sharer.DupFd(os.pipe()[0])
for _ in range(3):
    with socket.socket(socket.AF_UNIX) as parent:
        parent.connect(resource_sharer._resource_sharer._address)
resource_sharer.stop(timeout=30)
sys.excepthook(ValueError, ValueError("a fault"), None)
"""


@POSIX
@pytest.mark.parametrize(("prepare", "shown"), [("start_worker", False), ("ignore_interrupts", True)])
def test_a_parent_that_hangs_up_is_no_traceback(prepare: str, shown: bool) -> None:
    command = [sys.executable, "-c", HANGS_UP.format(prepare=prepare)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ("Traceback" in ended.stderr) is shown
    assert "ValueError: a fault" in ended.stderr
