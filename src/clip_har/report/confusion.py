"""A confusion matrix as a table of a page: shares, orders to sort it by, and the photographs behind its cells.

The matrix as a picture is in `plots`; layout and script are in templates/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from clip_har.evaluation import EvalResult, Evaluated, IntArray
from clip_har.report.html import tile
from clip_har.report.pictures import Pictures

CLASSES_LIMIT = 60
"""Up to here a matrix is a table; with more classes it is a list of mistakes, and a picture."""
MISTAKES_PER_CELL = 12
RIGHT_PER_CELL = 6
TILES_LIMIT = 1200
"""Images listed behind all cells together; text alone would grow with the test set otherwise."""
WHITE_FROM_SHARE = 0.74
"""Share of a row from which text on its colour is white."""
Cell = tuple[int, int]


def confusion_table(
    classes: Sequence[str], confusion: IntArray, linked: Mapping[Cell, Any] | None = None
) -> dict[str, Any] | None:
    """The matrix as the template wants it, or None where there are too many classes.

    Args:
        classes: names of the C classes.
        confusion: counts, [C, C]: rows are true classes, columns answers.
        linked: cells whose photographs are on the page.
    """
    if len(classes) > CLASSES_LIMIT:
        return None
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return {
        "classes": list(classes),
        "orders": orders(classes, confusion),
        "rows": [
            {
                "name": name,
                "support": int(confusion[row].sum()),
                "cells": [
                    _cell(row, column, int(confusion[row, column]), float(shares[row, column]), linked or {})
                    for column in range(len(classes))
                ],
            }
            for row, name in enumerate(classes)
        ],
    }


def orders(classes: Sequence[str], confusion: IntArray) -> list[tuple[str, list[int]]]:
    """Ways to sort the classes, each with its name: the classes' indices in their new order."""
    support = np.maximum(confusion.sum(axis=1), 1)
    recall = np.diag(confusion) / support
    by_name = sorted(range(len(classes)), key=lambda index: classes[index].casefold())
    return [
        ("by name", by_name),
        ("most errors first", np.argsort(recall, kind="stable").tolist()),
        ("most images first", np.argsort(-confusion.sum(axis=1), kind="stable").tolist()),
        ("confused classes together", similar_together(confusion)),
    ]


def similar_together(confusion: IntArray) -> list[int]:
    """Leaves of an average-linkage tree, so ordered that classes taken for each other are neighbours."""
    n_classes = len(confusion)
    if n_classes < 3:
        return list(range(n_classes))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    distance: npt.NDArray[np.float64] = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(tree)]


def cell_images(result: EvalResult, model: Evaluated) -> dict[Cell, list[int]]:
    """Indices of the images behind each cell: mistakes surest first, right answers least sure first.

    Cells that hold more images come first, mistakes before right answers. Together they are at most
    `TILES_LIMIT` images, dealt out in turns, so that every cell gets its first image before any gets its second.
    """
    confidence = model.confidence
    cells: dict[Cell, list[int]] = {}
    for index, (true, answer) in enumerate(zip(result.targets_N.tolist(), model.predictions.tolist(), strict=True)):
        cells.setdefault((true, answer), []).append(index)
    for (true, answer), images in cells.items():
        wrong = true != answer
        images.sort(key=lambda index: -confidence[index] if wrong else confidence[index])
    order = sorted(cells, key=lambda cell: (cell[0] == cell[1], -len(cells[cell]), cell))
    chosen: dict[Cell, list[int]] = {}
    left = TILES_LIMIT
    for turn in range(MISTAKES_PER_CELL):
        for cell in order:
            limit = RIGHT_PER_CELL if cell[0] == cell[1] else MISTAKES_PER_CELL
            if left and turn < min(limit, len(cells[cell])):
                chosen.setdefault(cell, []).append(cells[cell][turn])
                left -= 1
    return chosen


def cell_sections(result: EvalResult, pictures: Pictures) -> dict[Cell, dict[str, Any]]:
    """Cell -> what the page shows when it is opened, for the best model; the turns decide who gets a photograph."""
    model = result.best
    chosen = cell_images(result, model)
    for turn in range(MISTAKES_PER_CELL):
        for images in chosen.values():
            if turn < len(images):
                pictures.get(result.paths[images[turn]])
    counts = model.metrics.confusion
    return {
        cell: {
            "id": cell_id(*cell),
            "true": result.classes[cell[0]],
            "answer": result.classes[cell[1]],
            "right": cell[0] == cell[1],
            "count": int(counts[cell]),
            "support": int(counts[cell[0]].sum()),
            "tiles": [tile(result, model, index, pictures) for index in images],
        }
        for cell, images in sorted(chosen.items())
    }


def cell_id(true: int, answer: int) -> str:
    """The fragment that leads to a cell's images."""
    return f"cell-{true}-{answer}"


def _cell(row: int, column: int, count: int, share: float, linked: Mapping[Cell, Any]) -> dict[str, Any]:
    return {
        "count": count,
        "percent": f"{100 * share:.0f}",
        # Below 1, the exponent lifts rare mistakes above the ground; the counts say how rare.
        "alpha": f"{share**0.75:.2f}",
        "white": share >= WHITE_FROM_SHARE,
        "right": row == column,
        "target": cell_id(row, column) if (row, column) in linked else None,
    }
