"""How a scene is rendered: colours, palettes and the knobs that set one drawing style apart from another.

No drawing happens here, and nothing about what a scene shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

Point = tuple[float, float]
"""x to the right and y DOWN, in scene units: an adult is 1 high and the ground is at y = 0."""

Colour = tuple[int, int, int]
"""Red, green, blue in [0, 255]."""

Range = tuple[float, float]
"""Lowest and highest value, drawn uniformly."""

WHITE: Colour = (250, 250, 248)
INK: Colour = (38, 36, 44)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour `share` of the way (in [0, 1]) from the first to the second."""
    return (
        round(first[0] + (second[0] - first[0]) * share),
        round(first[1] + (second[1] - first[1]) * share),
        round(first[2] + (second[2] - first[2]) * share),
    )


def darker(colour: Colour, share: float = 0.25) -> Colour:
    """The colour moved towards black."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """The colour moved towards white."""
    return mix(colour, (255, 255, 255), share)


def vary(colour: Colour, rng: Random, spread: int = 14) -> Colour:
    """The colour with each channel moved by at most `spread`."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in colour)
    return (red, green, blue)


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours that a drawing style takes its people and places from."""

    skins: tuple[Colour, ...]
    hairs: tuple[Colour, ...]
    clothes: tuple[Colour, ...]
    walls: tuple[Colour, ...]
    floors: tuple[Colour, ...]
    skies: tuple[Colour, ...]
    greens: tuple[Colour, ...]


DEMO_PALETTE = Palette(
    skins=((247, 212, 184), (232, 188, 150), (205, 152, 112), (160, 108, 74), (112, 74, 52), (84, 56, 42)),
    hairs=((36, 28, 26), (72, 46, 32), (112, 70, 40), (190, 146, 84), (150, 62, 36), (150, 148, 146)),
    clothes=(
        (196, 62, 58),
        (54, 96, 168),
        (58, 138, 104),
        (226, 176, 66),
        (122, 84, 150),
        (236, 234, 226),
        (58, 62, 78),
        (214, 118, 74),
        (96, 156, 184),
        (206, 126, 150),
        (134, 142, 86),
        (122, 92, 70),
    ),
    walls=(
        (222, 212, 194),
        (198, 212, 214),
        (214, 202, 212),
        (204, 214, 192),
        (236, 226, 206),
        (186, 192, 202),
    ),
    floors=((166, 126, 90), (142, 112, 88), (186, 162, 132), (134, 134, 138), (196, 176, 152)),
    skies=((176, 212, 236), (206, 226, 238), (236, 214, 190), (190, 200, 214)),
    greens=((116, 164, 92), (90, 142, 82), (142, 172, 96), (74, 122, 84)),
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """One way of rendering, sampled anew for each image."""

    palette: Palette
    outline: float = 0.0
    """Width of the contours in scene units; 0 draws none."""
    wash: float = 0.0
    """How far fills are moved towards white, in [0, 1]: 0.8 looks like a tinted pencil sketch."""
    silhouette: bool = False
    """Draw people as one dark shape without faces."""
    shading: float = 0.0
    """Strength in [0, 1] of the shadowed side of limbs and bodies."""
    wobble: float = 0.0
    """Largest displacement of a contour point, in scene units, as of an unsteady hand."""
    head_scale: float = 1.0
    girth: float = 1.0
    """Thickness of limbs and bodies relative to the standard figure."""
    texture: float = 0.0
    """Strength in [0, 1] of the pattern on backgrounds."""
    noise: float = 0.0
    """Standard deviation of the luminance noise, in grey levels of 255."""
    blur: float = 0.0
    """Radius of the Gaussian blur, in pixels of the finished image."""
    tint: Colour = (255, 255, 255)
    tint_share: float = 0.0
    contrast: float = 1.0
    grey: bool = False


@dataclass(frozen=True, kw_only=True)
class StyleRanges:
    """What the styles of one set of images are drawn from."""

    palettes: tuple[Palette, ...]
    outline: Range = (0.0, 0.0)
    outline_share: float = 0.0
    """Fraction of images with contours at all."""
    wash_share: float = 0.0
    """Fraction of images drawn as sketches (always with contours)."""
    silhouette_share: float = 0.0
    grey_share: float = 0.0
    shading: Range = (0.0, 0.0)
    wobble: Range = (0.0, 0.0)
    head_scale: Range = (1.0, 1.0)
    girth: Range = (1.0, 1.0)
    texture: Range = (0.0, 0.0)
    noise: Range = (0.0, 0.0)
    blur: Range = (0.0, 0.0)
    tint_share: Range = (0.0, 0.0)
    contrast: Range = (1.0, 1.0)

    def sample(self, rng: Random) -> Style:
        """Draw the style of one image."""
        sketched = rng.random() < self.wash_share
        contoured = sketched or rng.random() < self.outline_share
        outline = rng.uniform(*self.outline) if contoured else 0.0
        return Style(
            palette=rng.choice(self.palettes),
            outline=outline,
            wash=rng.uniform(0.6, 0.95) if sketched else 0.0,
            silhouette=rng.random() < self.silhouette_share,
            shading=rng.uniform(*self.shading),
            wobble=rng.uniform(*self.wobble),
            head_scale=rng.uniform(*self.head_scale),
            girth=rng.uniform(*self.girth),
            texture=rng.uniform(*self.texture),
            noise=rng.uniform(*self.noise),
            blur=rng.uniform(*self.blur),
            tint=(rng.randint(120, 255), rng.randint(120, 255), rng.randint(120, 255)),
            tint_share=rng.uniform(*self.tint_share),
            contrast=rng.uniform(*self.contrast),
            grey=rng.random() < self.grey_share,
        )


DEMO_STYLES = StyleRanges(
    palettes=(DEMO_PALETTE,),
    outline=(0.004, 0.007),
    outline_share=0.25,
    shading=(0.12, 0.3),
    head_scale=(0.95, 1.12),
    girth=(0.88, 1.18),
    texture=(0.0, 0.3),
    noise=(0.0, 5.0),
    tint_share=(0.0, 0.12),
    contrast=(0.9, 1.1),
)
