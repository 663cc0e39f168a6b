"""Places: rooms, streets, parks, gyms and plain studios, drawn behind everything else.

People and what they use are drawn elsewhere; clutter.py scatters the odd objects around them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from clip_har.demo.canvas import Canvas
from clip_har.demo.style import WHITE, Colour, darker, lighter, mix, vary

FAR = 2.5
"""How far a place extends to either side, in scene units."""

Place = Callable[[Canvas, Random], None]


def _floor(canvas: Canvas, top: float, colour: Colour) -> None:
    canvas.shape([(-FAR, top), (FAR, top), (FAR, FAR), (-FAR, FAR)], colour, contour=False)


def _wallpaper(canvas: Canvas, colour: Colour, rng: Random) -> None:
    if canvas.style.texture < 0.12:
        return
    tone = mix(colour, darker(colour, 0.35), canvas.style.texture)
    gap = rng.uniform(0.08, 0.2)
    if rng.random() < 0.5:
        for step in range(round(2.4 / gap)):
            x = -1.2 + step * gap
            canvas.line([(x, -1.6), (x, -0.1)], gap * 0.3, tone)
    else:
        for row in range(round(1.4 / gap)):
            for column in range(round(2.0 / gap)):
                shift = gap / 2 * (row % 2)
                canvas.circle((-1.0 + column * gap + shift, -1.4 + row * gap), gap * 0.14, tone, contour=False)


def _boards(canvas: Canvas, top: float, colour: Colour) -> None:
    tone = darker(colour, 0.12)
    for step in range(-6, 7):
        canvas.line([(step * 0.22, top), (step * 0.36, 0.6)], 0.008, tone)


def _shell(canvas: Canvas, rng: Random) -> Colour:
    """Draw the wall and floor of a room and return the colour of the wall."""
    palette = canvas.style.palette
    wall, floor = vary(rng.choice(palette.walls), rng), vary(rng.choice(palette.floors), rng)
    top = rng.uniform(-0.2, -0.1)
    canvas.gradient(lighter(wall, 0.15), darker(wall, 0.06))
    _wallpaper(canvas, wall, rng)
    _floor(canvas, top, floor)
    if rng.random() < 0.6:
        _boards(canvas, top, floor)
    canvas.shape([(-FAR, top - 0.03), (FAR, top - 0.03), (FAR, top), (-FAR, top)], lighter(wall, 0.5), contour=False)
    return wall


def window(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    """Draw a window with or without curtains, its middle at (x, y)."""
    width, height = rng.uniform(0.28, 0.42), rng.uniform(0.32, 0.44)
    sky = rng.choice(canvas.style.palette.skies)
    canvas.box((x, y), width + 0.05, height + 0.05, WHITE)
    canvas.box((x, y), width, height, sky, contour=False)
    canvas.line([(x, y - height / 2), (x, y + height / 2)], 0.018, WHITE)
    canvas.line([(x - width / 2, y), (x + width / 2, y)], 0.018, WHITE)
    if rng.random() < 0.5:
        cloth = vary(rng.choice(canvas.style.palette.clothes), rng)
        for side in (-1, 1):
            edge, inner = x + side * (width / 2 + 0.06), x + side * (width / 2 - 0.06)
            top, bottom = y - height / 2 - 0.05, y + height / 2 + 0.08
            canvas.shape([(edge, top), (inner, top), (inner + side * 0.03, bottom), (edge, bottom)], cloth)


def picture(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    """Draw a framed picture, its middle at (x, y)."""
    width, height = rng.uniform(0.14, 0.26), rng.uniform(0.14, 0.24)
    canvas.box((x, y), width + 0.03, height + 0.03, rng.choice(((92, 66, 48), (40, 40, 44), (206, 176, 110))))
    canvas.box((x, y), width, height, vary(rng.choice(canvas.style.palette.skies), rng), contour=False)
    ground = rng.choice(canvas.style.palette.greens)
    half = width / 2
    canvas.shape([(x - half, y + height / 2), (x - half, y + 0.02), (x, y - 0.04), (x + half, y + height / 2)], ground)


def shelf(canvas: Canvas, x: float, y: float, rng: Random) -> None:
    """Draw a shelf of books on the wall."""
    canvas.box((x, y), 0.4, 0.025, (126, 92, 64))
    at = x - 0.18
    while at < x + 0.16:
        thickness, height = rng.uniform(0.02, 0.045), rng.uniform(0.09, 0.15)
        canvas.box((at, y - height / 2 - 0.01), thickness, height, rng.choice(canvas.style.palette.clothes))
        at += thickness + 0.004


def draw_room(canvas: Canvas, rng: Random) -> None:
    """A living room or bedroom."""
    _shell(canvas, rng)
    places = [-0.62, 0.0, 0.62]
    rng.shuffle(places)
    for x, draw in zip(places[: rng.randint(1, 3)], (window, picture, shelf), strict=False):
        draw(canvas, x + rng.uniform(-0.1, 0.1), rng.uniform(-0.95, -0.75), rng)


def draw_kitchen(canvas: Canvas, rng: Random) -> None:
    """A kitchen with tiles and cupboards."""
    wall = _shell(canvas, rng)
    tile = lighter(wall, 0.35)
    for step in range(12):
        canvas.line([(-1.1 + step * 0.2, -0.85), (-1.1 + step * 0.2, -0.42)], 0.008, tile)
    for row in range(4):
        canvas.line([(-FAR, -0.85 + row * 0.14), (FAR, -0.85 + row * 0.14)], 0.008, tile)
    wood = vary(rng.choice(canvas.style.palette.floors), rng)
    for step in range(6):
        x = -1.0 + step * 0.4
        canvas.box((x, -1.08), 0.37, 0.34, wood)
        canvas.box((x, -0.25), 0.37, 0.3, darker(wood, 0.1))
        canvas.line([(x + 0.12, -0.36), (x + 0.12, -0.3)], 0.014, WHITE)
    canvas.box((0.0, -0.42), 2 * FAR, 0.04, lighter(wood, 0.4))


def draw_office(canvas: Canvas, rng: Random) -> None:
    """An office with blinds and a board on the wall."""
    wall = _shell(canvas, rng)
    x = rng.choice((-0.45, 0.4))
    canvas.box((x, -0.85), 0.6, 0.5, lighter(wall, 0.5))
    for row in range(8):
        canvas.line([(x - 0.28, -1.06 + row * 0.06), (x + 0.28, -1.06 + row * 0.06)], 0.02, darker(wall, 0.12))
    canvas.box((-x, -0.85), 0.5, 0.34, WHITE)
    for row in range(3):
        end = -x + rng.uniform(0.0, 0.2)
        canvas.line(
            [(-x - 0.2, -0.95 + row * 0.1), (end, -0.95 + row * 0.1)],
            0.014,
            rng.choice(canvas.style.palette.clothes),
        )


def draw_gym(canvas: Canvas, rng: Random) -> None:
    """A sports hall with a painted wall and floor lines."""
    wall = _shell(canvas, rng)
    stripe = vary(rng.choice(canvas.style.palette.clothes), rng)
    canvas.box((0.0, -0.5), 2 * FAR, 0.12, stripe, contour=False)
    for step in range(5):
        canvas.box((-1.0 + step * 0.5, -1.12), 0.34, 0.2, lighter(wall, 0.5))
    canvas.line([(-FAR, 0.06), (FAR, 0.06)], 0.02, WHITE)
    canvas.line([(-0.4, -0.1), (-0.75, 0.6)], 0.02, mix(stripe, WHITE, 0.3))


def draw_hall(canvas: Canvas, rng: Random) -> None:
    """A dance hall with coloured lights."""
    tone = vary(rng.choice(((58, 44, 96), (86, 40, 84), (34, 54, 92), (92, 60, 52))), rng)
    canvas.gradient(darker(tone, 0.2), lighter(tone, 0.15))
    _floor(canvas, -0.14, darker(tone, 0.35))
    for _ in range(rng.randint(2, 4)):
        colour, x = (
            rng.choice(((250, 200, 80), (110, 220, 240), (240, 110, 190), (140, 240, 150))),
            rng.uniform(-0.7, 0.7),
        )
        foot = x + rng.uniform(-0.35, 0.35)
        beam = mix(tone, colour, 0.3)
        canvas.shape([(x, -1.5), (foot - 0.16, 0.0), (foot + 0.16, 0.0)], beam, contour=False)
        canvas.ellipse((foot, 0.02), 0.17, 0.05, mix(tone, colour, 0.5), contour=False)


def _cloud(canvas: Canvas, x: float, y: float) -> None:
    for shift, radius in ((-0.1, 0.055), (0.0, 0.08), (0.1, 0.06)):
        canvas.circle((x + shift, y), radius, WHITE, contour=False)


def tree(canvas: Canvas, x: float, base: float, height: float, rng: Random) -> None:
    """Draw a tree, leafy or a fir, on the ground at (x, base)."""
    green = vary(rng.choice(canvas.style.palette.greens), rng)
    canvas.limb([(x, base), (x, base - height * 0.5)], [height * 0.1, height * 0.07], (112, 82, 60))
    if rng.random() < 0.3:
        for share in (0.3, 0.5, 0.7):
            reach = height * (0.42 - 0.35 * share)
            canvas.shape(
                [
                    (x - reach, base - height * share),
                    (x + reach, base - height * share),
                    (x, base - height * (share + 0.34)),
                ],
                green,
            )
        return
    for shift, up, radius in ((-0.16, 0.62, 0.2), (0.16, 0.64, 0.21), (0.0, 0.8, 0.24)):
        canvas.circle((x + shift * height, base - up * height), radius * height, green, contour=False)
    canvas.circle((x - 0.06 * height, base - 0.86 * height), 0.12 * height, lighter(green, 0.15), contour=False)


def draw_park(canvas: Canvas, rng: Random) -> None:
    """A meadow with hills and trees."""
    palette = canvas.style.palette
    sky, green = vary(rng.choice(palette.skies), rng), vary(rng.choice(palette.greens), rng)
    horizon = rng.uniform(-0.42, -0.24)
    canvas.gradient(sky, lighter(sky, 0.45))
    if rng.random() < 0.5:
        canvas.circle((rng.uniform(-0.7, 0.7), rng.uniform(-1.25, -1.0)), 0.1, (252, 232, 150), contour=False)
    for _ in range(rng.randint(0, 2)):
        _cloud(canvas, rng.uniform(-0.8, 0.8), rng.uniform(-1.25, -0.9))
    for x in (-0.7, 0.5):
        hill = mix(green, sky, 0.45)
        canvas.ellipse((x + rng.uniform(-0.2, 0.2), horizon + 0.1), 0.8, rng.uniform(0.2, 0.34), hill, contour=False)
    _floor(canvas, horizon, green)
    for _ in range(rng.randint(1, 4)):
        x = rng.choice((-1, 1)) * rng.uniform(0.25, 0.85)
        tree(canvas, x, horizon + rng.uniform(0.0, 0.08), rng.uniform(0.4, 0.75), rng)
    if rng.random() < 0.6:
        path = [(-FAR, -0.08), (FAR, -0.12), (FAR, 0.12), (-FAR, 0.16)]
        canvas.shape(path, (212, 192, 156), contour=False)
    _tufts(canvas, green, rng)


def _tufts(canvas: Canvas, green: Colour, rng: Random) -> None:
    for _ in range(round(6 + 20 * canvas.style.texture)):
        x, y = rng.uniform(-0.8, 0.8), rng.uniform(-0.2, 0.4)
        canvas.line([(x - 0.015, y - 0.03), (x, y), (x + 0.015, y - 0.035)], 0.008, darker(green, 0.2))


def draw_street(canvas: Canvas, rng: Random) -> None:
    """A street with houses, a pavement and a road."""
    palette = canvas.style.palette
    sky = vary(rng.choice(palette.skies), rng)
    canvas.gradient(sky, lighter(sky, 0.4))
    x = -1.3
    while x < 1.3:
        width, height = rng.uniform(0.32, 0.55), rng.uniform(0.6, 1.2)
        _house(canvas, x, width, height, rng)
        x += width + rng.choice((0.0, 0.0, 0.06))
    pavement = vary((178, 174, 170), rng)
    _floor(canvas, -0.18, pavement)
    canvas.line([(-FAR, -0.17), (FAR, -0.17)], 0.016, darker(pavement, 0.2))
    _floor(canvas, 0.1, vary((104, 106, 112), rng))
    for step in range(-4, 5):
        canvas.box((step * 0.4, 0.28), 0.2, 0.025, WHITE, contour=False)


def _house(canvas: Canvas, left: float, width: float, height: float, rng: Random) -> None:
    wall = vary(mix(rng.choice(canvas.style.palette.walls), rng.choice(canvas.style.palette.clothes), 0.3), rng)
    canvas.shape([(left, -0.18), (left, -height), (left + width, -height), (left + width, -0.18)], wall)
    pane = rng.choice(((120, 150, 176), (236, 216, 150), (90, 104, 124)))
    columns = 2 if width < 0.42 else 3
    for column in range(columns):
        x = left + width * (column + 0.5) / columns
        for row in range(int((height - 0.4) / 0.22)):
            canvas.box((x, -height + 0.14 + row * 0.22), width * 0.17, 0.11, pane, contour=False)
    canvas.box((left + width * 0.5, -0.27), 0.09, 0.18, darker(wall, 0.45), contour=False)


def draw_beach(canvas: Canvas, rng: Random) -> None:
    """A beach with the sea behind it."""
    sky = vary(rng.choice(canvas.style.palette.skies), rng)
    canvas.gradient(sky, lighter(sky, 0.4))
    sea = vary((84, 156, 186), rng)
    canvas.shape([(-FAR, -0.5), (FAR, -0.5), (FAR, 0.0), (-FAR, 0.0)], sea, contour=False)
    for _ in range(8):
        x, y = rng.uniform(-0.8, 0.8), rng.uniform(-0.46, -0.28)
        canvas.line([(x, y), (x + 0.12, y)], 0.01, lighter(sea, 0.4))
    _floor(canvas, -0.22, vary((232, 212, 164), rng))


def draw_plain(canvas: Canvas, rng: Random) -> None:
    """A studio: one colour and a hint of floor."""
    wall = vary(rng.choice(canvas.style.palette.walls), rng, 24)
    canvas.gradient(lighter(wall, 0.25), darker(wall, 0.08))
    if rng.random() < 0.6:
        _floor(canvas, rng.uniform(-0.2, -0.08), darker(wall, 0.12))
    if rng.random() < 0.5:
        x, y = rng.uniform(-0.3, 0.3), rng.uniform(-0.8, -0.4)
        canvas.circle((x, y), rng.uniform(0.3, 0.55), lighter(wall, 0.2), contour=False)
    _wallpaper(canvas, wall, rng)


PLACES: dict[str, Place] = {
    "room": draw_room,
    "kitchen": draw_kitchen,
    "office": draw_office,
    "gym": draw_gym,
    "hall": draw_hall,
    "park": draw_park,
    "street": draw_street,
    "beach": draw_beach,
    "plain": draw_plain,
}

INDOOR: tuple[str, ...] = ("room", "kitchen", "office", "gym", "plain")
OUTDOOR: tuple[str, ...] = ("park", "street", "beach", "plain")
OPEN_AIR: frozenset[str] = frozenset({"park", "street", "beach"})
"""The places where trees and street lamps stand about; the plain studio is no such place."""


def ground_shadow(canvas: Canvas, x: float, width: float) -> None:
    """Draw the soft shadow under someone who stands at x, as a darker ellipse."""
    tone = mix((60, 54, 60), WHITE, 0.32)
    canvas.ellipse((x, 0.012), width, 0.028, tone, contour=False)
