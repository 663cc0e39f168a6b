"""Damaged images of every type end in an image or in a reason, soon and in bounded memory.

The damage is in fuzzing.py. The default run tries a hundred cases, `make fuzz` thousands.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import fuzzing
import hostile_images as hostile

CASES_BY_DEFAULT, CASES_OF_FUZZ = 5, 300
SECONDS_PER_CASE = 10.0
BYTES_PER_IMAGE = 300e6


@pytest.mark.parametrize("kind", fuzzing.VALID)
def test_a_few_damaged_files_of_every_type(kind: str) -> None:
    assert fuzzing.outcome(fuzzing.VALID[kind](hostile.photograph())) == "decoded"
    for number in range(CASES_BY_DEFAULT):
        started = time.perf_counter()
        fuzzing.outcome(fuzzing.damaged(kind, number))
        assert time.perf_counter() - started < SECONDS_PER_CASE


def test_the_damage_is_the_same_every_time_and_does_damage() -> None:
    cases = [fuzzing.damaged(kind, number) for kind in fuzzing.VALID for number in range(10)]
    assert cases == [fuzzing.damaged(kind, number) for kind in fuzzing.VALID for number in range(10)]
    outcomes = [fuzzing.outcome(case) == "decoded" for case in cases]
    assert 0.1 < sum(outcomes) / len(outcomes) < 0.9


@pytest.mark.fuzz
@pytest.mark.slow  # thousands of images
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
@pytest.mark.parametrize("kind", fuzzing.VALID)
def test_many_damaged_files_of_every_type(kind: str) -> None:
    """In a process of its own, which a crash would end and a hang would keep."""
    command = [sys.executable, fuzzing.__file__, kind, "0", str(CASES_OF_FUZZ)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CASES_OF_FUZZ * SECONDS_PER_CASE)
    *tried, last = done.stdout.splitlines()
    assert done.returncode == 0, f"case {last} of {kind}: {done.stderr[-2000:]}"
    slowest, added = map(float, last.split())
    assert len(tried) == CASES_OF_FUZZ
    assert "Warning" not in done.stderr  # libtiff prints lines of its own
    assert slowest < SECONDS_PER_CASE
    assert added < BYTES_PER_IMAGE
