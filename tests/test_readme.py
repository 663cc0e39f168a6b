"""README.md says nothing that is not so: the paths, commands, flags and make targets that it names exist.

So do the paths of CONTRIBUTING.md, and the links and commands of docs. The same checks must notice made-up sentences
that are wrong.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from clip_har import cli

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

COMMAND_GROUPS = {"data"}
"""Commands whose next word is a command of its own, as in `clip-har data audit`."""
OWN_FOLDERS = {"src", "tests", "docs", "scripts", "benchmarks", ".ci"}
OWN_SUFFIXES = {".py", ".md", ".sh", ".yml"}
"""A name with one of these is a file of this repository; others may be a user's or a run's."""

FENCE = re.compile(r"^ *```([a-z]*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
SHELL_LANGUAGES = {"", "sh", "bash", "shell", "console"}


# Paths


def named_paths(text: str) -> Iterator[str]:
    """Yield the relative paths that links and inline code of a Markdown text name."""
    prose = FENCE.sub("", text)
    for match in LINK.finditer(prose):
        target = (match[1] or match[2]).partition("#")[0]
        if target and not re.match(r"[a-z+]+:", target):
            yield target
    yield from (code for code in INLINE_CODE.findall(prose) if _is_own_path(code))


def _is_own_path(code: str) -> bool:
    if not re.fullmatch(r"[\w.][\w./-]*", code):
        return False
    if "NAME" in re.split(r"[/._]", code):  # stands for the reader's own
        return False
    folder, slash, _ = code.partition("/")
    return (bool(slash) and folder in OWN_FOLDERS) or code == "Makefile" or Path(code).suffix in OWN_SUFFIXES


def path_problems(text: str) -> list[str]:
    return [f"{path} does not exist" for path in named_paths(text) if not (ROOT / path).exists()]


# Commands


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each shell command in code blocks and inline code."""
    for language, block in FENCE.findall(text):
        if language in SHELL_LANGUAGES:
            lines = block.replace("\\\n", " ").splitlines()
            typed = [line for line in lines if language != "console" or line.lstrip().startswith("$ ")]
            for line in typed:
                yield from _commands_of(line)
    for code in INLINE_CODE.findall(FENCE.sub("", text)):
        if re.match(r"(clip-har|make|python scripts/\S+) ", code):
            yield from _commands_of(code)


def _commands_of(line: str) -> Iterator[list[str]]:
    for command in re.split(r"&&|\|\||[;|]", line.strip().removeprefix("$ ")):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # prose with an apostrophe
            words = command.split()
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # CUDA_VISIBLE_DEVICES=0 clip-har …
            words = words[1:]
        if words:
            yield words


def command_problems(text: str) -> list[str]:
    return [problem for words in command_lines(text) for problem in _problems_of(words)]


def _problems_of(words: list[str]) -> list[str]:
    program, *rest = words
    if Path(program).name == "clip-har":
        return _clip_har_problems(rest)
    if Path(program).name.startswith("python") and rest[:1] and rest[0].startswith("scripts/"):
        return _script_problems(rest[0], rest[1:])
    if program == "make":
        targets = [word for word in rest if "=" not in word and not word.startswith("-")]
        return [f"make has no target {target}" for target in targets if target not in make_targets()]
    return []


def _clip_har_problems(words: list[str]) -> list[str]:
    path = words[: 2 if words[:1] and words[0] in COMMAND_GROUPS else 1]
    if not path or path[0].startswith("-"):
        return _unknown_flags("clip-har", words, help_of())
    text = help_of(*path)
    if text is None:
        return [f"clip-har has no command {' '.join(path)}"]
    return _unknown_flags(f"clip-har {' '.join(path)}", words, text)


def _script_problems(script: str, words: list[str]) -> list[str]:
    if not (ROOT / script).is_file():
        return [f"{script} does not exist"]
    return _unknown_flags(script, words, script_help(script))


def _unknown_flags(command: str, words: list[str], help_text: str | None) -> list[str]:
    known = {flag.replace("_", "-") for flag in re.findall(r"(?<![\w-])--[\w-]+", help_text or "")}
    given = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    return [f"{command} has no flag {flag}" for flag in given if flag not in {*known, "--help"}]


@functools.cache
def help_of(*path: str) -> str | None:
    """Return what `clip-har PATH --help` prints, or None when there is no such command."""
    printed = io.StringIO()
    wide = mock.patch.dict("os.environ", {"COLUMNS": "200"})
    try:
        with wide, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = cli.main([*path, "--help"])
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0
    return printed.getvalue() if code == 0 and _is_command(path) else None


def _is_command(path: tuple[str, ...]) -> bool:
    """Tell whether the help one level up lists the command; any word might be answered with general help."""
    if not path:
        return True
    above = help_of(*path[:-1])
    return above is not None and re.search(rf"^\W*{re.escape(path[-1])}\b", above, re.MULTILINE) is not None


