"""Larger things that people sit on, lie in, work at or ride: chairs, tables, beds, bicycles.

Each stands on the ground line y = 0 at a given x; small things live in props.py.
"""

from __future__ import annotations

import math

from clip_har.demo.canvas import Canvas
from clip_har.demo.style import INK, Colour, Point, darker, lighter, mix


def chair(canvas: Canvas, x: float, colour: Colour, *, seat: float = 0.25, depth: float = 0.2) -> None:
    """Draw a chair in side view facing +x; `x` is the middle of the seat, `seat` its height."""
    left, right = x - depth / 2, x + depth / 2
    canvas.limb([(left, 0.0), (left - 0.015, -seat)], [0.022, 0.026], darker(colour, 0.2))
    canvas.limb([(right, 0.0), (right - 0.01, -seat)], [0.022, 0.026], darker(colour, 0.2))
    canvas.limb([(left - 0.01, -seat), (left - 0.04, -seat - 0.3)], [0.03, 0.03], colour)
    canvas.limb([(left - 0.01, -seat), (right + 0.01, -seat)], [0.04, 0.04], colour)


def chair_front(canvas: Canvas, x: float, colour: Colour, *, seat: float = 0.26, width: float = 0.24) -> None:
    """Draw a chair that faces the viewer."""
    half = width / 2
    for side in (-1, 1):
        canvas.limb([(x + side * half, 0.0), (x + side * half, -seat)], [0.024, 0.024], darker(colour, 0.25))
        canvas.limb([(x + side * half, -seat), (x + side * half, -seat - 0.3)], [0.024, 0.024], colour)
    canvas.box((x, -seat - 0.24), width, 0.1, darker(colour, 0.12))
    canvas.shape(
        [
            (x - half, -seat - 0.03),
            (x + half, -seat - 0.03),
            (x + half + 0.02, -seat + 0.03),
            (x - half - 0.02, -seat + 0.03),
        ],
        colour,
    )


def stool(canvas: Canvas, x: float, colour: Colour, *, seat: float = 0.25) -> None:
    """Draw a three-legged stool."""
    for foot in (-0.08, 0.0, 0.08):
        canvas.limb([(x + foot, 0.0), (x + foot * 0.6, -seat)], [0.018, 0.022], darker(colour, 0.25))
    canvas.ellipse((x, -seat), 0.11, 0.028, colour)


def bench(canvas: Canvas, x: float, colour: Colour, *, width: float = 0.75, seat: float = 0.25) -> None:
    """Draw a park bench that faces the viewer."""
    half = width / 2
    for up in (0.36, 0.46, 0.56):
        canvas.box((x, -up), width, 0.055, darker(colour, 0.1))
    for side in (-0.8, 0.8):
        canvas.limb([(x + side * half, 0.0), (x + side * half, -0.56)], [0.028, 0.028], (70, 72, 78))
    canvas.shape(
        [
            (x - half, -seat - 0.03),
            (x + half, -seat - 0.03),
            (x + half + 0.03, -seat + 0.04),
            (x - half - 0.03, -seat + 0.04),
        ],
        colour,
    )


def sofa(canvas: Canvas, x: float, colour: Colour, *, width: float = 0.8) -> None:
    """Draw a sofa that faces the viewer."""
    half = width / 2
    canvas.limb([(x - half + 0.06, -0.44), (x + half - 0.06, -0.44)], [0.18, 0.18], darker(colour, 0.1))
    canvas.box((x, -0.34), width - 0.02, 0.3, darker(colour, 0.1))
    canvas.box((x, -0.16), width - 0.02, 0.22, lighter(colour, 0.08))
    canvas.line([(x, -0.27), (x, -0.06)], 0.01, darker(colour, 0.3))
    for side in (-1, 1):
        canvas.limb([(x + side * half, -0.07), (x + side * half, -0.34)], [0.13, 0.13], colour)


def table(canvas: Canvas, x: float, colour: Colour, *, width: float = 0.6, height: float = 0.42) -> None:
    """Draw a table in side view; `x` is its middle."""
    half = width / 2
    for side in (-0.88, 0.88):
        canvas.limb([(x + side * half, 0.0), (x + side * half, -height)], [0.028, 0.028], darker(colour, 0.3))
    canvas.box((x, -height), width, 0.035, colour)


def counter(canvas: Canvas, x: float, colour: Colour, *, width: float = 0.8, height: float = 0.42) -> None:
    """Draw a table with a cloth, or a desk, that hides what is behind it."""
    canvas.box((x, -height / 2), width * 0.94, height, darker(colour, 0.14))
    canvas.box((x, -height), width, 0.045, lighter(colour, 0.12))


