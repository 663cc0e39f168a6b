"""Class names -> sentences for the text encoder. Embedding them is the backbone's job."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clip_har.errors import ConfigError
from clip_har.files import read_text

LARGEST_BYTES = 10_000_000
"""What a file of templates or phrases may have."""

ACTION_TEMPLATES: tuple[str, ...] = (
    "a photo of a person {}",
    "someone {}",
    "a person performing {}",
    "{} action",
    "human {}",
    "a video frame of someone {}",
    "footage of a person {}",
)
"""The seven templates of the predecessor project; the embeddings of the seven sentences are averaged."""
WHOLE_TEMPLATES: tuple[str, ...] = (
    "a photo of {}",
    "{}",
    "a picture of {}",
    "a snapshot of {}",
    "a video frame of {}",
    "footage of {}",
)
"""For phrases that name who acts as well, such as "two people hugging"."""
UCF101_TEMPLATES: tuple[str, ...] = tuple(
    f"a {kind} of {who} person {how}{{}}."
    for how in ("", "using ", "doing ", "during ", "performing ", "practicing ")
    for who in ("a", "the")
    for kind in ("photo", "video", "example", "demonstration")
)
"""The 48 templates that CLIP's authors used for the actions of UCF101 (github.com/openai/CLIP, data/prompts.md)."""
TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = {
    "single": ("a photo of a person {}",),
    "actions": ACTION_TEMPLATES,
    "ucf101": UCF101_TEMPLATES,
    "bare": ("{}",),
    "whole": WHOLE_TEMPLATES,
}
"""What `clip-har prompts` compares. bare and whole suit phrases that name who acts, the others names of actions."""
HAR_PHRASES: Mapping[str, str] = {
    "calling": "a person making a phone call",
    "clapping": "a person clapping their hands",
    "cycling": "a person riding a bicycle",
    "dancing": "a person dancing",
    "drinking": "a person drinking from a glass or a bottle",
    "eating": "a person eating food",
    "fighting": "people fighting with each other",
    "hugging": "two people hugging",
    "laughing": "a person laughing out loud",
    "listening_to_music": "a person listening to music with headphones",
    "running": "a person running",
    "sitting": "a person sitting on a seat",
    "sleeping": "a person sleeping with closed eyes",
    "texting": "a person typing a message on a phone",
    "using_laptop": "a person working on a laptop",
}
"""A natural phrase for each class of HAR, written down from the meaning of its name; no image was looked at for it."""


def class_phrase(class_name: str) -> str:
    """The words of a class folder's name: "listening_to_music" -> "listening to music"."""
    return " ".join(re.sub(r"[_\-]+", " ", class_name).split()) or class_name


def sentences(class_name: str, templates: Sequence[str]) -> list[str]:
    """One sentence per template for a class, by the words of its name."""
    return filled(class_phrase(class_name), templates)


def filled(phrase: str, templates: Sequence[str]) -> list[str]:
    """One sentence per template."""
    return [template.replace("{}", phrase) for template in templates]


def resolve_phrases(given: str | None, classes: Sequence[str]) -> dict[str, str]:
    """What --phrasings means: class -> what stands for it in the templates.

    Args:
        given: "names" or None, "har", or a JSON file of class and phrase.
        classes: the dataset's. Case and separators do not matter; one that has no phrase keeps its name's words.

    Raises:
        ConfigError: the file cannot be used, or describes none of the classes.
    """
    if given in (None, "names"):
        return {name: class_phrase(name) for name in classes}
    phrases = HAR_PHRASES if given == "har" else _read_phrases(Path(str(given)))
    known = {_spelling(name): phrase for name, phrase in phrases.items()}
    if not any(_spelling(name) in known for name in classes):
        raise ConfigError(
            f"--phrasings {given} describes none of the classes ({', '.join(classes[:3])}, ...)",
            remedy='Pass a JSON file such as {"calling": "a person making a phone call"}.',
        )
    return {name: known.get(_spelling(name), class_phrase(name)) for name in classes}


def resolve_templates(given: Sequence[str], phrasings: str | None = None) -> tuple[str, ...]:
    """What --templates means: sentences with {}, or files with one such sentence per line.

    Args:
        given: as on the command line.
        phrasings: as on the command line; decides which templates are the default.

    Returns:
        The templates in the order given; for an empty `given` `ACTION_TEMPLATES`, or `WHOLE_TEMPLATES` for phrases.

    Raises:
        ConfigError: a value is neither, or a file's line lacks the {}.
    """
    templates: list[str] = []
    for value in given:
        templates += [value] if "{}" in value else _read_templates(Path(value))
    return tuple(templates) or (ACTION_TEMPLATES if phrasings in (None, "names") else WHOLE_TEMPLATES)


def _read_phrases(path: Path) -> dict[str, str]:
    remedy = 'Write classes and their descriptions as JSON, such as {"calling": "a person making a phone call"}.'
    try:
        content = json.loads(read_text(path, largest=LARGEST_BYTES))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
        raise ConfigError(
            f"--phrasings {path} is neither names, har nor a readable JSON file", remedy=remedy
        ) from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"--phrasings {path} is not a JSON object", remedy=remedy)
    bad = [name for name, phrase in content.items() if not isinstance(phrase, str) or not phrase.strip()]
    if bad:
        raise ConfigError(f"--phrasings {path}: the class {bad[0]!r} has no description", remedy=remedy)
    return {name: " ".join(phrase.split()) for name, phrase in content.items()}


def _spelling(name: str) -> str:
    """What is left of a name without case and separators."""
    return re.sub(r"[\s_.-]+", "", name.casefold()) or name


def _read_templates(path: Path) -> list[str]:
    remedy = 'Write a sentence such as "a photo of a person {}", or pass a text file with one per line.'
    try:
        lines = [line.strip() for line in read_text(path, largest=LARGEST_BYTES).splitlines()]
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        raise ConfigError(f"--templates {str(path)!r} has no {{}} and is not a readable file", remedy=remedy) from error
    lines = [line for line in lines if line and not line.startswith("#")]
    bad = [line for line in lines if "{}" not in line]
    if bad or not lines:
        problem = f"the line {bad[0][:60]!r} has no {{}}" if bad else "the file is empty"
        raise ConfigError(f"--templates {path}: {problem}", remedy=remedy)
    return lines
