"""--part: what a number, a SLURM array, torchrun and an indexed Kubernetes job mean."""

from __future__ import annotations

import pytest

from clip_har.embedding.parts import Part, parse_part
from clip_har.errors import ConfigError


def slurm(task: int, first: int, last: int, step: int = 1) -> dict[str, str]:
    """What SLURM sets for `--array=FIRST-LAST:STEP`."""
    count = len(range(first, last + 1, step))
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def torchrun(rank: int, size: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        (None, torchrun(1, 2), (0, 1)),
        ("0/1", {}, (0, 1)),
        ("3/4", slurm(0, 0, 9), (3, 4)),
        ("auto", slurm(0, 0, 9), (0, 10)),
        ("auto", slurm(10, 1, 10), (9, 10)),
        ("auto", slurm(20, 0, 30, 10), (2, 4)),
        ("auto/5", slurm(4, 0, 4), (4, 5)),
        ("auto", torchrun(3, 8), (3, 8)),
        ("auto", slurm(2, 1, 3) | torchrun(1, 4), (5, 12)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, (5, 6)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"} | torchrun(0, 2), (10, 12)),
    ],
)
def test_the_part_that_is_meant(text: str | None, environment: dict[str, str], part: tuple[int, int]) -> None:
    assert parse_part(text, environment) == Part(index=part[0], count=part[1])


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("4/4", {}, "--part 4/4 does not exist: parts of 4 are 0/4 to 3/4"),
        ("0/0", {}, "there must be at least one part"),
        ("1", {}, '"1" is not I/N, auto or auto/N'),
        ("-1/4", {}, "is not I/N"),
        ("auto/0", {}, "is not I/N"),
        ("auto/x", {}, "is not I/N"),
        ("auto", {}, "none of these variables is set"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "Pass --part auto/N"),
        ("auto/4", torchrun(0, 4), "needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "is not one of 4 tasks"),
        ("auto", slurm(7, 1, 3) | {"SLURM_ARRAY_TASK_ID": "7"}, "is not one of 3 tasks numbered without gaps"),
        ("auto", slurm(5, 0, 30, 10), "is not one of 4 tasks numbered without gaps"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x"}, 'SLURM_ARRAY_TASK_ID is "x", which is not a number'),
    ],
)
def test_what_is_no_part_is_refused(text: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_part(text, environment)
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("total", [0, 1, 6, 100])
def test_parts_share_all_files_once(count: int, total: int) -> None:
    shares = [number for index in range(count) for number in Part(index=index, count=count).shards(total)]
    assert sorted(shares) == list(range(total))
