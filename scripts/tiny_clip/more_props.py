"""Things that only the wide set shows: instruments, tools, vehicles, a dog.

Each is drawn around the point it is held by, or stands on the ground line y = 0.
"""

from __future__ import annotations

import math
from random import Random

from clip_har.demo.canvas import Canvas
from clip_har.demo.furniture import wheel
from clip_har.demo.style import INK, WHITE, Colour, Point, darker, lighter


def guitar(canvas: Canvas, at: Point, colour: Colour, *, angle: float = -0.45) -> None:
    """Draw a guitar, its body at `at` and its neck in direction +x of its own frame."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.limb([(0.6, 0.0), (3.2, 0.0)], [0.28, 0.24], (96, 62, 40))
    frame.box((3.4, 0.0), 0.6, 0.42, (60, 40, 30))
    frame.circle((-0.5, 0.0), 0.95, colour)
    frame.circle((0.55, 0.0), 0.72, colour)
    frame.circle((0.25, 0.0), 0.3, INK, contour=False)
    frame.line([(-0.8, 0.0), (3.3, 0.0)], 0.08, (230, 220, 200))


def violin(canvas: Canvas, at: Point, *, angle: float = -0.3) -> None:
    """Draw a violin, its chin end at `at`."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.limb([(1.2, 0.0), (2.7, 0.0)], [0.2, 0.16], (70, 44, 30))
    frame.circle((0.3, 0.0), 0.5, (176, 96, 48))
    frame.circle((1.1, 0.0), 0.42, (176, 96, 48))
    frame.line([(0.9, -1.2), (1.1, 1.6)], 0.1, (120, 90, 60))


def drum(canvas: Canvas, x: float, height: float, colour: Colour, *, width: float = 0.2) -> None:
    """Draw a drum on a stand."""
    canvas.limb([(x, 0.0), (x, -height)], [0.02, 0.02], INK)
    canvas.box((x, -height), width, 0.16, colour)
    canvas.ellipse((x, -height - 0.08), width / 2, 0.035, WHITE)


def stick(canvas: Canvas, start: Point, end: Point, colour: Colour, *, width: float = 0.018) -> None:
    """Draw a rod."""
    canvas.limb([start, end], [width, width], colour)


def easel(canvas: Canvas, x: float, rng: Random) -> None:
    """Draw an easel with a canvas."""
    for foot in (-0.16, 0.16):
        canvas.limb([(x + foot, 0.0), (x, -1.0)], [0.022, 0.022], (140, 100, 66))
    canvas.box((x, -0.66), 0.36, 0.42, WHITE)
    for _ in range(5):
        spot = (x + rng.uniform(-0.13, 0.13), -0.66 + rng.uniform(-0.15, 0.15))
        canvas.circle(spot, 0.045, rng.choice(canvas.style.palette.clothes), contour=False)


def broom(canvas: Canvas, top: Point, foot: Point) -> None:
    """Draw a broom from the top of its handle to the floor."""
    canvas.limb([top, foot], [0.02, 0.02], (150, 108, 70))
    x, y = foot
    canvas.shape(
        [(x - 0.03, y - 0.06), (x + 0.03, y - 0.06), (x + 0.1, y + 0.06), (x - 0.08, y + 0.06)],
        (222, 184, 92),
    )


def cart(canvas: Canvas, x: float, colour: Colour) -> None:
    """Draw a shopping cart, its handle at x."""
    canvas.line([(x, -0.52), (x + 0.08, -0.48), (x + 0.14, -0.2), (x + 0.42, -0.2)], 0.02, (120, 124, 130))
    canvas.shape([(x + 0.07, -0.5), (x + 0.5, -0.46), (x + 0.44, -0.25), (x + 0.12, -0.25)], lighter(colour, 0.3))
    for share in (0.18, 0.28, 0.38):
        canvas.line([(x + share, -0.47), (x + share, -0.25)], 0.01, (120, 124, 130))
    canvas.circle((x + 0.17, -0.04), 0.04, INK)
    canvas.circle((x + 0.4, -0.04), 0.04, INK)


def barbell(canvas: Canvas, at: Point, *, half: float = 0.36) -> None:
    """Draw a barbell that faces the viewer."""
    x, y = at
    canvas.limb([(x - half, y), (x + half, y)], [0.022, 0.022], (150, 154, 162))
    for side in (-1, 1):
        canvas.box((x + side * half * 0.86, y), 0.05, 0.24, (52, 54, 62))
        canvas.box((x + side * half * 0.98, y), 0.04, 0.17, (170, 50, 50))


def camera(canvas: Canvas, at: Point, *, front: bool) -> None:
    """Draw a camera."""
    canvas.box(at, 0.13, 0.085, (44, 44, 50))
    if front:
        canvas.circle(at, 0.035, (110, 140, 170))
    else:
        canvas.limb([(at[0] + 0.05, at[1]), (at[0] + 0.11, at[1])], [0.06, 0.06], (70, 72, 80))


