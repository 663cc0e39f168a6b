"""Explained images as their template wants them, on the page of an evaluation and on one of their own.

How the explanations are found is in `clip_har.experiment.explanations`, layout is in templates/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clip_har import wording
from clip_har.evaluation.findings import ExplainResult, Explanation
from clip_har.report.html import environment, photograph
from clip_har.report.pictures import Pictures, ThumbnailLoader

EXPLANATIONS_LIMIT = 24
"""Images explained on the page of an evaluation; a page of explanations shows all."""
PROMPTS_SHOWN = 5
NEIGHBOURS_SHOWN = 4
PROBABILITIES_SHOWN = 3
PAIRS_SHOWN = 10


def explanations(found: Sequence[Explanation], pictures: Pictures, folder: Path | None) -> list[dict[str, Any]]:
    """Each explained image with its overlays, probabilities, closest prompts and closest training images.

    Args:
        found: what is to be shown.
        pictures: of the page.
        folder: where the overlays lie; None shows none.
    """
    return [_explanation(entry, pictures, folder) for entry in found]


def explanation_page(
    result: ExplainResult, folder: Path, *, command: str, load_thumbnail: ThumbnailLoader | None
) -> str:
    """The page of all that was explained of one run.

    Args:
        result: what was found.
        folder: where the overlays lie.
        command: the command line that makes this page again.
        load_thumbnail: a path from the result -> image, or None if it cannot be read.
    """
    pictures = Pictures(load_thumbnail)
    label = wording.method_label(result.method)
    return (
        environment()
        .get_template("explanations.html.j2")
        .render(
            headline=f"{wording.sentence_start(label)}: {wording.counted(len(result.explanations), 'image')} explained",
            verdict=_verdict(result.explanations),
            run=result.run,
            label=label,
            map_method=result.map_method,
            explanations=explanations(result.explanations, pictures, folder),
            confused=result.confused[:PAIRS_SHOWN],
            changes=sorted(result.changes, key=lambda change: change.baseline - change.finetuned),
            photographs=pictures.shown,
            versions=[],
            command=command,
        )
    )


def _verdict(found: Sequence[Explanation]) -> str:
    """How many of the explained images are classified correctly; nothing where no class is known."""
    known = [entry for entry in found if entry.true is not None]
    if not known:
        return ""
    wrong = sum(entry.true != entry.predicted for entry in known)
    return (
        f"{wording.thousands(wrong)} of {wording.counted(len(known), 'prediction')} {'is' if wrong == 1 else 'are'} "
        "wrong. The images were selected as the most informative ones, so this is not the error rate."
    )


def _explanation(entry: Explanation, pictures: Pictures, folder: Path | None) -> dict[str, Any]:
    longest = max((similarity for _, similarity in entry.prompts), default=0.0)
    return {
        "true": entry.true,
        "answer": entry.predicted,
        "right": entry.true == entry.predicted,
        "confidence": wording.percent(entry.confidence, 0),
        **photograph(entry.path, pictures),
        "overlay": _overlay(entry.overlay, entry.path, pictures, folder),
        "overlay_true": _overlay(entry.overlay_true, entry.path, pictures, folder),
        "top": [
            {"text": label, "value": wording.percent(probability), "width": _width(probability, 1.0)}
            for label, probability in entry.top[:PROBABILITIES_SHOWN]
        ],
        "prompts": [
            {"text": text, "value": f"{similarity:.3f}", "width": _width(similarity, longest)}
            for text, similarity in entry.prompts[:PROMPTS_SHOWN]
        ],
        "neighbours": [
            {
                "label": neighbour.label,
                "similarity": f"{neighbour.similarity:.2f}",
                "same": neighbour.label == entry.predicted,
                **photograph(neighbour.path, pictures),
            }
            for neighbour in entry.neighbours[:NEIGHBOURS_SHOWN]
        ],
    }


def _width(value: float, longest: float) -> str:
    """The length of a bar that starts at zero, in percent of its track."""
    return f"{100 * max(0.0, value) / longest:.0f}" if longest > 0 else "0"


def _overlay(name: str | None, path: str, pictures: Pictures, folder: Path | None) -> dict[str, Any] | None:
    """The relevance map laid over the picture, read from beside the results."""
    if name is None or folder is None or not pictures.wanted or pictures.full:
        return None
    try:
        with Image.open(folder / name) as image:
            picture = pictures.add(f"overlay:{name}", image)
    except OSError:
        return None
    return {"path": path, "picture": picture, "state": "shown"}
