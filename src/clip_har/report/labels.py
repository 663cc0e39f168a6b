"""Places for the labels of a scatter plot, so that they cover neither each other nor the marks.

Plain geometry in points (1/72 inch), y upwards: no figure is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

DISTANCES = (7.0, 12.0, 18.0, 26.0, 36.0, 48.0, 62.0, 78.0)  # points, from mark to label
DIRECTIONS = (0, 180, 90, 270, 45, 135, 315, 225, 20, 340, 160, 200, 70, 110, 250, 290)  # degrees, best first
GAP = 1.5  # points between things
DISTANCE_COST = 0.1  # square points of cover that a label takes to be one point nearer
RIM = 7.0  # points, about the radius of a mark
STEP = 2.0  # points between the dots that stand for a line
Edges = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A rectangle that something fills."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Shared area, in square points."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def holds(self, other: Box) -> bool:
        """Whether the other lies within this one."""
        inside_x = self.left <= other.left and other.right <= self.right
        return inside_x and self.bottom <= other.bottom and other.top <= self.top

    def grown(self, margin: float) -> Box:
        """The same with a margin on all sides."""
        return Box(self.left - margin, self.bottom - margin, self.right + margin, self.top + margin)


def text_size(text: str, font_size: float) -> tuple[float, float]:
    """Width and height of a line in the plots' font, in points."""
    outline = TextPath((0, 0), text or " ", size=font_size, prop=FontProperties(family="DejaVu Sans"), usetex=False)
    return float(outline.get_extents().width), font_size * 1.15


def placed_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    obstacles: Sequence[Box],
    bounds: Box,
) -> list[Box]:
    """A box for each label, near its anchor.

    The most crowded are served first; each takes the place within the bounds that covers least, and of equals the
    nearest.

    Args:
        anchors: what the labels belong to.
        sizes: width and height of each label.
        obstacles: what must stay visible.
        bounds: where labels may stand.
    """
    taken = list(obstacles)
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(anchors)), key=lambda index: _room(anchors, index)):
        anchor = anchors[index]
        taken_T4 = _edges(taken)
        costs = [
            (DISTANCE_COST * distance + _cost(box, anchor, taken_T4, bounds), box)
            for distance, box in _candidates(anchor, sizes[index])
        ]
        boxes[index] = min(costs, key=lambda entry: entry[0])[1]
        taken += [boxes[index], *_steps(anchor, boxes[index])]
    return [boxes[index] for index in range(len(anchors))]


def _room(anchors: Sequence[tuple[float, float]], index: int) -> float:
    """Distance to the second nearest of the other anchors: small in a crowd."""
    distances = sorted(math.dist(anchors[index], other) for other in anchors)
    return distances[min(2, len(distances) - 1)]


def leader_end(anchor: tuple[float, float], box: Box) -> tuple[float, float]:
    """The point of the box that is nearest to its anchor, where a line from there ends."""
    return min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top)


def _candidates(anchor: tuple[float, float], size: tuple[float, float]) -> list[tuple[float, Box]]:
    """Boxes around the anchor with their distances, the nearest first; `min` keeps the first of equally good ones."""
    width, height = size
    boxes = []
    for distance in DISTANCES:
        for degrees in DIRECTIONS:
            x_share, y_share = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            # The box touches the circle of this distance from outside.
            x = anchor[0] + x_share * (distance + width / 2)
            y = anchor[1] + y_share * (distance + height / 2)
            boxes.append((distance, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
    return boxes


def _steps(anchor: tuple[float, float], box: Box) -> list[Box]:
    """The line from the rim of an anchor's mark to the label as a row of dots."""
    end = leader_end(anchor, box)
    length = math.dist(anchor, end)
    dots = []
    for index in range(int(max(0.0, length - RIM) // STEP)):
        share = (RIM + index * STEP) / length
        x, y = anchor[0] + share * (end[0] - anchor[0]), anchor[1] + share * (end[1] - anchor[1])
        dots.append(Box(x - 1, y - 1, x + 1, y + 1))
    return dots


def _cost(box: Box, anchor: tuple[float, float], taken_T4: Edges, bounds: Box) -> float:
    """Area that the label and its line cover of other things; much for a label out of bounds."""
    outside = 0.0 if bounds.holds(box) else 1e6
    return outside + _covered(_edges([box.grown(GAP), *_steps(anchor, box)]), taken_T4)


def _edges(boxes: Sequence[Box]) -> Edges:
    """Left, bottom, right and top of each box, [N, 4]."""
    return np.array([(box.left, box.bottom, box.right, box.top) for box in boxes]).reshape(-1, 4)


def _covered(boxes_N4: Edges, taken_T4: Edges) -> float:
    """Area that all boxes share with all others, in square points."""
    low_NT2 = np.maximum(boxes_N4[:, None, :2], taken_T4[:, :2])
    high_NT2 = np.minimum(boxes_N4[:, None, 2:], taken_T4[:, 2:])
    return float((high_NT2 - low_NT2).clip(min=0).prod(axis=-1).sum())