def dog(canvas: Canvas, x: float, colour: Colour) -> Point:
    """Draw a dog that walks towards +x and return where its collar is."""
    for foot in (-0.13, -0.09, 0.06, 0.1):
        canvas.limb([(x + foot * 0.9, -0.14), (x + foot, -0.01)], [0.04, 0.03], darker(colour, 0.1))
    canvas.limb([(x - 0.11, -0.18), (x + 0.1, -0.19)], [0.11, 0.12], colour)
    canvas.limb([(x - 0.14, -0.2), (x - 0.22, -0.3)], [0.035, 0.02], colour)
    canvas.limb([(x + 0.12, -0.22), (x + 0.17, -0.3)], [0.07, 0.07], colour)
    canvas.limb([(x + 0.17, -0.31), (x + 0.25, -0.29)], [0.1, 0.05], colour)
    canvas.limb([(x + 0.14, -0.33), (x + 0.11, -0.27)], [0.04, 0.04], darker(colour, 0.35))
    return (x + 0.14, -0.25)


def umbrella(canvas: Canvas, hand: Point, colour: Colour) -> None:
    """Draw an open umbrella over the hand that holds it."""
    x, y = hand
    canvas.limb([(x, y + 0.06), (x, y - 0.45)], [0.016, 0.016], INK)
    dome = [
        (
            x + 0.34 * math.cos(math.pi * (1 + step / 10)),
            y - 0.42 + 0.26 * math.sin(math.pi * (1 + step / 10)),
        )
        for step in range(11)
    ]
    canvas.shape(dome, colour)


def rain(canvas: Canvas, rng: Random) -> None:
    """Draw rain."""
    for _ in range(30):
        x, y = rng.uniform(-0.8, 0.8), rng.uniform(-1.3, 0.1)
        canvas.line([(x, y), (x - 0.02, y + 0.08)], 0.008, (120, 160, 210))


def carton(canvas: Canvas, at: Point, *, size: float = 0.26) -> None:
    """Draw a cardboard box."""
    canvas.box(at, size, size * 0.85, (196, 150, 96))
    canvas.box((at[0], at[1]), size * 0.16, size * 0.85, (222, 190, 140), contour=False)


def ladder(canvas: Canvas, x: float) -> None:
    """Draw a ladder that leans against nothing visible."""
    for side in (-0.12, 0.12):
        canvas.limb([(x + side, 0.0), (x + side, -1.45)], [0.026, 0.026], (160, 120, 70))
    for step in range(9):
        canvas.limb([(x - 0.12, -0.1 - 0.155 * step), (x + 0.12, -0.1 - 0.155 * step)], [0.02, 0.02], (180, 138, 84))


def pan(canvas: Canvas, at: Point) -> None:
    """Draw a pan; its handle points to -x."""
    canvas.limb([(at[0] - 0.2, at[1] - 0.02), (at[0] - 0.08, at[1])], [0.025, 0.025], INK)
    canvas.shape(
        [
            (at[0] - 0.1, at[1] - 0.03),
            (at[0] + 0.1, at[1] - 0.03),
            (at[0] + 0.08, at[1] + 0.02),
            (at[0] - 0.08, at[1] + 0.02),
        ],
        (60, 62, 70),
    )


def skateboard(canvas: Canvas, x: float, colour: Colour) -> None:
    """Draw a skateboard."""
    canvas.limb([(x - 0.24, -0.085), (x - 0.17, -0.065), (x + 0.17, -0.065), (x + 0.24, -0.085)], [0.024] * 4, colour)
    for side in (-0.14, 0.14):
        wheel(canvas, (x + side, -0.028), 0.022)


def microphone(canvas: Canvas, at: Point, *, angle: float = 0.0) -> None:
    """Draw a microphone, its head at `at`."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.limb([(0.0, 0.1), (0.0, 1.0)], [0.28, 0.2], INK)
    frame.circle((0.0, 0.0), 0.26, (150, 154, 162))


def television(canvas: Canvas, x: float, rng: Random) -> None:
    """Draw a television set on a low table."""
    canvas.box((x, -0.1), 0.4, 0.2, (120, 86, 60))
    canvas.box((x, -0.38), 0.46, 0.32, INK)
    canvas.box((x, -0.38), 0.4, 0.26, rng.choice(((110, 190, 240), (240, 180, 90), (130, 210, 140))), contour=False)


def racket(canvas: Canvas, hand: Point, *, angle: float) -> None:
    """Draw a tennis racket, held at `hand`, its head in direction -y of its own frame."""
    frame = canvas.placed(hand, angle=angle, scale=0.1)
    frame.limb([(0.0, 0.2), (0.0, -1.2)], [0.16, 0.14], INK)
    frame.ellipse((0.0, -1.9), 0.6, 0.78, (210, 70, 60))
    frame.ellipse((0.0, -1.9), 0.48, 0.66, (240, 240, 230), contour=False)
