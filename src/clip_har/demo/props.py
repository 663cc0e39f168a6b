"""Things that people hold, wear or use with their hands, each drawn around the point it is held by.

Furniture and vehicles live in furniture.py, scenery in backgrounds.py.
"""

from __future__ import annotations

import math
from random import Random

from clip_har.demo.canvas import Canvas
from clip_har.demo.style import INK, WHITE, Colour, Point, darker, lighter

BRIGHT: tuple[Colour, ...] = ((214, 64, 58), (60, 120, 200), (240, 190, 60), (70, 160, 100), (230, 130, 60))
"""What small things are painted in, so that they stand out."""


def phone(canvas: Canvas, at: Point, *, angle: float = 0.0, screen: bool = True) -> None:
    """Draw a mobile phone, showing its screen or its back."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.shape([(-0.32, -0.62), (0.32, -0.62), (0.32, 0.62), (-0.32, 0.62)], (28, 28, 34))
    if screen:
        frame.shape([(-0.25, -0.5), (0.25, -0.5), (0.25, 0.48), (-0.25, 0.48)], (150, 214, 246), contour=False)
        frame.box((0.0, -0.2), 0.34, 0.16, WHITE, contour=False)
        frame.box((0.04, 0.12), 0.3, 0.16, (110, 200, 130), contour=False)
    else:
        frame.circle((-0.14, -0.42), 0.1, (110, 112, 124), contour=False)


def cup(canvas: Canvas, at: Point, colour: Colour, *, angle: float = 0.0) -> None:
    """Draw a mug."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.arc((0.42, 0.02), 0.26, -math.pi / 2, math.pi / 2, 0.14, darker(colour, 0.15))
    frame.shape([(-0.42, -0.5), (0.42, -0.5), (0.36, 0.5), (-0.36, 0.5)], colour)
    frame.ellipse((0.0, -0.5), 0.42, 0.1, (92, 58, 40), contour=False)


def glass(canvas: Canvas, at: Point, drink: Colour, *, angle: float = 0.0, straw: bool = False) -> None:
    """Draw a glass with a drink in it."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.shape([(-0.4, -0.65), (0.4, -0.65), (0.3, 0.65), (-0.3, 0.65)], (224, 238, 244))
    frame.shape([(-0.35, -0.3), (0.35, -0.3), (0.27, 0.58), (-0.27, 0.58)], drink, contour=False)
    if straw:
        frame.line([(0.0, 0.3), (0.2, -1.1)], 0.12, (220, 60, 60))


def bottle(canvas: Canvas, at: Point, colour: Colour, *, angle: float = 0.0) -> None:
    """Draw a bottle, held by the middle with its neck upwards."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    frame.shape(
        [
            (-0.3, 0.9),
            (-0.3, -0.3),
            (-0.12, -0.65),
            (-0.12, -1.0),
            (0.12, -1.0),
            (0.12, -0.65),
            (0.3, -0.3),
            (0.3, 0.9),
        ],
        colour,
    )
    frame.box((0.0, -1.02), 0.3, 0.16, WHITE, contour=False)
    frame.box((0.0, 0.3), 0.58, 0.5, WHITE, contour=False)


def headphones(head: Canvas, colour: Colour, turn: float) -> None:
    """Draw headphones in the frame of a head."""
    near = -1.0 + 0.85 * turn
    if turn < 0.5:
        head.arc((0.0, -0.05), 1.16, math.pi * 1.02, math.pi * 1.98, 0.2, darker(colour, 0.2))
        head.ellipse((1.02, 0.05), 0.24, 0.4, darker(colour, 0.1))
    else:
        head.arc((near * 0.5, -0.1), 1.14, math.pi * 1.3, math.pi * 1.6, 0.22, darker(colour, 0.2))
        head.line([(near, 0.0), (near * 0.6 - 0.1, -1.2)], 0.2, darker(colour, 0.2))
    head.ellipse((near - 0.02, 0.05), 0.3, 0.44, colour)
    head.ellipse((near - 0.02, 0.05), 0.14, 0.24, darker(colour, 0.35), contour=False)


