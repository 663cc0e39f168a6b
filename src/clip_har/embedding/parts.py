"""Which part of the files a process writes, as given or as the environment of its scheduler says.

What the files are is in files.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from clip_har.errors import ConfigError

_EXAMPLE = "Pass --part I/N with I from 0 to N-1, such as 0/4."


@dataclass(frozen=True, kw_only=True)
class Part:
    """Every `count`-th file, starting at `index`."""

    index: int = 0
    count: int = 1

    def shards(self, total: int) -> range:
        """The numbers of its files among `total`."""
        return range(self.index, total, self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_part(text: str | None, environment: Mapping[str, str]) -> Part:
    """The part that --part means: "I/N", "auto", "auto/N", or None for everything.

    Raises:
        ConfigError: it is none of these, or the environment does not say what auto means.
    """
    if text is None:
        return Part()
    if text == "auto" or text.startswith("auto/"):
        return _from_environment(text, environment)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if match is None:
        raise ConfigError(f'--part "{text}" is not I/N, auto or auto/N', remedy=_EXAMPLE)
    index, count = int(match[1]), int(match[2])
    if index >= count:
        last = f"parts of {count} are 0/{count} to {count - 1}/{count}" if count else "there must be at least one part"
        raise ConfigError(f"--part {text} does not exist: {last}", remedy=_EXAMPLE)
    return Part(index=index, count=count)


def _from_environment(text: str, environment: Mapping[str, str]) -> Part:
    """A scheduler's task, and within it the process of torchrun, if there are both."""
    outer = _task(text, environment)
    inner = None
    if "RANK" in environment and "WORLD_SIZE" in environment:
        inner = Part(index=_number(environment, "RANK"), count=_number(environment, "WORLD_SIZE"))
    if outer is None and inner is None:
        raise ConfigError(
            f"--part {text} needs a SLURM array (SLURM_ARRAY_TASK_ID), torchrun (RANK, WORLD_SIZE) or an indexed "
            "Kubernetes job (JOB_COMPLETION_INDEX), and none of these variables is set",
            remedy=_EXAMPLE,
        )
    if outer is None or inner is None:
        return outer or inner or Part()
    return Part(index=outer.index * inner.count + inner.index, count=outer.count * inner.count)


def _task(text: str, environment: Mapping[str, str]) -> Part | None:
    """The task of a SLURM array or of an indexed Kubernetes job; None where there is neither."""
    given = text.removeprefix("auto").removeprefix("/")
    if given and (not re.fullmatch(r"\d{1,9}", given) or int(given) == 0):
        raise ConfigError(f'--part "{text}" is not I/N, auto or auto/N', remedy="Pass --part auto/N, such as auto/8.")
    if "SLURM_ARRAY_TASK_ID" in environment:
        name, index = "SLURM_ARRAY_TASK_ID", _slurm_index(environment)
        count = int(given) if given else _number(environment, "SLURM_ARRAY_TASK_COUNT")
    elif "JOB_COMPLETION_INDEX" in environment:
        name, index = "JOB_COMPLETION_INDEX", _number(environment, "JOB_COMPLETION_INDEX")
        if not given:
            raise ConfigError(
                "--part auto does not know how many tasks a Kubernetes job has",
                remedy="Pass --part auto/N with the completions of the job, such as auto/8.",
            )
        count = int(given)
    elif given:
        raise ConfigError(
            f"--part {text} needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, and neither is set",
            remedy="Pass --part auto under torchrun, or --part I/N.",
        )
    else:
        return None
    if index >= count:
        raise ConfigError(
            f"{name} {environment[name]} is not one of {count} tasks numbered without gaps",
            remedy=f"Number the tasks from 0 to {count - 1}, or pass --part I/N.",
        )
    return Part(index=index, count=count)


def _slurm_index(environment: Mapping[str, str]) -> int:
    """The place of the task in an array such as 0-9, 1-10 or 0-30:10."""
    first = _number(environment, "SLURM_ARRAY_TASK_MIN") if "SLURM_ARRAY_TASK_MIN" in environment else 0
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") if environment.get("SLURM_ARRAY_TASK_STEP") else 1
    place, rest = divmod(_number(environment, "SLURM_ARRAY_TASK_ID") - first, max(step, 1))
    return place if rest == 0 and place >= 0 else 1 << 62


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"\d{1,9}", text):
        raise ConfigError(f'{name} is "{text}", which is not a number', remedy=_EXAMPLE)
    return int(text)
