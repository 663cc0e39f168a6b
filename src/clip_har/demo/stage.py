"""The stage on which a scene is put together: camera, place, clutter and people who come from one generator.

What happens on it is told in scenes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from clip_har.demo.backgrounds import OPEN_AIR, PLACES, ground_shadow
from clip_har.demo.canvas import Camera, Canvas
from clip_har.demo.clutter import scatter
from clip_har.demo.figures import Figure, Looks, sample_looks
from clip_har.demo.style import Point, Style


@dataclass(frozen=True, kw_only=True)
class Liveliness:
    """How much pictures of one action differ beyond their style."""

    zoom: float = 0.12
    """Largest relative change of the framing."""
    shift: float = 0.06
    """Largest displacement of the camera, in scene units."""
    tilt: float = 0.07
    """Standard deviation of the camera's tilt in radians."""
    clutter: int = 2
    """Most things scattered about."""
    bystander: float = 0.14
    """Probability of somebody standing behind the scene."""


class Stage:
    """Collects one picture. Call `open` first, then draw on `canvas`.

    Args:
        rng: the only source of chance.
        style: how the picture is rendered.
        size: side of the finished picture in pixels.
        supersample: how many times finer it is drawn.
        liveliness: how much pictures differ.
    """

    def __init__(
        self,
        rng: Random,
        style: Style,
        *,
        size: int,
        supersample: int = 2,
        liveliness: Liveliness | None = None,
    ) -> None:
        self.rng = rng
        self.style = style
        self.place = ""
        self.people: list[Looks] = []
        self._size = size
        self._supersample = supersample
        self._liveliness = liveliness or Liveliness()
        self.canvas: Canvas

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def jitter(self, spread: float) -> float:
        """A number between -spread and +spread."""
        return self.rng.uniform(-spread, spread)

    def open(self, *, focus: Point, span: float, places: tuple[str, ...]) -> None:
        """Point the camera, then draw the place, a possible bystander and the clutter.

        Args:
            focus: the scene point in the middle of the picture.
            span: side of the picture in scene units.
            places: names in `PLACES` to choose from.
        """
        lively, rng = self._liveliness, self.rng
        camera = Camera(
            focus=(focus[0] + self.jitter(lively.shift), focus[1] + self.jitter(lively.shift)),
            span=span * (1 + self.jitter(lively.zoom)),
            tilt=max(-0.25, min(0.25, rng.gauss(0.0, lively.tilt))),
            mirrored=self.chance(0.5),
        )
        self.canvas = Canvas(size=self._size, supersample=self._supersample, camera=camera, style=self.style, rng=rng)
        self.place = rng.choice(places)
        PLACES[self.place](self.canvas, rng)
        if self.chance(lively.bystander):
            self._bystander()
        scatter(self.canvas, rng, outdoors=self.place in OPEN_AIR, most=lively.clutter)

    def _bystander(self) -> None:
        distant = self.canvas.placed((self.rng.choice((-1, 1)) * self.rng.uniform(0.42, 0.6), -0.13), scale=0.72)
        Figure(sample_looks(self.rng, self.style), turn=self.rng.choice((0.0, 0.4, 1.0))).draw(distant)

    def looks(self, *, child: bool = False) -> Looks:
        """Sample the looks of one of the people in the picture and remember them."""
        looks = sample_looks(self.rng, self.style, child=child)
        self.people.append(looks)
        return looks

    def adult(self) -> Looks:
        """Looks of the standard height, for scenes in which people have to fit furniture or one another."""
        looks = replace(self.looks(), height=1.0)
        self.people[-1] = looks
        return looks

    def shadow(self, x: float, width: float = 0.16) -> None:
        """Draw the shadow under somebody at x."""
        ground_shadow(self.canvas, x, width)

    def finish(self) -> Image.Image:
        """The finished picture."""
        return self.canvas.finish()
