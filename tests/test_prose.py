"""The text that users read uses the terms of the field: README, docs, help texts and messages avoid a few words.

Not checked: whether a sentence is good, comments and docstrings of internal code.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "clip_har"
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")]
CONFIGS = ("groups", "commands", "run_commands", "data_commands", "video_command", "embed_command", "sweep_command")
HELP = {f"config/{name}.py" for name in CONFIGS} | {
    "cli/app.py",
    "cli/data.py",
    "cli/embedding.py",
    "cli/sweeping.py",
    "cli/video.py",
    "historic.py",
}
"""Modules whose docstrings are help texts."""
DISPLAYS = {"cli", "demo"}
"""Packages whose strings are not messages; of cli, the help texts are checked."""

AVOIDED = {
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix",
    r"beside": "next to, alongside, compared with",
    r"(is|are|was|were) said": "clip-har prints, a warning lists",
    r"once, ever": "only once",
    r"surest": "most confident",
    r"too sure": "overconfident",
    r"for the record": "to reproduce the original results",
    r"telling": "informative",
    r"historic": "legacy, original, the predecessor's",
    r"(leave|leaves|leaving|left) (it |them |that )?out": "skipped, excluded; of a flag: remove",
    r"(set|sets|put|puts) (it |them )?aside": "ignored, excluded",
    r"at the (least|most)": "minimum, maximum",
    r"by itself": "automatically, by default",
    r"inside the towers": "by training the encoders",
    r"(image|text) towers?": "image encoder, text encoder",
    r"phrasings?": "class description",
    r"hard pairs": "hard negatives",
    r"drawn (scenes|images)": "synthetic images",
    r"doubt(s|ed|ful)?": "likely label error",
    r"tun(ed|ing)": "fine-tuned, fine-tuning",
    r"lacks?": "has no, is missing",
    r"wins?": "takes precedence, overrides",
    r"unseen actions?": "unseen classes",
    r"processor seconds": "CPU seconds",
    r"(go|goes|went) on": "resume",
}
"""Pattern of a word that has no correct use in this project -> what to write."""
_AVOIDED = re.compile(r"(?<![\w./`-])(" + "|".join(AVOIDED) + r")(?![\w/-]|\.\w)", re.IGNORECASE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def problems(text: str) -> list[str]:
    """The avoided words of a text, each with its replacement."""
    found = (match[0] for match in _AVOIDED.finditer(" ".join(text.split())))
    return [f"{word!r}: write {replacement(word)}" for word in found]


def replacement(word: str) -> str:
    return next(new for old, new in AVOIDED.items() if re.fullmatch(old, word, re.IGNORECASE))


def prose(document: Path) -> str:
    """A Markdown file without its code blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of the string literals of a module with more than one word, {} for what an f-string inserts.

    Docstrings count only if they are help texts, other strings only if they are messages.
    """
    module, nodes = path.relative_to(SOURCE).as_posix(), list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        wanted = module in HELP if id(node) in docstrings else module.split("/")[0] not in DISPLAYS
        text = _text(node) if wanted and id(node) not in parts else ""
        if " " in text.strip():
            yield getattr(node, "lineno", 0), text


@functools.cache
def messages() -> tuple[tuple[str, str], ...]:
    """Place and text of all help texts and messages."""
    files = [SOURCE / name for name in HELP]
    files += [path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] not in DISPLAYS]
    files = sorted(set(files))
    return tuple((f"{path.relative_to(ROOT)}:{line}", text) for path in files for line, text in literals(path))


def template_texts() -> list[tuple[str, str]]:
    """Place and text of the pages' templates, without tags, code and what Jinja inserts."""
    marks = re.compile(r"\{[%#].*?[%#]\}|<script>.*?</script>|<[^>]*>", re.DOTALL)
    texts = []
    pages = [*sorted((SOURCE / "report" / "templates").glob("*.html.j2")), SOURCE / "serving" / "page" / "index.html"]
    for path in pages:
        text = re.sub(r"\{\{.*?\}\}", "{}", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        texts.append((str(path.relative_to(ROOT)), marks.sub(" ", text)))
    return texts


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_document_avoids_them(document: Path) -> None:
    assert problems(prose(document)) == []


def test_help_texts_messages_and_pages_avoid_them() -> None:
    texts = [*messages(), *template_texts()]
    found = [f"{place}: {problem}" for place, text in texts for problem in problems(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("The file is read anew.", "'anew': write again"),
        ("Both are\nsaid.", "'are said': write clip-har prints, a warning lists"),
        ("Leave it out.", "'Leave it out': write skipped, excluded; of a flag: remove"),
        ("a tuned model", "'tuned': write fine-tuned, fine-tuning"),
    ],
)
def test_a_word_is_noticed(text: str, problem: str) -> None:
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "fine-tuned",
        "`--phrasings FILE` and `--set-aside test`",
        "`historic.py`, historic-collapse",
        "amended",
        "besides",
    ],
)
def test_correct_uses_pass(text: str) -> None:
    assert problems(text) == []


def test_the_text_of_a_message_and_of_a_help_text_is_found() -> None:
    helps = dict(literals(SOURCE / "config" / "groups.py"))
    assert any(text.startswith("Fraction of the training images to use for validation") for text in helps.values())
    engine = [text for _, text in literals(SOURCE / "trainer" / "engine.py")]
    assert "--fsdp requires more than one process" in engine
    assert not any("Raises:" in text for text in engine)
    page = [text for _, text in literals(SOURCE / "report" / "audit_page.py")]
    assert "Duplicates and near-duplicates count several times in training and in metrics." in page
    templates = " ".join(text for _, text in template_texts())
    assert "Images per class" in templates and "querySelector" not in templates and "<" not in templates


# Troubleshooting


def quoted_headings(text: str) -> list[str]:
    return [
        code for heading in re.findall(r"^### (.*)$", text, re.MULTILINE) for code in re.findall(r"`([^`]+)`", heading)
    ]


def test_the_messages_in_troubleshooting_are_those_of_the_source() -> None:
    source = "\n".join(" ".join(text.split()) for _, text in messages())
    headings = quoted_headings((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    ours = [heading for heading in headings if "clip_har'" not in heading and "command not found" not in heading]
    assert len(ours) > 25
    missing = [heading for heading in ours if not _in_source(heading, source)]
    assert missing == []


def _in_source(heading: str, source: str) -> bool:
    """Whether a message exists with something inserted for each word in capitals."""
    inserted = re.compile(r"killed by SIGKILL|a batch size of N|(?<!\w)[A-Z]+(?!\w)")
    parts = [re.escape(part.strip()) for part in inserted.split(heading) if part.strip()]
    return re.search(r"[^\n]*?".join(parts), source) is not None
