"""Class names -> sentences for the text tower. Embedding them is the backbone's job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clip_har.errors import ConfigError

ACTION_TEMPLATES: tuple[str, ...] = (
    "a photo of a person {}",
    "someone {}",
    "a person performing {}",
    "{} action",
    "human {}",
    "a video frame of someone {}",
    "footage of a person {}",
)
"""The seven templates of the historic project; the embeddings of the seven sentences are averaged."""


def class_phrase(class_name: str) -> str:
    """The words of a class folder's name: "listening_to_music" -> "listening to music"."""
    return " ".join(re.sub(r"[_\-]+", " ", class_name).split()) or class_name


def sentences(class_name: str, templates: Sequence[str]) -> list[str]:
    """One sentence per template for a class."""
    phrase = class_phrase(class_name)
    return [template.replace("{}", phrase) for template in templates]


def resolve_templates(given: Sequence[str]) -> tuple[str, ...]:
    """What --templates means: sentences with {}, or files with one such sentence per line.

    Returns:
        The templates in the order given; `ACTION_TEMPLATES` for an empty `given`.

    Raises:
        ConfigError: a value is neither, or a file's line lacks the {}.
    """
    templates: list[str] = []
    for value in given:
        templates += [value] if "{}" in value else _read_templates(Path(value))
    return tuple(templates) or ACTION_TEMPLATES


def _read_templates(path: Path) -> list[str]:
    remedy = 'Write a sentence such as "a photo of a person {}", or name a text file with one per line.'
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise ConfigError(f"--templates {str(path)!r} has no {{}} and is not a readable file", remedy=remedy) from error
    lines = [line for line in lines if line and not line.startswith("#")]
    bad = [line for line in lines if "{}" not in line]
    if bad or not lines:
        problem = f"the line {bad[0]!r} has no {{}}" if bad else "the file is empty"
        raise ConfigError(f"--templates {path}: {problem}", remedy=remedy)
    return lines