def earphones(head: Canvas, turn: float, down_to: Point) -> None:
    """Draw earphones in the frame of a head, with a wire to a point in that frame."""
    near = (-0.98 + 0.85 * turn, 0.12)
    head.line([near, (near[0] - 0.05, 1.2), down_to], 0.09, WHITE)
    head.circle(near, 0.17, WHITE)
    if turn < 0.45:
        head.line([(0.98, 0.12), (0.9, 1.2), down_to], 0.09, WHITE)
        head.circle((0.98, 0.12), 0.17, WHITE)


def note(canvas: Canvas, at: Point, colour: Colour, *, size: float = 0.06, double: bool = False) -> None:
    """Draw a musical note."""
    frame = canvas.placed(at, angle=0.1, scale=size)
    stems = [(-0.2, 0.6), (0.8, 0.45)] if double else [(0.0, 0.6)]
    for x, y in stems:
        frame.ellipse((x, y), 0.32, 0.23, colour, angle=-0.35, contour=False)
        frame.line([(x + 0.27, y), (x + 0.27, y - 1.3)], 0.16, colour)
    if double:
        frame.shape([(0.0, -0.85), (1.15, -1.0), (1.15, -0.65), (0.0, -0.5)], colour, contour=False)
    else:
        frame.line([(0.27, -0.7), (0.75, -0.25)], 0.2, colour)


def plate(canvas: Canvas, at: Point, rng: Random, *, width: float = 0.13) -> None:
    """Draw a plate of food, seen from slightly above; `at` is the middle of its rim, `width` half of it."""
    frame = canvas.placed(at, scale=width)
    frame.ellipse((0.0, 0.05), 1.0, 0.3, (206, 208, 214))
    frame.ellipse((0.0, 0.0), 1.0, 0.28, WHITE)
    for _ in range(5):
        food = rng.choice(((196, 70, 48), (226, 176, 72), (94, 150, 66), (150, 92, 54), (238, 214, 150)))
        frame.ellipse((rng.uniform(-0.5, 0.5), rng.uniform(-0.22, -0.02)), 0.26, 0.16, food, contour=False)


def bowl(canvas: Canvas, at: Point, colour: Colour, *, width: float = 0.1) -> None:
    """Draw a steaming bowl; `at` is the middle of its rim."""
    frame = canvas.placed(at, scale=width)
    rim = [(math.cos(math.pi * step / 8), 0.75 * math.sin(math.pi * step / 8)) for step in range(9)]
    frame.shape(rim, colour)
    frame.ellipse((0.0, 0.0), 1.0, 0.2, (240, 196, 110))
    for x in (-0.4, 0.1, 0.5):
        frame.line([(x, -0.3), (x + 0.12, -0.55), (x - 0.05, -0.8), (x + 0.08, -1.05)], 0.08, (236, 236, 240))


def fork(canvas: Canvas, at: Point, *, angle: float = 0.0, food: Colour | None = None) -> None:
    """Draw a fork held at `at`, its prongs in direction -y of its own frame."""
    frame = canvas.placed(at, angle=angle, scale=0.1)
    steel = (176, 182, 192)
    frame.line([(0.0, 0.3), (0.0, -0.8)], 0.15, steel)
    frame.line([(-0.18, -0.75), (0.18, -0.75)], 0.13, steel)
    for x in (-0.18, 0.0, 0.18):
        frame.line([(x, -0.75), (x, -1.15)], 0.08, steel)
    if food is not None:
        frame.circle((0.0, -1.1), 0.26, food)


def burger(canvas: Canvas, at: Point, *, size: float = 0.06, angle: float = 0.0) -> None:
    """Draw a hamburger."""
    frame = canvas.placed(at, angle=angle, scale=size)
    bun = (220, 158, 82)
    dome = [(math.cos(math.pi * (1 + step / 8)), 0.85 * math.sin(math.pi * (1 + step / 8)) - 0.1) for step in range(9)]
    frame.box((0.0, 0.55), 1.8, 0.36, bun)
    frame.box((0.0, 0.28), 2.0, 0.26, (112, 66, 42), contour=False)
    frame.box((0.0, 0.04), 2.1, 0.22, (104, 168, 72), contour=False)
    frame.shape(dome, bun)


