"""Heads: face, expression, hair and what is worn on them.

Everything is drawn in the head's own frame: the origin in its middle, one unit its radius, y down.
"""

from __future__ import annotations

import math
from typing import Literal

from clip_har.demo.canvas import Canvas
from clip_har.demo.style import INK, WHITE, Colour, Point, darker, lighter, mix

Hair = Literal["short", "long", "bun", "ponytail", "curly", "bald", "cap"]
Expression = Literal["neutral", "smile", "laugh", "shout", "asleep", "frown", "chew", "blissful"]

HAIR_STYLES: tuple[Hair, ...] = ("short", "short", "long", "long", "bun", "ponytail", "curly", "bald", "cap")


def face_shift(turn: float) -> float:
    """How far the features move towards +x when the head turns from the viewer (0) into profile (1)."""
    return 0.5 * turn


def ear_position(turn: float) -> Point:
    """The nearer ear, on the -x side of a head that faces the viewer."""
    return (-0.98 + 0.85 * turn, 0.05)


def mouth_position(turn: float) -> Point:
    """The middle of the mouth."""
    return (face_shift(turn) * 1.35, 0.5)


def draw_back_hair(head: Canvas, hair: Hair, colour: Colour, turn: float) -> None:
    """Draw the hair that hangs or stands behind the head."""
    back = -0.35 * turn
    if hair == "long":
        head.shape(
            [
                (-1.08 + back, -0.3),
                (-1.2 + back, 0.8),
                (-1.1 + back, 1.7),
                (0.0 + back, 1.85),
                (1.1 + 3.4 * back, 1.7),
                (1.2 + 3.2 * back, 0.8),
                (1.08 + back, -0.3),
            ],
            colour,
        )
    elif hair == "ponytail":
        head.limb([(-0.5 + 2 * back, -0.7), (-1.35 + back, -0.3), (-1.45 + back, 0.9)], [0.5, 0.55, 0.2], colour)
    elif hair == "bun":
        head.circle((-0.3 + 2.2 * back, -1.1 - 0.9 * back), 0.48, colour)
    elif hair == "curly":
        for step in range(11):
            angle = math.pi * (0.9 + 1.2 * step / 10) - 0.35 * turn
            head.circle((1.0 * math.cos(angle) + 0.4 * back, 0.98 * math.sin(angle)), 0.42, colour, contour=False)


def draw_head_shape(head: Canvas, skin: Colour, turn: float) -> None:
    """Draw the head itself with ears and, in profile, the nose."""
    shadow = darker(skin, 0.12)
    if turn < 0.45:
        head.circle((0.97, 0.08), 0.2, shadow)
    head.ellipse((0.0, 0.0), 0.95, 1.06, skin)
    if turn > 0.55:
        head.shape([(0.82, -0.15), (1.18, 0.2), (0.85, 0.3)], skin, contour=False)
    if head.style.shading:
        head.ellipse((-0.45 + 0.3 * turn, 0.1), 0.32, 0.7, mix(skin, shadow, 0.5), contour=False)
    head.circle(ear_position(turn), 0.2, shadow)


def draw_hair(head: Canvas, hair: Hair, colour: Colour, turn: float) -> None:
    """Draw the hair, or the cap, on top of the head."""
    if hair == "bald":
        head.arc((0.0, 0.0), 0.97, math.pi * 1.0, math.pi * (1.2 - 0.1 * turn), 0.16, colour)
        return
    start, end = math.pi * (0.97 - 0.22 * turn), math.pi * (2.03 - 0.12 * turn)
    crown = [start + (end - start) * step / 12 for step in range(13)]
    rim = [(1.04 * math.cos(angle), 1.13 * math.sin(angle)) for angle in crown]
    shift = face_shift(turn)
    hairline = [
        (0.72 + 0.2 * shift, -0.42),
        (0.2 + shift, -0.52),
        (-0.35 + shift, -0.5),
        (-0.72 + shift, -0.2),
    ]
    head.shape(rim + hairline, colour)
    if hair == "curly":
        for step in range(6):
            angle = math.pi * (1.15 + 0.7 * step / 5)
            head.circle((0.85 * math.cos(angle), 0.95 * math.sin(angle)), 0.33, colour, contour=False)
    elif hair == "cap":
        head.limb([(0.1 + shift, -0.42), (0.95 + 1.2 * shift, -0.36)], [0.2, 0.14], darker(colour, 0.3))
    elif head.style.shading:
        head.arc((0.0, 0.0), 0.82, math.pi * 1.25, math.pi * 1.6, 0.12, lighter(colour, 0.2), flat=1.1)


def _eyes(turn: float) -> list[Point]:
    shift = face_shift(turn)
    near, far = (-0.36 + shift * 1.25, -0.06), (0.36 + shift * 0.85, -0.06)
    return [far] if turn > 0.75 else [near, far]


