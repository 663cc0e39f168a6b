"""The command blocks of documentation pages that can be run, and the outputs that pages show of them.

In a page, `<!-- run -->` directly before a block of `sh` or `python` marks it:

    <!-- run -->             it is run, and must succeed
    <!-- run exit 3 -->      its last command must end with this exit code
    <!-- run slow -->        the same, and `refresh_docs.py --skip-slow` leaves it out
    <!-- output -->          before a `text` block: what the block above prints on standard output
    <!-- output stderr -->   the same of standard error, where progress, warnings and errors go

The blocks of a page run in order, in one temporary folder that contains `quickstart/` as `clip-har quickstart` makes
it; Python blocks share their variables. Not here: which pages there are, and writing them, which is in refresh_docs.py.
Run as a program this file is the command line of clip-har, for blocks that need a shell.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

MARKER = re.compile(r"( *)<!-- (run|output)((?: [\w]+)*) -->\s*")
OPENING = re.compile(r" *```(\w*)\s*")
WIDTH = 100
"""Columns of the terminal that outputs are shown for."""
SHELL_SYNTAX = re.compile(r"[|<>&;$*?`~(){}]|^\w+=")


@dataclass
class Block:
    """A block of a page that can be run."""

    line: int
    """Where its marker is, from 1."""
    language: str
    code: str
    exit_code: int = 0
    slow: bool = False
    shown: str | None = None
    """The output that the page shows."""
    stream: str = "stdout"
    shown_lines: tuple[int, int] = field(default=(0, 0))
    """The lines of the page that are that output: start and end, from 0."""
    indent: str = ""


@dataclass(frozen=True)
class Ran:
    """What came of a block."""

    exit_code: int
    stdout: str
    stderr: str


# Reading pages


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that can be run, in order.

    Raises:
        ValueError: a marker has no block, or an output nothing that prints it; the message has the line.
    """
    lines = text.splitlines()
    blocks: list[Block] = []
    for number, line in enumerate(lines):
        marker = MARKER.fullmatch(line)
        if marker is None:
            continue
        opening = OPENING.fullmatch(lines[number + 1]) if number + 1 < len(lines) else None
        language = opening[1] if opening else ""
        words = marker[3].split()
        if marker[2] == "run":
            if language not in ("sh", "bash", "python"):
                raise ValueError(f"line {number + 1}: no block of sh or python follows")
            start, end = _content(lines, number + 1)
            code = textwrap.dedent("\n".join(lines[start:end])) + "\n"
            exit_code = int(words[words.index("exit") + 1]) if "exit" in words else 0
            blocks.append(Block(number + 1, language, code, exit_code, "slow" in words))
        else:
            if language != "text":
                raise ValueError(f"line {number + 1}: no block of text follows")
            if not blocks or blocks[-1].shown is not None:
                raise ValueError(f"line {number + 1}: no block that is run precedes this output")
            start, end = _content(lines, number + 1)
            block = blocks[-1]
            block.shown = textwrap.dedent("\n".join(lines[start:end])) + "\n"
            block.shown_lines, block.indent = (start, end), marker[1]
            block.stream = "stderr" if "stderr" in words else "stdout"
    return blocks


def _content(lines: list[str], opening: int) -> tuple[int, int]:
    for number in range(opening + 1, len(lines)):
        if lines[number].strip() == "```":
            return opening + 1, number
    raise ValueError(f"line {opening + 1}: the block has no end")


def with_outputs(text: str, outputs: Mapping[int, str]) -> str:
    """A page's text with other outputs shown.

    Args:
        outputs: line of a block's marker -> the output to show.
    """
    lines = text.splitlines()
    for block in reversed(blocks_of(text)):
        if block.shown is not None and block.line in outputs:
            start, end = block.shown_lines
            lines[start:end] = [(block.indent + line).rstrip() for line in outputs[block.line].splitlines()]
    return "\n".join(lines) + "\n"


# Running


class Session:
    """Runs the blocks of one page, in a folder of its own; use as a context manager."""

    def __init__(self, folder: Path, quickstart: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.variables: dict[str, Any] = {"__name__": "__main__"}
        copy_quickstart(quickstart, folder / "quickstart")

    def __enter__(self) -> Session:
        self._stack = contextlib.ExitStack()
        before = Path.cwd()
        self._stack.callback(os.chdir, before)
        self._stack.enter_context(mock.patch.dict(os.environ, self._environment()))
        self._stack.enter_context(without_bfloat16())
        os.chdir(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, block: Block) -> Ran:
        """Run a block; what it prints names no folder of this machine."""
        if block.language == "python":
            ran = self._run_python(block.code)
        elif SHELL_SYNTAX.search(block.code) or any(words[0] != "clip-har" for words in _command_lines(block.code)):
            ran = self._run_shell(block.code)
        else:
            ran = self._run_commands(block.code)
        return Ran(ran.exit_code, self._without_folder(ran.stdout), self._without_folder(ran.stderr))

    def _environment(self) -> dict[str, str]:
        scripts = self.folder / ".bin"
        scripts.mkdir()
        command = scripts / "clip-har"
        command.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(Path(__file__).resolve())])} "$@"\n')
        command.chmod(0o755)
        import clip_har

        source = str(Path(clip_har.__file__).resolve().parent.parent)
        path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {
            "PATH": path,
            "PYTHONPATH": source,
            "CLIP_HAR_CACHE": str(self.cache),
            "COLUMNS": str(WIDTH),
            "NO_COLOR": "1",
        }

    def _run_commands(self, code: str) -> Ran:
        from clip_har import cli

        exit_code = 0
        with captured() as (stdout, stderr):
            for words in _command_lines(code):
                exit_code = cli.main(words[1:])
                if exit_code:
                    break
        return Ran(exit_code, text_of(stdout), text_of(stderr))

    def _run_shell(self, code: str) -> Ran:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def _run_python(self, code: str) -> Ran:
        exit_code = 0
        with captured() as (stdout, stderr):
            try:
                exec(compile(code, "<documentation>", "exec"), self.variables)
            except Exception:
                exit_code = 1
                traceback.print_exc()
        return Ran(exit_code, text_of(stdout), text_of(stderr))

    def _without_folder(self, text: str) -> str:
        for folder in (self.folder, self.folder.resolve()):
            text = text.replace(f"{folder}/", "")
        return text


