"""Test images as points of a plane, before and after tuning -> SVG whose classes a reader can pick out.

How the points were found is in `clip_har.evaluation`; other plots are drawn with matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from clip_har import wording
from clip_har.evaluation import BoolArray, EvalResult, Evaluated, IntArray
from clip_har.evaluation.findings import EmbeddingMap
from clip_har.report.labels import Box, text_size

SIDE = 400
"""Width and height of a map in its own units."""
MARGIN = 14
POINTS_LIMIT = 6000
"""Images drawn; of more, every k-th."""
LABELLED_CLASSES = 30
"""Up to here the classes' names stand in the map."""
LABEL_FONT = 11.0
CROSS = 2.1
"""Half the side of the cross that marks a wrong answer."""
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DrawnMap:
    """One map, ready for the page."""

    title: str
    svg: Markup


def drawn_maps(found: EmbeddingMap, result: EvalResult) -> dict[str, Any]:
    """The maps, and the classes with their colours, as the template wants them."""
    maps = [_drawn("zero-shot", found.baseline, result, result.baseline)]
    if found.finetuned is not None and result.finetuned is not None:
        maps.append(_drawn(wording.method_label(result.finetuned.name), found.finetuned, result, result.finetuned))
    shown = len(_chosen(result.n))
    return {
        "method": {"umap": "UMAP", "pca": "PCA"}.get(found.method, found.method),
        "maps": maps,
        "classes": [
            {"name": name, "hue": hue(index, len(result.classes))} for index, name in enumerate(result.classes)
        ],
        "shown": shown if shown < result.n else None,
    }


def hue(index: int, n_classes: int) -> int:
    """A class's hue in degrees; classes that follow each other in the alphabet lie far apart."""
    step = next((step for step in (7, 11, 13, 17) if n_classes % step), 1)
    return round(360 * ((index * step) % n_classes) / n_classes)


def _chosen(n: int) -> IntArray:
    chosen: IntArray = np.arange(0, n, -(-n // POINTS_LIMIT))
    return chosen


def _drawn(name: str, points: Sequence[tuple[float, float]], result: EvalResult, model: Evaluated) -> DrawnMap:
    chosen = _chosen(result.n)
    places = _scaled(np.asarray(points, dtype=np.float64))[chosen]
    targets = result.targets_N[chosen]
    right = model.predictions[chosen] == targets
    parts = [
        _class_points(index, places[targets == index], right[targets == index], len(result.classes))
        for index in range(len(result.classes))
        if (targets == index).any()
    ]
    if len(result.classes) <= LABELLED_CLASSES:
        parts.append(_labels(places, targets, result.classes))
    title = f"Map of {len(chosen)} images by {name}’s embeddings"
    return DrawnMap(
        title=name,
        svg=Markup('<svg class="map" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">{2}</svg>').format(
            SIDE, title, Markup("").join(parts)
        ),
    )


def _scaled(points: Points) -> Points:
    """The same shape within the margins, y downwards. Far outliers are drawn at the edge."""
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    extent = float(max(*(high - low), 1e-9))
    middle = (low + high) / 2
    across = (points - middle) / extent * np.array([1.0, -1.0])
    scaled: Points = SIDE / 2 + np.clip(across, -0.5, 0.5) * (SIDE - 2 * MARGIN)
    return scaled


def _class_points(index: int, places: Points, right: BoolArray, n_classes: int) -> Markup:
    """One path of dots for the right answers of a class, and one of crosses for the wrong ones."""
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places[right].tolist())
    size = 2 * CROSS
    crosses = "".join(
        f"M{x - CROSS:.1f} {y - CROSS:.1f}l{size} {size}m0-{size}l-{size} {size}" for x, y in places[~right].tolist()
    )
    drawn = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(kind, path)
        for kind, path in (("dots", dots), ("crosses", crosses))
        if path
    )
    return Markup('<g class="points" data-class="{}" style="--hue: {}">{}</g>').format(
        index, hue(index, n_classes), drawn
    )


def _clear(box: Box, taken: Sequence[Box]) -> Box:
    """The box, moved up or down by as little as keeps it from covering another and within the map."""
    for step in range(SIDE):
        for shift in (step, -step):
            moved = Box(box.left, box.bottom + shift, box.right, box.top + shift)
            inside = moved.bottom >= 0 and moved.top <= SIDE
            if inside and not any(moved.overlap(other) for other in taken):
                return moved
    return box


def _labels(places: Points, targets: IntArray, classes: Sequence[str]) -> Markup:
    """Each class's name near the median of its images."""
    present = [index for index in range(len(classes)) if (targets == index).any()]
    texts = [wording.shortened(classes[index], 20) for index in present]
    anchors = [np.median(places[targets == index], axis=0).tolist() for index in present]
    boxes: list[Box] = []
    for text, (x, y) in zip(texts, anchors, strict=True):
        width, height = text_size(text, LABEL_FONT)
        half = width * 0.55
        x = min(max(x, half + 2), SIDE - half - 2)
        boxes.append(_clear(Box(x - half, y - height / 2, x + half, y + height / 2), boxes))
    return Markup("").join(
        Markup('<text data-class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
            index, (box.left + box.right) / 2, (box.bottom + box.top) / 2, escape(text)
        )
        for index, text, box in zip(present, texts, boxes, strict=True)
    )