def sandwich(canvas: Canvas, at: Point, *, size: float = 0.065, angle: float = 0.0) -> None:
    """Draw a sandwich cut to a triangle."""
    frame = canvas.placed(at, angle=angle, scale=size)
    frame.shape([(-1.0, 0.5), (0.2, -0.8), (1.0, 0.5)], (240, 216, 164))
    frame.line([(-0.95, 0.42), (0.95, 0.42)], 0.3, (196, 84, 66))
    frame.line([(-0.95, 0.6), (0.95, 0.6)], 0.22, (112, 172, 80))


def apple(canvas: Canvas, at: Point, *, size: float = 0.045) -> None:
    """Draw a red apple."""
    frame = canvas.placed(at, scale=size)
    frame.circle((0.0, 0.0), 1.0, (206, 48, 44))
    frame.line([(0.0, -0.8), (0.2, -1.4)], 0.25, (98, 66, 40))
    frame.ellipse((0.45, -1.15), 0.4, 0.2, (96, 158, 70), angle=-0.4, contour=False)


def pizza(canvas: Canvas, at: Point, *, size: float = 0.07, angle: float = 0.0) -> None:
    """Draw a slice of pizza, its tip in direction +x of its own frame."""
    frame = canvas.placed(at, angle=angle, scale=size)
    frame.shape([(1.1, 0.0), (-0.8, -0.65), (-0.8, 0.65)], (240, 196, 88))
    frame.limb([(-0.85, -0.62), (-0.85, 0.62)], [0.34, 0.34], (188, 124, 60))
    for spot in ((-0.4, -0.2), (-0.3, 0.28), (0.25, 0.0)):
        frame.circle(spot, 0.2, (190, 52, 40), contour=False)


def laptop(canvas: Canvas, at: Point, *, open_angle: float = 0.3, glow: Colour = (168, 216, 244)) -> None:
    """Draw a laptop in side view, its hinge at `at`, its keyboard towards -x and its lid upwards."""
    frame = canvas.placed(at, scale=0.2)
    lean = math.sin(open_angle)
    lid = [(0.0, -0.02), (lean * 0.9, -0.95)]
    frame.limb([(-0.95, 0.0), (0.02, 0.0)], [0.1, 0.1], (120, 126, 138))
    frame.shape([lid[0], lid[1], (lid[1][0] - 0.5, lid[1][1] + 0.04), (-0.5, -0.02)], glow, contour=False)
    frame.limb(lid, [0.11, 0.11], (96, 100, 112))


def laptop_oblique(canvas: Canvas, at: Point, *, screen: Colour = (120, 190, 236)) -> None:
    """Draw a laptop seen obliquely, with its screen; `at` is the middle of its front edge."""
    frame = canvas.placed(at, scale=0.2)
    frame.shape([(-0.75, 0.0), (0.35, 0.0), (0.75, -0.34), (-0.3, -0.34)], (172, 178, 188))
    frame.shape([(-0.52, -0.08), (0.24, -0.08), (0.46, -0.26), (-0.28, -0.26)], (92, 96, 106), contour=False)
    frame.shape([(-0.3, -0.34), (0.75, -0.34), (0.98, -1.1), (-0.08, -1.1)], (84, 88, 98))
    frame.shape([(-0.19, -0.42), (0.66, -0.42), (0.85, -1.03), (-0.01, -1.03)], screen, contour=False)
    frame.line([(0.05, -0.85), (0.55, -0.85)], 0.09, WHITE)
    frame.line([(0.0, -0.66), (0.4, -0.66)], 0.09, lighter(screen, 0.6))


def laptop_back(canvas: Canvas, at: Point, colour: Colour = (178, 184, 194)) -> None:
    """Draw an open laptop from behind; `at` is the middle of its lower edge."""
    frame = canvas.placed(at, scale=0.2)
    frame.shape([(-0.72, -0.02), (0.72, -0.02), (0.66, -0.88), (-0.66, -0.88)], colour)
    frame.circle((0.0, -0.46), 0.11, WHITE, contour=False)
    frame.limb([(-0.8, 0.0), (0.8, 0.0)], [0.08, 0.08], darker(colour, 0.35))


