"""A sheet to draw on in scene units, seen through a camera that can shift, zoom, tilt and mirror.

Primitive shapes and the finishing of the picture live here; people, things and places do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from clip_har.demo.style import INK, WHITE, Colour, Point, Style, darker, lighter, mix

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x' = a x + b y + c and y' = d x + e y + f."""

CIRCLE: tuple[Point, ...] = tuple(
    (math.cos(step * math.tau / 24), math.sin(step * math.tau / 24)) for step in range(24)
)
"""Corners of the polygon that stands in for a unit circle."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """The part of the scene that the picture shows."""

    focus: Point
    """The scene point in the middle of the picture."""
    span: float
    """Side of the (square) picture in scene units."""
    tilt: float = 0.0
    """Radians, clockwise."""
    mirrored: bool = False

    def affine(self, pixels: int) -> Affine:
        """The map from scene units to pixels of a picture with `pixels` a side."""
        scale = pixels / self.span
        cosine, sine = math.cos(self.tilt) * scale, math.sin(self.tilt) * scale
        flip = -1.0 if self.mirrored else 1.0
        a, b, d, e = flip * cosine, -sine, flip * sine, cosine
        focus_x, focus_y = self.focus
        return (a, b, pixels / 2 - a * focus_x - b * focus_y, d, e, pixels / 2 - d * focus_x - e * focus_y)


class Canvas:
    """Draws shapes given in scene units.

    Args:
        size: side of the finished picture in pixels.
        supersample: how many times finer than that the shapes are drawn, against jagged edges.
        camera: what the picture shows.
        style: how fills and contours look.
        rng: source of the wobble.
    """

    def __init__(self, *, size: int, supersample: int, camera: Camera, style: Style, rng: Random) -> None:
        self.style = style
        self._rng = rng
        self._supersample = supersample
        self._image = Image.new("RGB", (size * supersample, size * supersample), WHITE)
        self._draw = ImageDraw.Draw(self._image)
        self._set_affine(camera.affine(size * supersample))
        self._unit = self._scale
        """Pixels of the sheet per scene unit, whatever the scale of a placed canvas."""

    def _set_affine(self, affine: Affine) -> None:
        self._affine = affine
        a, b, _, d, e, _ = affine
        self._scale = math.sqrt(abs(a * e - b * d))

    def placed(self, at: Point, *, angle: float = 0.0, scale: float = 1.0, mirrored: bool = False) -> Canvas:
        """The same sheet with its origin moved to `at`, turned clockwise by `angle` radians and scaled."""
        cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
        flip = -1.0 if mirrored else 1.0
        a, b, c, d, e, f = self._affine
        p, q, r, s = flip * cosine, -sine, flip * sine, cosine
        child = object.__new__(Canvas)
        child.style, child._rng, child._supersample = self.style, self._rng, self._supersample
        child._image, child._draw, child._unit = self._image, self._draw, self._unit
        x, y = at
        child._set_affine(
            (a * p + b * r, a * q + b * s, a * x + b * y + c, d * p + e * r, d * q + e * s, d * x + e * y + f)
        )
        return child

    def _pixels(self, points: Iterable[Point]) -> list[Point]:
        a, b, c, d, e, f = self._affine
        wobble = self.style.wobble * self._unit
        if wobble:
            shift = self._rng.uniform
            return [
                (a * x + b * y + c + shift(-wobble, wobble), d * x + e * y + f + shift(-wobble, wobble))
                for x, y in points
            ]
        return [(a * x + b * y + c, d * x + e * y + f) for x, y in points]

    def _fill(self, colour: Colour) -> Colour:
        return mix(colour, WHITE, self.style.wash) if self.style.wash else colour

    def _contour(self, colour: Colour) -> Colour:
        return INK if self.style.wash else mix(darker(colour, 0.55), INK, 0.4)

    @property
    def _contour_pixels(self) -> float:
        return self.style.outline * self._unit

    def shape(self, points: Sequence[Point], colour: Colour, *, contour: bool = True) -> None:
        """Fill a polygon."""
        corners = self._pixels(points)
        self._draw.polygon(corners, fill=self._fill(colour))
        if contour and self.style.outline:
            width = max(1, round(self._contour_pixels))
            self._draw.line([*corners, corners[0], corners[1]], fill=self._contour(colour), width=width, joint="curve")

    def circle(self, centre: Point, radius: float, colour: Colour, *, contour: bool = True) -> None:
        """Fill a circle."""
        ((x, y),) = self._pixels([centre])
        reach = radius * self._scale
        if contour and self.style.outline:
            outer = reach + self._contour_pixels / 2
            self._draw.ellipse((x - outer, y - outer, x + outer, y + outer), fill=self._contour(colour))
            reach -= self._contour_pixels / 2
        if reach > 0:
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=self._fill(colour))

    def ellipse(
        self,
        centre: Point,
        width: float,
        height: float,
        colour: Colour,
        *,
        angle: float = 0.0,
        contour: bool = True,
    ) -> None:
        """Fill an ellipse given by its half axes."""
        cosine, sine = math.cos(angle), math.sin(angle)
        x, y = centre
        self.shape(
            [
                (x + u * width * cosine - v * height * sine, y + u * width * sine + v * height * cosine)
                for u, v in CIRCLE
            ],
            colour,
            contour=contour,
        )

    def box(self, centre: Point, width: float, height: float, colour: Colour, *, contour: bool = True) -> None:
        """Fill a rectangle given by its middle and full sides."""
        x, y = centre
        u, v = width / 2, height / 2
        self.shape([(x - u, y - v), (x + u, y - v), (x + u, y + v), (x - u, y + v)], colour, contour=contour)

    def limb(self, points: Sequence[Point], widths: Sequence[float], colour: Colour, *, contour: bool = True) -> None:
        """Draw a chain of rounded segments; `widths` are full widths at the points."""
        joints = self._pixels(points)
        radii = [width * self._scale / 2 for width in widths]
        if contour and self.style.outline:
            rim = self._contour_pixels
            self._chain(joints, [radius + rim for radius in radii], self._contour(colour))
        self._chain(joints, radii, self._fill(colour))
        if self.style.shading:
            offset = -0.35 if self._affine[0] > 0 else 0.35
            lit = lighter(self._fill(colour), self.style.shading * 0.7)
            shifted = [(x + offset * radius, y - 0.2 * radius) for (x, y), radius in zip(joints, radii, strict=True)]
            self._chain(shifted, [radius * 0.45 for radius in radii], lit)

    def _chain(self, joints: Sequence[Point], radii: Sequence[float], colour: Colour) -> None:
        for (x, y), radius in zip(joints, radii, strict=True):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        for index in range(len(joints) - 1):
            (x, y), (u, v) = joints[index], joints[index + 1]
            length = math.hypot(u - x, v - y)
            if length < 1e-6:
                continue
            across, along = -(v - y) / length, (u - x) / length
            r, s = radii[index], radii[index + 1]
            corners = [
                (x + across * r, y + along * r),
                (u + across * s, v + along * s),
                (u - across * s, v - along * s),
                (x - across * r, y - along * r),
            ]
            self._draw.polygon(corners, fill=colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw an open line without contour."""
        pixels = max(1, round(width * self._scale))
        fill = mix(colour, WHITE, self.style.wash * 0.4)
        self._draw.line(self._pixels(points), fill=fill, width=pixels, joint="curve")

    def arc(
        self,
        centre: Point,
        radius: float,
        start: float,
        end: float,
        width: float,
        colour: Colour,
        *,
        flat: float = 1.0,
    ) -> None:
        """Draw an open arc between two angles, clockwise from the x axis; `flat` is its height by width."""
        x, y = centre
        steps = [start + (end - start) * step / 10 for step in range(11)]
        self.line([(x + radius * math.cos(t), y + flat * radius * math.sin(t)) for t in steps], width, colour)

    def gradient(self, top: Colour, bottom: Colour) -> None:
        """Cover the whole sheet with a vertical gradient."""
        rows = np.linspace(0.0, 1.0, 32)[:, None] * (np.array(bottom) - np.array(top)) + np.array(top)
        strip = Image.fromarray(rows.astype(np.uint8)[:, None, :], "RGB")
        self._image.paste(strip.resize(self._image.size, Image.Resampling.BILINEAR), (0, 0))

    def finish(self) -> Image.Image:
        """The finished RGB picture, reduced to its size, with the style's tint, blur, contrast and noise."""
        style = self.style
        image = self._image.reduce(self._supersample)
        if style.blur > 0.05:
            image = image.filter(ImageFilter.GaussianBlur(style.blur))
        if style.tint_share > 0.01:
            image = Image.blend(image, Image.new("RGB", image.size, style.tint), style.tint_share)
        if style.grey:
            image = image.convert("L").convert("RGB")
        if abs(style.contrast - 1.0) > 0.01:
            image = ImageEnhance.Contrast(image).enhance(style.contrast)
        return self._with_noise(image) if style.noise > 0.1 else image

    def _with_noise(self, image: Image.Image) -> Image.Image:
        generator = np.random.default_rng(self._rng.getrandbits(32))
        grain = generator.standard_normal((image.height, image.width, 1), dtype=np.float32) * self.style.noise
        noisy = np.asarray(image, dtype=np.float32) + grain
        return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8), "RGB")
