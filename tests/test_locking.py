"""One writer per folder: who is refused, who is named, and that the lock ends with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, TrainConfig
from clip_har.errors import RunError
from clip_har.locking import LOCK_NAME, exclusive

HOLDER = """
import os, sys, time
from pathlib import Path
from clip_har.locking import exclusive
with exclusive(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:  # as a decoding worker does
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *flags: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *flags], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_second_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(RunError, match=rf"process {process.pid} on .* since ") as caught,
            exclusive(tmp_path / "run"),
        ):
            pass
        assert "--out" in caught.value.remedy
    finally:
        end(process)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_killed_process_holds_nothing_although_its_worker_lives(tmp_path: Path) -> None:
    process = holder(tmp_path / "run", "with-a-worker")
    try:
        process.kill()
        process.wait()
        with exclusive(tmp_path / "run"):
            assert (tmp_path / "run" / LOCK_NAME).is_file()
    finally:
        end(process)


def test_afterwards_nothing_is_left(tmp_path: Path) -> None:
    with exclusive(tmp_path / "runs" / "new"):
        pass
    assert not list(tmp_path.iterdir())
    with exclusive(tmp_path / "runs" / "new"):
        (tmp_path / "runs" / "new" / "file").touch()
    assert [path.name for path in (tmp_path / "runs" / "new").iterdir()] == ["file"]


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="is a file"), exclusive(folder):
            pass


def test_a_training_that_has_saved_a_state_is_still_named_as_the_holder(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "busy" / "last").mkdir(parents=True)
    (tmp_path / "busy" / "last" / "step-00000001.safetensors").touch()
    (tmp_path / "busy" / "config.json").write_text("{}")
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    process = holder(tmp_path / "busy")
    try:
        with pytest.raises(RunError, match=f"is being written to by process {process.pid}"):
            commands.train(TrainConfig(data=DataConfig(data=photos), backbone=backbone, out=tmp_path / "busy"))
    finally:
        end(process)


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    refused = []

    def second() -> None:
        try:
            with exclusive(tmp_path):
                pass
        except RunError as error:
            refused.append(str(error))

    with exclusive(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        with exclusive(tmp_path / "other"):
            pass
    assert len(refused) == 1 and "by this process" in refused[0]
    with exclusive(tmp_path):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError), exclusive(tmp_path):
        raise ValueError
    with exclusive(tmp_path):
        pass


def test_train_evaluate_and_compare_are_refused_while_another_process_writes(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    data = DataConfig(data=photos)
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32")
    from clip_har.config import CompareConfig, QuickstartConfig

    process = holder(tmp_path / "busy")
    try:
        for command in (
            lambda: commands.train(TrainConfig(data=data, backbone=backbone, out=tmp_path / "busy")),
            lambda: commands.evaluate(EvaluateConfig(data=data, backbone=backbone, out=tmp_path / "busy")),
            lambda: commands.compare(CompareConfig(data=data, backbone=backbone, out=tmp_path / "busy")),
            lambda: commands.quickstart(QuickstartConfig(out=tmp_path / "busy")),
        ):
            with pytest.raises(RunError, match=f"is being written to by process {process.pid}"):
                command()
        assert [path.name for path in (tmp_path / "busy").iterdir()] == [LOCK_NAME]
    finally:
        end(process)