def _command_lines(code: str) -> Iterator[list[str]]:
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@contextlib.contextmanager
def captured() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Collect what is printed, as text or as bytes."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield stdout, stderr


def text_of(stream: io.TextIOWrapper) -> str:
    """What was written to a stream of `captured`."""
    stream.flush()
    content = stream.buffer
    assert isinstance(content, io.BytesIO)
    return content.getvalue().decode("utf-8")


def copy_quickstart(source: Path, target: Path) -> None:
    """The folder of a quickstart once more. Images are links to the same files, since no command changes images."""

    def copy(path: str, to: str) -> None:
        if path.endswith((".jpg", ".png")) and "data" in Path(path).relative_to(source).parts:
            with contextlib.suppress(OSError):
                os.link(path, to)
                return
        shutil.copy2(path, to)

    shutil.copytree(source, target, copy_function=copy)


def make_quickstart(folder: Path, cache: Path) -> Path:
    """What `clip-har quickstart --out quickstart` makes in a folder: about a minute."""
    from clip_har import cli

    folder.mkdir(parents=True, exist_ok=True)
    with working_directory(folder), without_bfloat16():
        environment = {"CLIP_HAR_CACHE": str(cache), "COLUMNS": str(WIDTH), "NO_COLOR": "1"}
        with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["quickstart", "--out", "quickstart"])
    if code:
        raise RuntimeError(f"clip-har quickstart ended with {code}")
    return folder / "quickstart"


@contextlib.contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    """Work in a folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def without_bfloat16() -> Iterator[None]:
    """Let `--precision auto` choose float32 on any CPU, so that outputs are the same everywhere."""
    from clip_har import backbone

    with mock.patch.object(backbone, "_cpu_multiplies_bfloat16", lambda: False):
        yield


# Comparing

NORMALISED = (
    (re.compile(r"\b\d+ (?:m|h) \d+ (?:s|m)\b"), "TIME"),
    (re.compile(r"\b\d[\d,.]*(?: to \d[\d,.]*)? ?(?:ms|s|min|h|seconds?|minutes?|hours?)\b"), "TIME"),
    (re.compile(r"\b\d+:\d\d(?::\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d[\d,.]* ?(?:images|img|it|steps|windows|frames)/s"), "SPEED"),
    (re.compile(r"\b\d[\d,.]* ?(?:[kMGT]i?B|bytes)\b"), "MEMORY"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]TIME)?Z?"), "DATE"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "DIGEST"),
    (re.compile(r"(?:/[\w.-]+){2,}"), "PATH"),
    (re.compile(r"[─━═-]{3,}"), "RULE"),
)
"""What differs between machines, and what stands for it when outputs are compared."""
NUMBER = re.compile(r"[+-]?\d[\d,]*\.\d+")
TOLERANCE, TOLERANCE_OF_PERCENTAGES = 0.05, 4.0
"""By how much numbers with a decimal point may differ: rounding on another CPU changes a few predictions."""


def agrees(shown: str, printed: str) -> bool:
    """Whether a page shows what is printed: the same up to times, speeds, memory, paths and rounding.

    A line `...` of the page stands for any number of lines.
    """
    return _lines_agree(_normalised(shown), _normalised(printed))


def _normalised(text: str) -> list[str]:
    for pattern, name in NORMALISED:
        text = pattern.sub(name, text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def _lines_agree(shown: list[str], printed: list[str]) -> bool:
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(_lines_agree(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and _line_agrees(shown[0], printed[0]) and _lines_agree(shown[1:], printed[1:])


def _line_agrees(shown: str, printed: str) -> bool:
    if NUMBER.sub("N", shown) != NUMBER.sub("N", printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    tolerance = TOLERANCE_OF_PERCENTAGES if re.search(r"%|points", shown) else TOLERANCE
    return all(_close(float(a.replace(",", "")), float(b.replace(",", "")), tolerance) for a, b in pairs)


def _close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= max(tolerance, 0.1 * abs(a))


def main() -> int:
    from clip_har import cli

    with without_bfloat16():
        return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