def _draw_eyes(head: Canvas, expression: Expression, eyes: list[Point], gaze: Point) -> None:
    for x, y in eyes:
        if expression in ("laugh", "blissful"):
            head.arc((x, y + 0.1), 0.2, math.pi * 1.08, math.pi * 1.92, 0.1, INK)
        elif expression == "asleep":
            head.arc((x, y - 0.04), 0.2, math.pi * 0.1, math.pi * 0.9, 0.09, INK)
        else:
            head.ellipse((x, y), 0.17, 0.15, WHITE, contour=False)
            head.circle((x + 0.07 * gaze[0], y + 0.05 * gaze[1]), 0.12, INK, contour=False)


def _draw_brows(head: Canvas, expression: Expression, eyes: list[Point], colour: Colour) -> None:
    rise = {"laugh": -0.1, "shout": 0.08, "frown": 0.06}.get(expression, 0.0)
    for index, (x, y) in enumerate(eyes):
        inner = 1.0 if index == 0 and len(eyes) == 2 else -1.0
        slope = 0.12 if expression in ("frown", "shout") else -0.03
        ends = [(x - 0.2 * inner, y - 0.3 + rise - slope), (x + 0.2 * inner, y - 0.3 + rise + slope)]
        head.line(ends, 0.09, colour)


def _draw_mouth(head: Canvas, expression: Expression, at: Point) -> None:
    x, y = at
    if expression == "laugh":
        lips = [(x - 0.44, y - 0.14), (x + 0.44, y - 0.14), (x + 0.36, y + 0.14), (x + 0.16, y + 0.34)]
        head.shape([*lips, (x - 0.16, y + 0.34), (x - 0.36, y + 0.14)], (120, 32, 38), contour=False)
        teeth = [(x - 0.4, y - 0.13), (x + 0.4, y - 0.13), (x + 0.36, y + 0.02), (x - 0.36, y + 0.02)]
        head.shape(teeth, WHITE, contour=False)
        head.ellipse((x, y + 0.24), 0.17, 0.09, (214, 92, 96), contour=False)
    elif expression == "shout":
        head.ellipse((x, y), 0.22, 0.2, (110, 30, 36), contour=False)
        head.box((x, y - 0.1), 0.28, 0.1, WHITE, contour=False)
    elif expression in ("smile", "blissful"):
        head.arc((x, y - 0.2), 0.34, math.pi * 0.15, math.pi * 0.85, 0.1, (140, 48, 48))
    elif expression == "chew":
        head.ellipse((x, y), 0.16, 0.12, (128, 42, 44), contour=False)
    elif expression == "frown":
        head.arc((x, y + 0.18), 0.26, math.pi * 1.2, math.pi * 1.8, 0.1, (140, 48, 48))
    else:
        head.line([(x - 0.18, y), (x + 0.18, y)], 0.09, (140, 58, 54))


def draw_face(head: Canvas, expression: Expression, *, turn: float, gaze: Point, skin: Colour, hair: Colour) -> None:
    """Draw eyes, brows, nose and mouth."""
    eyes = _eyes(turn)
    if expression in ("laugh", "blissful"):
        for x, y in eyes:
            head.circle((x, y + 0.36), 0.15, mix(skin, (230, 90, 80), 0.35), contour=False)
    _draw_eyes(head, expression, eyes, gaze)
    _draw_brows(head, expression, eyes, mix(hair, INK, 0.4))
    shift = face_shift(turn)
    if turn <= 0.55:
        head.line(
            [(1.5 * shift, 0.02), (0.07 + 1.6 * shift, 0.22), (1.4 * shift - 0.02, 0.24)],
            0.07,
            darker(skin, 0.3),
        )
    _draw_mouth(head, expression, mouth_position(turn))


def draw_beard(head: Canvas, colour: Colour, turn: float) -> None:
    """Draw a full beard; the mouth goes on top of it."""
    shift = face_shift(turn)
    head.shape(
        [
            (-0.92 + shift * 0.8, 0.15),
            (-0.45 + shift, 0.3),
            (0.4 + shift, 0.3),
            (0.92, 0.15),
            (0.78, 0.8),
            (0.3 + 0.4 * shift, 1.16),
            (-0.3 + 0.4 * shift, 1.16),
            (-0.78 + 0.2 * shift, 0.8),
        ],
        colour,
        contour=False,
    )


def draw_glasses(head: Canvas, turn: float) -> None:
    """Draw spectacles."""
    eyes = _eyes(turn)
    for eye in eyes:
        head.arc(eye, 0.25, 0.0, math.tau, 0.07, (50, 46, 52))
    head.line([(eyes[0][0] - 0.25, eyes[0][1]), ear_position(turn)], 0.06, (50, 46, 52))
