"""Running one command line: parsed, run, and ended with an exit code. The commands are in app.py and data.py.

Exit codes: 0 done, 1 our fault (traceback), 2 the user's input (one line), 3 a check found something
(data audit, data verify, embed --check) or something is missing (compare --models), 130 interrupted (state saved).
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts import App
from cyclopts.config import Dict as ConfigValues

from clip_har import light_imports
from clip_har.cli.app import app
from clip_har.cli.flags import CONFIG_TYPES, command_words, flag_problem, refuse_empty, value_of
from clip_har.cli.shared import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_OUR_FAULT,
    EXIT_USER_INPUT,
    command_line,
    remember_command_line,
    say,
)
from clip_har.config import STANDARD_INPUT, load_config_file
from clip_har.errors import UserError
from clip_har.failures import machine_failure
from clip_har.interrupts import ended_like_ctrl_c
from clip_har.shown_text import shown_lines

COLLECTION_THRESHOLDS = (1000, 50, 100)
"""Less often than Python's default of (700, 10, 10): it goes through every object of the imported packages each time,
an eighth of the time of a short command."""


def main(argv: Sequence[str] | None = None, *, app: App = app) -> int:
    """Run one command line and return its exit code, whatever happens."""
    if argv is not None:
        return _main(list(argv), app)
    light_imports.enable()  # this process is ours alone
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    code = _main(sys.argv[1:], app)
    if sys.argv[1:2] in (["predict"], ["video"]):  # workers have ended; taking torch down costs half a second, 130 MB
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    return code


def _main(tokens: list[str], app: App) -> int:
    remember_command_line([*app.name, *tokens])
    try:
        with ended_like_ctrl_c():
            return run_command(tokens, app=app)
    except cyclopts.CycloptsError as error:
        return _refuse(flag_problem(error, tokens, app))
    except UserError as error:
        return _refuse(str(error), from_all=tokens[:1] == ["embed"])  # each process has work of its own
    except KeyboardInterrupt as interrupt:
        return _interrupted(tokens, *interrupt.args)
    except BrokenPipeError:  # the reader of our output has gone, as in `clip-har ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:
        failure = machine_failure(error)
        return _our_fault() if failure is None else _refuse(str(failure), from_all=tokens[:1] == ["embed"])


def run_command(tokens: Sequence[str], *, app: App = app) -> int:
    """Parse a command line and run it; raises what goes wrong."""
    refuse_empty(tokens)
    path, words = value_of(tokens, "--config"), command_words(tokens, app)
    if words in (("predict",), ("embed",)):  # cyclopts takes "-" for a flag
        tokens = [str(STANDARD_INPUT) if token == "-" else token for token in tokens]
    if path is not None and words in CONFIG_TYPES:
        apart = ("search",) if words == ("sweep",) else ()
        values = load_config_file(Path(path), CONFIG_TYPES[words], note=say, apart=apart)
        for word in reversed(words):  # cyclopts drops keys of the root that are called as a command, and "data" is one
            values = {word: values}
        app.config = (ConfigValues(values, source=path),)
    else:
        app.config = ()
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    result: Any = command(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else EXIT_DONE


def _refuse(line: str, *, from_all: bool = False) -> int:
    say(f"clip-har: {line}", from_all=from_all)
    return EXIT_USER_INPUT


def _our_fault() -> int:
    sys.stderr.write(shown_lines(traceback.format_exc()))
    say("This is a fault in clip-har: please report it with the lines above.")
    return EXIT_OUR_FAULT


def _interrupted(tokens: Sequence[str], run_folder: str = "") -> int:
    """Say how to go on. A training that has saved a state names its run folder."""
    again = command_line()
    if tokens[:1] == ["predict"] and value_of(tokens, "--out") is None:
        say("Interrupted. With --out FILE.csv, predictions are kept as they come.")
        return EXIT_INTERRUPTED
    if tokens[:1] == ["train"] and not run_folder:
        say(f"Interrupted before an epoch was saved; embeddings that were computed are cached. Again: {again}")
        return EXIT_INTERRUPTED
    if run_folder and tokens[:1] == ["train"]:
        again += "" if value_of(tokens, "--out") else f" --out {shlex.quote(run_folder)}"
        again += "" if "--resume" in tokens else " --resume"
    say(f"Interrupted. What is done is kept; continue with: {again}")
    return EXIT_INTERRUPTED