def book(canvas: Canvas, at: Point, colour: Colour, *, angle: float = 0.0, size: float = 0.09) -> None:
    """Draw an open book from outside."""
    frame = canvas.placed(at, angle=angle, scale=size)
    frame.shape([(0.0, -0.6), (-0.95, -0.75), (-0.95, 0.5), (0.0, 0.68)], colour)
    frame.shape([(0.0, -0.6), (0.95, -0.75), (0.95, 0.5), (0.0, 0.68)], darker(colour, 0.15))
    frame.line([(-0.88, -0.82), (0.0, -0.66), (0.88, -0.82)], 0.14, WHITE)


def ball(canvas: Canvas, at: Point, radius: float, colour: Colour) -> None:
    """Draw a ball."""
    canvas.circle(at, radius, colour)
    canvas.arc(at, radius * 0.9, math.pi * 1.1, math.pi * 1.7, radius * 0.18, lighter(colour, 0.5))
    canvas.line(
        [(at[0] - radius * 0.8, at[1] + radius * 0.3), (at[0] + radius * 0.8, at[1] + radius * 0.3)],
        0.008,
        INK,
    )


def bag(canvas: Canvas, at: Point, colour: Colour) -> None:
    """Draw a bag standing on the ground."""
    frame = canvas.placed(at, scale=0.1)
    frame.arc((0.0, -1.2), 0.45, math.pi, math.tau, 0.14, darker(colour))
    frame.shape([(-0.8, 0.0), (-0.7, -1.2), (0.7, -1.2), (0.8, 0.0)], colour)


def bubble(canvas: Canvas, at: Point, colour: Colour, *, size: float = 0.09) -> None:
    """Draw a speech bubble with three dots, its tail to the lower left."""
    frame = canvas.placed(at, scale=size)
    frame.shape([(-0.6, 0.3), (-0.95, 1.0), (0.0, 0.55)], colour, contour=False)
    frame.limb([(-0.55, 0.0), (0.55, 0.0)], [1.15, 1.15], colour)
    for x in (-0.5, 0.0, 0.5):
        frame.circle((x, 0.0), 0.15, INK, contour=False)


def burst(canvas: Canvas, at: Point, radius: float, colour: Colour = (250, 214, 70)) -> None:
    """Draw the star of a blow."""
    star = [
        (
            at[0] + radius * (1.0 if step % 2 == 0 else 0.48) * math.cos(step * math.tau / 18),
            at[1] + radius * (1.0 if step % 2 == 0 else 0.48) * math.sin(step * math.tau / 18),
        )
        for step in range(18)
    ]
    canvas.shape(star, colour)


def heart(canvas: Canvas, at: Point, size: float, colour: Colour = (224, 70, 96)) -> None:
    """Draw a heart."""
    frame = canvas.placed(at, scale=size)
    frame.circle((-0.45, -0.3), 0.52, colour, contour=False)
    frame.circle((0.45, -0.3), 0.52, colour, contour=False)
    frame.shape([(-0.93, -0.1), (0.93, -0.1), (0.0, 1.0)], colour, contour=False)


def rays(canvas: Canvas, at: Point, inner: float, outer: float, colour: Colour, *, count: int = 7) -> None:
    """Draw short lines that fan out upwards around a point, as of a sound or a movement."""
    for step in range(count):
        angle = math.pi * (1.08 + 0.84 * step / (count - 1))
        across, down = math.cos(angle), math.sin(angle)
        ends = [
            (at[0] + inner * across, at[1] + inner * down),
            (at[0] + outer * across, at[1] + outer * down),
        ]
        canvas.line(ends, 0.014, colour)


def snore(canvas: Canvas, at: Point, colour: Colour) -> None:
    """Draw two letters Z that rise from a sleeper."""
    for x, y, size in ((0.0, 0.0, 0.05), (0.08, -0.09, 0.07)):
        frame = canvas.placed((at[0] + x, at[1] + y), angle=-0.1, scale=size)
        frame.line([(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)], 0.2, colour)