@functools.cache
def script_help(script: str) -> str:
    """Return what `python SCRIPT --help` prints, run in this process."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [script, "--help"]),
        mock.patch.object(sys, "path", [str((ROOT / script).parent), *sys.path]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return printed.getvalue()


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


# The three files to read first


def first_files(text: str) -> list[str]:
    """Return the source files that the paragraph or list after "three files to read first" names."""
    after = re.split(r"three files to read first", text, flags=re.IGNORECASE)
    if len(after) != 2:
        return []
    section = re.split(r"\n#|\n\n(?![\s*\d-])", after[1].lstrip("*.: \n"), maxsplit=1)[0]
    return [path for path in named_paths(section) if path.endswith(".py")]


# README as it is


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_path_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert list(named_paths(text))
    assert path_problems(text) == []


def test_the_tests_and_commands_in_contributing_exist() -> None:
    """Tests by name, the files of commands in indented blocks, and their flags."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    typed = re.findall(r"^(?: {4}|\t).*", text, re.MULTILINE)
    paths = {path for line in typed for path in re.findall(r"(?<=\s)(?:tests|scripts)/\S+", line) if "NAME" not in path}
    assert len(named) > 5 and len(paths) > 5
    assert [name for name in named if f"def {name}(" not in source] == []
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    assert {"clip-har", "python"} <= {Path(words[0]).name for words in command_lines(text)}
    assert command_problems(text) == []


def test_every_command_and_flag_in_the_readme_exists() -> None:
    text = README.read_text(encoding="utf-8")
    assert {"clip-har", "make"} <= {Path(words[0]).name for words in command_lines(text)}
    assert command_problems(text) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_command_in_a_page_of_docs_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [match[1].partition("#")[0] for match in LINK.finditer(FENCE.sub("", text)) if match[1]]
    assert [link for link in links if ":" not in link and not (page.parent / link).exists()] == []
    assert command_problems(text) == []


def test_the_readme_names_three_files_to_read_first() -> None:
    paths = first_files(README.read_text(encoding="utf-8"))
    assert len(set(paths)) == 3
    assert all((ROOT / path).is_file() for path in paths)


# README as it must not be


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("See [the guide](docs/no-such-guide.md).", "docs/no-such-guide.md does not exist"),
        ("See [the guide](no-such-guide.md#start).", "no-such-guide.md does not exist"),
        ('<img src="docs/no-such.png">', "docs/no-such.png does not exist"),
        ("The loop is in `src/clip_har/no_such.py`.", "src/clip_har/no_such.py does not exist"),
        ("Methods are in `src/clip_har/no_such/`.", "src/clip_har/no_such/ does not exist"),
        ("Read `NOSUCH.md`.", "NOSUCH.md does not exist"),
    ],
)
def test_a_path_that_does_not_exist_is_noticed(text: str, problem: str) -> None:
    assert path_problems(text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "`ViT-B/32`",
        "`runs/lora`",
        "`results.json`",
        "`docs/methods/NAME.md`",
        "`tests/test_NAME.py`",
        "[HAR](https://example.org/x.md)",
        "[above](#start)",
        "`--out`",
    ],
)
def test_what_is_no_path_of_ours_is_left_alone(text: str) -> None:
    assert path_problems(text) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("clip-har nosuch --data photos", "clip-har has no command nosuch"),
        ("$ clip-har train --data photos --no-such 3", "clip-har train has no flag --no-such"),
        ("clip-har train \\\n  --data=photos \\\n  --no_such=3", "clip-har train has no flag --no-such"),
        ("ls && .venv/bin/clip-har train --nosuch", "clip-har train has no flag --nosuch"),
        ("clip-har --nosuch", "clip-har has no flag --nosuch"),
        ("python scripts/nosuch.py --x", "scripts/nosuch.py does not exist"),
        (
            "python scripts/train_clip_lora.py --data_dir data --nosuch",
            "scripts/train_clip_lora.py has no flag --nosuch",
        ),
        ("make nosuch", "make has no target nosuch"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, problem: str) -> None:
    assert command_problems(f"Run\n\n```bash\n{line}\n```\n") == [problem]


def test_commands_in_a_sentence_are_checked_too() -> None:
    assert command_problems("Then `clip-har train --nosuch` it.") == ["clip-har train has no flag --nosuch"]


@pytest.mark.parametrize(
    "line",
    [
        "clip-har train --data photos --batch_size 8  # either spelling",
        "clip-har --help",
        "make test",
        "pip install --no-such .",
    ],
)
def test_right_commands_pass(line: str) -> None:
    assert command_problems(f"```\n{line}\n```") == []


def test_the_first_files_are_found_in_a_list_and_in_a_sentence() -> None:
    listed = "# Three files to read first\n\n1. `src/a.py`\n2. [b](src/b.py)\n3. `src/c.py`\n\n# Next\n`src/d.py`"
    sentence = "The three files to read first: `src/a.py`, `src/b.py` and `src/c.py`.\n\nLater `src/d.py`."
    for text in (listed, sentence):
        assert sorted(first_files(text)) == ["src/a.py", "src/b.py", "src/c.py"]
    assert first_files("Nothing of the kind.") == []
