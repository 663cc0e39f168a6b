"""What both pages share: templates and filters, the facts of facts, thumbnails.

The pages themselves are in `evaluation_page` and `comparison_page`; they need nothing beside them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from clip_har import wording
from clip_har.errors import UnreadableImageError
from clip_har.evaluation import EvalResult, Evaluated
from clip_har.report import contact_sheet
from clip_har.report.pictures import Pictures, ThumbnailLoader
from clip_har.shown_text import shown, shown_lines

GALLERY_LIMIT = 24
SPLIT_WORDS = {"test": "test", "val": "validation", "train": "training"}


def split_word(split: str) -> str:
    """The split as an adjective: "val" -> "validation"."""
    return SPLIT_WORDS.get(split, split)


def fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a run that are known, as label and text, in reading order.

    Known keys: method, preset, backbone, activation, weights_hash, data, splits (split -> images), classes,
    templates, budget, shots, loss, features, members, seed, seeds, trainable_params, trainable_fraction, train_seconds,
    peak_memory_bytes, unreadable.
    """
    known: dict[str, Callable[[Any], str]] = {
        "method": lambda value: wording.method_label(str(value)),
        "preset": str,
        "backbone": str,
        "activation": str,
        "weights_hash": lambda value: wording.shortened(str(value), 24),
        "data": str,
        "splits": lambda value: ", ".join(f"{n:,} {split_word(name)}" for name, n in value.items()),
        "classes": lambda value: str(value if isinstance(value, int) else len(value)),
        "templates": _templates,
        "budget": str,
        "shots": lambda value: f"{value} per class",
        "loss": str,
        "features": lambda value: str(value).replace("-", " "),
        "members": str,
        "seed": str,
        "seeds": lambda value: ", ".join(map(str, value)),
        "trainable_params": lambda value: _trainable(value, facts.get("trainable_fraction")),
        "train_seconds": wording.duration,
        "peak_memory_bytes": wording.size,
        "unreadable": lambda value: f"{value:,} unreadable image{'' if value == 1 else 's'}",
    }
    labels = {
        "weights_hash": "Weights (hash)",
        "splits": "Images",
        "templates": "Prompts",
        "shots": "Training images",
        "trainable_params": "Trained parameters",
        "train_seconds": "Training time",
        "peak_memory_bytes": "Peak memory",
        "unreadable": "Skipped",
    }
    return [
        (labels.get(key, key.capitalize()), write(facts[key]))
        for key, write in known.items()
        if facts.get(key) is not None and (key, facts[key]) != ("unreadable", 0)
    ]


def _trainable(count: int, fraction: float | None) -> str:
    text = wording.thousands(count)
    return text if fraction is None else f"{text} ({wording.share(fraction)})"


def _templates(templates: str | Sequence[str]) -> str:
    if isinstance(templates, str):
        return templates
    more = "" if len(templates) < 2 else f" and {len(templates) - 1} more"
    return f"“{templates[0]}”{more}" if templates else "none"


def tile(result: EvalResult, model: Evaluated, index: int, pictures: Pictures, note: str = "") -> dict[str, Any]:
    """One photograph with its true class and a model's answer, for `parts.gallery`."""
    path = result.paths[index]
    scores_C = model.probabilities_NC[index]  # of this image alone: all images' answers would be worked out anew
    predicted = int(scores_C.argmax())
    return {
        "true": result.classes[result.targets_N[index]],
        "answer": result.classes[predicted],
        "right": predicted == int(result.targets_N[index]),
        "confidence": wording.percent(float(scores_C.max()), 0),
        "note": note,
        **photograph(path, pictures),
    }


def photograph(path: str, pictures: Pictures) -> dict[str, Any]:
    """What `parts.photo` needs of one image."""
    return {"path": path, "picture": pictures.get(path), "state": pictures.state(path)}


def thumbnail(path: str, load_thumbnail: ThumbnailLoader) -> Markup | None:
    """A data URI, or None for an image that has become unreadable since it was scored."""
    try:
        image = load_thumbnail(path)
    except UnreadableImageError:
        return None
    return None if image is None else Markup(contact_sheet.data_uri(image))


def breakable(text: str) -> Markup:
    """A path or a class's name that a browser may break after its separators, rather than anywhere."""
    parts = re.split(r"(?<=[/_\\-])", shown(text))
    return Markup("<wbr>").join(parts)


def unbroken(text: str) -> Markup:
    """A heading whose "zero-shot" stays on one line."""
    return Markup.escape(shown(text)).replace("zero-shot", Markup('<span class="unbroken">zero-shot</span>'))


def _finalized(value: object) -> object:
    """What a template prints: text from outside as it may be shown, and our own markup as it is."""
    return shown_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@functools.cache  # compiling the templates takes as long as all else of a page
def environment() -> jinja2.Environment:
    """The templates, and the wording they may use."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("clip_har.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    wordings: Iterable[Callable[..., str]] = (
        breakable,
        unbroken,
        wording.duration,
        wording.method_label,
        wording.p_value,
        wording.percent,
        wording.percent_interval,
        wording.share,
        wording.signed,
        wording.size,
        wording.spread,
        wording.thousands,
    )
    found.filters.update({function.__name__: function for function in wordings})
    return found
