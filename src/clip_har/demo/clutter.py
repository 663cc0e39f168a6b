"""Odd objects around the people: lamps, plants, and things of other actions lying about.

They make the pictures harder to tell apart; nobody uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from clip_har.demo import furniture, props
from clip_har.demo.backgrounds import tree
from clip_har.demo.canvas import Canvas
from clip_har.demo.style import darker, lighter

Thing = Callable[[Canvas, float, Random], None]
"""Draws one thing standing on the ground at a given x."""


def _lamp(canvas: Canvas, x: float, rng: Random) -> None:
    shade = rng.choice(canvas.style.palette.clothes)
    canvas.limb([(x, -0.02), (x, -0.72)], [0.02, 0.018], (72, 66, 62))
    canvas.ellipse((x, -0.02), 0.08, 0.02, (72, 66, 62))
    canvas.shape([(x - 0.06, -0.9), (x + 0.06, -0.9), (x + 0.12, -0.68), (x - 0.12, -0.68)], lighter(shade, 0.3))


def _plant(canvas: Canvas, x: float, rng: Random) -> None:
    green = rng.choice(canvas.style.palette.greens)
    for shift in (-0.12, -0.05, 0.05, 0.12):
        canvas.limb([(x, -0.18), (x + shift * 0.7, -0.36), (x + shift, -0.44)], [0.02, 0.06, 0.015], green)
    canvas.shape([(x - 0.08, -0.18), (x + 0.08, -0.18), (x + 0.055, 0.0), (x - 0.055, 0.0)], (184, 104, 72))


def _side_table(canvas: Canvas, x: float, rng: Random) -> None:
    wood = rng.choice(canvas.style.palette.floors)
    furniture.table(canvas, x, darker(wood, 0.25), width=0.3, height=0.32)
    things: tuple[Callable[[], None], ...] = (
        lambda: props.cup(canvas, (x, -0.39), rng.choice(props.BRIGHT)),
        lambda: props.phone(canvas, (x, -0.36), angle=1.5),
        lambda: props.laptop_oblique(canvas, (x, -0.34)),
        lambda: props.plate(canvas, (x, -0.36), rng, width=0.1),
        lambda: props.bottle(canvas, (x, -0.43), rng.choice(props.BRIGHT)),
        lambda: props.apple(canvas, (x, -0.38)),
    )
    rng.choice(things)()


def _empty_chair(canvas: Canvas, x: float, rng: Random) -> None:
    furniture.chair(canvas, x, rng.choice(canvas.style.palette.clothes))


def _ball(canvas: Canvas, x: float, rng: Random) -> None:
    radius = rng.uniform(0.045, 0.08)
    props.ball(canvas, (x, -radius), radius, rng.choice(props.BRIGHT))


def _bag(canvas: Canvas, x: float, rng: Random) -> None:
    props.bag(canvas, (x, 0.0), rng.choice(canvas.style.palette.clothes))


def _dumbbell(canvas: Canvas, x: float, rng: Random) -> None:
    furniture.dumbbell(canvas, (x, -0.035))


def _parked_bicycle(canvas: Canvas, x: float, rng: Random) -> None:
    distant = canvas.placed((x, -0.14), scale=0.75, mirrored=rng.random() < 0.5)
    furniture.bicycle(distant, 0.0, rng.choice(canvas.style.palette.clothes))


def _street_lamp(canvas: Canvas, x: float, rng: Random) -> None:
    canvas.limb([(x, -0.1), (x, -1.15)], [0.03, 0.02], (74, 78, 84))
    canvas.limb([(x, -1.15), (x + 0.1, -1.17)], [0.02, 0.02], (74, 78, 84))
    canvas.circle((x + 0.11, -1.14), 0.035, (250, 230, 160))


def _bush(canvas: Canvas, x: float, rng: Random) -> None:
    green = rng.choice(canvas.style.palette.greens)
    for shift, up in ((-0.09, 0.06), (0.09, 0.07), (0.0, 0.12)):
        canvas.circle((x + shift, -0.1 - up), 0.1, green, contour=False)


def _tree(canvas: Canvas, x: float, rng: Random) -> None:
    tree(canvas, x, -0.08, rng.uniform(0.7, 1.1), rng)


def _sign(canvas: Canvas, x: float, rng: Random) -> None:
    canvas.limb([(x, -0.05), (x, -0.75)], [0.022, 0.022], (150, 154, 160))
    canvas.circle((x, -0.8), 0.09, rng.choice(props.BRIGHT))
    canvas.circle((x, -0.8), 0.06, (244, 244, 240), contour=False)


INDOOR_THINGS: tuple[Thing, ...] = (
    _lamp,
    _plant,
    _side_table,
    _side_table,
    _empty_chair,
    _ball,
    _bag,
    _dumbbell,
)
OUTDOOR_THINGS: tuple[Thing, ...] = (_parked_bicycle, _street_lamp, _bush, _tree, _sign, _ball, _bag)


def scatter(canvas: Canvas, rng: Random, *, outdoors: bool, most: int = 2) -> None:
    """Put up to `most` things to the left and right of the middle."""
    sides = [-1, 1]
    rng.shuffle(sides)
    for index in range(rng.randint(0, most)):
        thing = rng.choice(OUTDOOR_THINGS if outdoors else INDOOR_THINGS)
        thing(canvas.placed((0.0, -0.06)), sides[index % 2] * rng.uniform(0.36, 0.66), rng)
