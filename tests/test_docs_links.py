"""The pages of the documentation hang together: links and their anchors, an index of pages, a page for each method.

So do the messages that docs/troubleshooting.md explains. Commands in the pages are checked in test_readme.py.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_har.config.methods import METHOD_NAMES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")), *sorted(DOCS.rglob("*.md"))]

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
VARIABLE = re.compile(r"\b(?!A\b)[A-Z][A-Z-]*\b")
"""A word of a message that stands for a value, such as FOLDER or N."""
JOINTS = re.compile(r" with (?=a batch size)| (?=killed by SIGKILL)")
"""Where a message is put together from two strings."""
OF_OTHERS = {"No module named 'clip_har'", "clip-har: command not found"}
"""Messages of Python and of the shell."""


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", lambda match: match[1] or "", heading).lower()
    return re.sub(r"[^\w -]", "", words).replace(" ", "-")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    return frozenset(anchor(match[1]) for match in HEADING.finditer(prose(page)))


def link_problems(text: str, page: Path) -> Iterator[str]:
    """The relative links of a page's text that lead nowhere."""
    for target in LINK.findall(text):
        if re.match(r"[a-z+]+:", target):
            continue
        name, _, fragment = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        if not other.exists():
            yield f"{target} does not exist"
        elif fragment and fragment not in anchors(other):
            yield f"{target} has no such heading"


def linked(page: Path) -> set[Path]:
    """The files that a page links."""
    return {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(page))}


@functools.cache
def literals() -> str:
    """The string literals of the package, with a blank for each inserted value."""
    found = []
    for path in (ROOT / "src" / "clip_har").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def is_printed(message: str) -> bool:
    """Whether each part of a message between its values is in the package's strings."""
    parts = (part.strip() for piece in JOINTS.split(message) for part in VARIABLE.split(piece))
    return all(part in literals() for part in parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(link_problems(prose(page), page)) == []


def test_the_index_lists_every_page() -> None:
    listed = linked(DOCS / "index.md") | linked(DOCS / "methods" / "index.md") | {DOCS / "index.md"}
    assert [str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md")) if page not in listed] == []


def test_the_site_lists_every_page() -> None:
    """Of mkdocs.yml; so does the build of the site, which is slower."""
    _, _, navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    listed = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", navigation, re.MULTILINE)
    own = [name for name in listed if not name.startswith("project/")]
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(own) == sorted(pages), set(own) ^ set(pages)


def test_every_method_has_a_page_and_every_preset_is_described() -> None:
    assert [name for name in METHOD_NAMES if not (DOCS / "methods" / f"{name}.md").is_file()] == []
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "methods").glob("*.md"))
    presets = (ROOT / "src" / "clip_har" / "presets").glob("*.toml")
    assert [preset.stem for preset in presets if f"`{preset.stem}`" not in text] == []


def test_the_table_of_make_benchmark_methods_has_the_methods_of_its_command() -> None:
    command = re.search(r"--methods (\S+) --out benchmark-methods", (ROOT / "Makefile").read_text(encoding="utf-8"))
    _, _, section = (DOCS / "results.md").read_text(encoding="utf-8").partition("\nmake benchmark-methods\n")
    rows = re.findall(r"^\| `([\w-]+)` \|", section.partition("\n#")[0], re.MULTILINE)
    assert command is not None and rows == command[1].split(",")


def test_troubleshooting_explains_messages_that_are_printed() -> None:
    headings = HEADING.findall(prose(DOCS / "troubleshooting.md"))
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(messages) > 40
    assert [message for message in messages if message not in OF_OTHERS and not is_printed(message)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](no-such.md)", "no-such.md does not exist"),
        ("[a](guide/train.md#no-such)", "guide/train.md#no-such has no such heading"),
        ("[a](#no-such)", "#no-such has no such heading"),
        ("[a](images/no-such.png)", "images/no-such.png does not exist"),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(text: str, problem: str) -> None:
    assert list(link_problems(text, DOCS / "index.md")) == [problem]


def test_a_message_that_is_not_printed_is_noticed() -> None:
    assert is_printed("Dataset not found: FOLDER")
    assert not is_printed("The dataset FOLDER was not found by anyone")
