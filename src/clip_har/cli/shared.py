"""What the commands' functions share: exit codes, the command line as typed, where progress goes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clip_har.progress import SILENT, Progress
from clip_har.shown_text import shown

EXIT_DONE, EXIT_OUR_FAULT, EXIT_USER_INPUT, EXIT_FINDINGS, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
ConfigFile = Annotated[
    Path | None, Parameter(name="--config", help="JSON or TOML file with these options. Flags override it.")
]

_COMMAND_LINE: list[str] = []


def remember_command_line(words: Sequence[str]) -> None:
    """Keep what was typed, for `command_line`."""
    _COMMAND_LINE[:] = words


def command_line() -> str:
    """The command line as one would type it again, for reports and cards."""
    return shlex.join(" ".join(_COMMAND_LINE[:1]).split() + _COMMAND_LINE[1:])


def speaks() -> bool:
    """Whether this process is the one of several that talks to the user."""
    return os.environ.get("RANK", "0") == "0"


def shown_progress() -> Progress:
    """Where progress goes: to the terminal, or nowhere from all processes but the first."""
    from clip_har.console import ConsoleProgress

    return ConsoleProgress() if speaks() else SILENT


def say(line: str, *, from_all: bool = False) -> None:
    """Print a line to standard error, from the process that speaks, or from every one."""
    if not speaks() and not from_all:
        return
    with suppress(OSError):  # the terminal may be gone
        print(shown(line), file=sys.stderr, flush=True)
