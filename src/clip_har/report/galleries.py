"""Which photographs of an evaluation are worth showing: confident errors, hardest, fixed and broken by fine-tuning.

How they look is in templates/; the photographs of a confusion matrix's cells are chosen in `confusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_har import wording
from clip_har.evaluation import BoolArray, EvalResult
from clip_har.explain import image_selection
from clip_har.report.html import GALLERY_LIMIT, tile
from clip_har.report.pictures import Pictures


def galleries(result: EvalResult, pictures: Pictures) -> list[dict[str, Any]]:
    """Galleries in reading order, those without photographs left out: id, title, text, tiles."""
    label = wording.method_label(result.best.name)
    found = [_surest(result, label, pictures)]
    if result.finetuned is not None:
        found += [_fixed(result, label, pictures), _broken(result, label, pictures)]
    found.append(_hardest(result, label, pictures))
    return [gallery for gallery in found if gallery["tiles"]]


def changes(result: EvalResult) -> dict[str, Any] | None:
    """How many images tuning fixed, broke and left as they were; in all and for each class. None without tuning."""
    if result.finetuned is None:
        return None
    before, after = _right(result)
    kinds = {
        "fixed": ~before & after,
        "broken": before & ~after,
        "kept": before & after,
        "missed": ~before & ~after,
    }
    n_classes = len(result.classes)
    return {
        **{name: int(images.sum()) for name, images in kinds.items()},
        "by_class": {
            name: np.bincount(result.targets_N[images], minlength=n_classes).tolist() for name, images in kinds.items()
        },
    }


def _right(result: EvalResult) -> tuple[BoolArray, BoolArray]:
    """Which images zero-shot and the best model answer correctly."""
    return result.baseline.predictions == result.targets_N, result.best.predictions == result.targets_N


def _surest(result: EvalResult, label: str, pictures: Pictures) -> dict[str, Any]:
    wrong = image_selection.confidently_wrong(result.best.probabilities_NC, result.targets_N)
    text = (
        "All wrong predictions, most confident first."
        if len(wrong) <= GALLERY_LIMIT
        else f"The {GALLERY_LIMIT} most confident of {len(wrong):,} wrong predictions of {label}."
    )
    return {
        "id": "mistakes",
        "title": "Most confident errors",
        "text": f"{text} Among them are often images whose label is wrong, or that show both actions.",
        "tiles": _tiles(result, wrong, pictures),
    }


def _fixed(result: EvalResult, label: str, pictures: Pictures) -> dict[str, Any]:
    images = _changed(result)[0]
    return {
        "id": "fixed",
        "title": "Fixed by fine-tuning",
        "text": f"{_of(images)} zero-shot gets wrong and {label} right, most confident first.",
        "tiles": _tiles(result, images, pictures, GALLERY_LIMIT // 2, notes=True),
    }


def _broken(result: EvalResult, label: str, pictures: Pictures) -> dict[str, Any]:
    images = _changed(result)[1]
    return {
        "id": "broken",
        "title": "Broken by fine-tuning",
        "text": f"{_of(images)} zero-shot gets right and {label} wrong, most confident first.",
        "tiles": _tiles(result, images, pictures, GALLERY_LIMIT // 2),
    }


def _hardest(result: EvalResult, label: str, pictures: Pictures) -> dict[str, Any]:
    """Images that no model gets right, those with the least probability for the truth first."""
    before, after = _right(result)
    images = np.flatnonzero(~before & ~after)
    models = [result.baseline] + ([result.finetuned] if result.finetuned else [])
    truth_N = np.mean([model.probabilities_NC[images, result.targets_N[images]] for model in models], axis=0)
    who = f"{wording.sentence_start(label)} gets" if result.finetuned is None else f"Neither zero-shot nor {label} gets"
    wrong = "wrong" if result.finetuned is None else "right"
    return {
        "id": "hardest",
        "title": "Hardest images",
        "text": f"{who} these {wrong}; the lowest probability of the true class comes first.",
        "tiles": _tiles(result, images[np.argsort(truth_N, kind="stable")].tolist(), pictures, GALLERY_LIMIT // 2),
    }


def _of(images: Sequence[int]) -> str:
    limit = GALLERY_LIMIT // 2
    return f"The {len(images):,} images that" if len(images) <= limit else f"{limit} of {len(images):,} images that"


def _changed(result: EvalResult) -> tuple[list[int], list[int]]:
    """The images fixed and broken, surest first."""
    return image_selection.changed(result.baseline.probabilities_NC, result.best.probabilities_NC, result.targets_N)


def _tiles(
    result: EvalResult, images: Sequence[int], pictures: Pictures, limit: int = GALLERY_LIMIT, *, notes: bool = False
) -> list[dict[str, Any]]:
    """Tiles of the first images; with notes, each says what zero-shot answered."""
    answers = result.baseline.predictions
    return [
        tile(
            result,
            result.best,
            index,
            pictures,
            note=f"zero-shot: {result.classes[answers[index]]}" if notes else "",
        )
        for index in images[:limit]
    ]
