"""`clip-har embed` killed with SIGKILL before each file it renames into place, and two processes at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from forked import RENAMES, Server
from samples import HUES, write_image

pytestmark = [
    pytest.mark.slow,  # a process that has imported torch is started, and forked for each kill
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

IMAGES = 10


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def command(tmp_path: Path, tiny_model: str) -> list[str]:
    for number in range(IMAGES):
        write_image(tmp_path / "images" / f"{number}.jpg", HUES["running"], seed=number)
    options = ["--shard-size", "3", "--workers", "1", "--precision", "float32", "--device", "cpu"]
    return ["embed", str(tmp_path / "images"), "--model", tiny_model, *options, "--out"]


def test_the_same_command_continues_after_any_kill_to_the_same_files(
    server: Server, tmp_path: Path, command: list[str]
) -> None:
    (whole,) = server.run([*command, str(tmp_path / "whole")], log=tmp_path / "log")
    assert whole["code"] == 0, (tmp_path / "log.0").read_text()
    expected = contents(tmp_path / "whole")
    assert len(expected) == 1 + 4
    killed = 0
    for number in range(1, whole[RENAMES] + 1):
        out = tmp_path / f"killed-{number}"
        (answer,) = server.run([*command, str(out)], log=tmp_path / "log", at_rename=number)
        killed += answer["code"] == -9
        (answer,) = server.run([*command, str(out)], log=tmp_path / "log")
        assert answer["code"] == 0, (tmp_path / "log.0").read_text()
        assert contents(out) == expected
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert killed >= 5


def test_two_processes_on_the_same_work_write_each_file_once(
    server: Server, tmp_path: Path, command: list[str]
) -> None:
    server.run([*command, str(tmp_path / "whole")], log=tmp_path / "log")
    both = [*command, str(tmp_path / "both")]
    answers = server.run(both, both, log=tmp_path / "log")
    said = [(tmp_path / f"log.{number}").read_text() for number in range(2)]
    assert [answer["code"] for answer in answers] == [0, 0], said
    assert contents(tmp_path / "both") == contents(tmp_path / "whole")
    parts = [[*command, str(tmp_path / "parts"), "--part", "auto"]] * 2
    server.run(*parts, log=tmp_path / "log", together=True)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_ctrl_c_ends_it_with_its_workers(server: Server, tmp_path: Path, command: list[str]) -> None:
    (image,) = (tmp_path / "images").glob("0.jpg")
    for number in range(1000):
        (tmp_path / "images" / f"again-{number}.jpg").symlink_to(image)
    out = tmp_path / "out"
    with server.started([*command, str(out)], log=tmp_path / "log") as process:
        while process.poll(0.01) is None and len(list(out.glob("*.parquet"))) < 5:
            pass
        process.send(signal.SIGINT)  # to the process group, as a terminal does, which tells the workers too
        code = process.wait()
    said = process.errors_so_far()
    assert code == 130, said
    assert "Traceback" not in said
    assert "clip-har embed" in said.splitlines()[-1]
    left = [path for path in out.iterdir() if path.name.startswith(".")]
    assert [path.suffix for path in left] in ([], [".writing"])  # a lock just taken: the next command removes it