def bed(canvas: Canvas, x: float, frame: Colour, sheet: Colour, *, width: float = 1.15) -> None:
    """Draw a bed in side view with the pillow at -x; `x` is its middle, its lying surface is at y = -0.27."""
    half = width / 2
    canvas.limb([(x - half, 0.0), (x - half, -0.52)], [0.05, 0.05], frame)
    canvas.limb([(x + half, 0.0), (x + half, -0.36)], [0.05, 0.05], frame)
    canvas.box((x, -0.12), width, 0.09, darker(frame, 0.12))
    canvas.limb([(x - half + 0.08, -0.215), (x + half - 0.08, -0.215)], [0.11, 0.11], sheet)


def pillow(canvas: Canvas, at: Point, colour: Colour, *, angle: float = 0.0) -> None:
    """Draw a pillow."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.limb([(-0.9, 0.0), (0.9, 0.0)], [0.85, 0.85], colour)
    frame.line([(-0.6, 0.15), (0.5, 0.2)], 0.07, darker(colour, 0.14))


def blanket(canvas: Canvas, start: float, end: float, colour: Colour, *, top: float, bottom: float = -0.14) -> None:
    """Draw a blanket over a lying body from x = start (chest) to x = end (feet), its ridge at y = top."""
    middle = (start + end) / 2
    canvas.shape(
        [
            (start - 0.02, bottom),
            (start, top + 0.02),
            (start + 0.1, top),
            (middle, top + 0.012),
            (end - 0.12, top + 0.02),
            (end - 0.05, top - 0.02),
            (end + 0.02, top + 0.06),
            (end + 0.03, bottom),
        ],
        colour,
    )
    canvas.line([(start + 0.035, top + 0.02), (start + 0.02, bottom)], 0.05, lighter(colour, 0.45))
    for share in (0.4, 0.65, 0.85):
        x = start + (end - start) * share
        canvas.line([(x, top + 0.05), (x + 0.03, bottom + 0.02)], 0.012, darker(colour, 0.2))


def wheel(canvas: Canvas, at: Point, radius: float) -> None:
    """Draw a spoked wheel."""
    for step in range(5):
        angle = step * math.pi / 5
        across, down = radius * math.cos(angle), radius * math.sin(angle)
        canvas.line([(at[0] - across, at[1] - down), (at[0] + across, at[1] + down)], 0.007, (168, 172, 178))
    canvas.arc(at, radius, 0.0, math.pi, 0.026, INK)
    canvas.arc(at, radius, math.pi, math.tau, 0.026, INK)
    canvas.circle(at, 0.016, (120, 122, 130), contour=False)


def bicycle(canvas: Canvas, x: float, colour: Colour, *, radius: float = 0.175) -> dict[str, Point]:
    """Draw a bicycle facing +x with its pedals at `x`.

    Returns:
        Where to put the "seat", the "grip" and the "pedals" of a rider.
    """
    rear, front = (x - 0.26, -radius), (x + 0.3, -radius)
    axle, seat, head = (x, -radius + 0.01), (x - 0.11, -0.42), (x + 0.2, -0.44)
    wheel(canvas, rear, radius)
    wheel(canvas, front, radius)
    for line in (
        [rear, axle],
        [axle, head],
        [axle, seat],
        [rear, (x - 0.09, -0.38)],
        [(x - 0.09, -0.38), head],
    ):
        canvas.line(line, 0.024, colour)
    canvas.line([front, head, (x + 0.19, -0.52)], 0.024, darker(colour, 0.15))
    canvas.line([(x + 0.19, -0.52), (x + 0.26, -0.53)], 0.026, INK)
    canvas.limb([(seat[0] - 0.05, -0.44), (seat[0] + 0.05, -0.435)], [0.035, 0.022], INK)
    canvas.circle(axle, 0.035, (110, 112, 120))
    return {"seat": (seat[0], -0.45), "grip": (x + 0.25, -0.535), "pedals": axle}


def dumbbell(canvas: Canvas, at: Point, *, size: float = 0.1) -> None:
    """Draw a dumbbell."""
    frame = canvas.placed(at, scale=size)
    frame.line([(-0.7, 0.0), (0.7, 0.0)], 0.16, (150, 154, 162))
    for side in (-0.7, 0.7):
        frame.box((side, 0.0), 0.34, 0.7, mix(INK, (90, 94, 104), 0.4))
