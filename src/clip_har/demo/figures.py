"""People as jointed figures: their looks, their pose, and how they are drawn.

What a person holds and where they are is put together elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from clip_har.demo import heads
from clip_har.demo.canvas import Canvas
from clip_har.demo.heads import HAIR_STYLES, Expression, Hair
from clip_har.demo.style import Colour, Point, Style, darker, vary

THIGH, SHIN = 0.245, 0.235
UPPER_ARM, FOREARM = 0.17, 0.155
SPINE, NECK = 0.28, 0.045
SHOULDER, HIP = 0.105, 0.055
"""Half widths of a figure that faces the viewer."""
HEAD = 0.092
"""Radius. All lengths are fractions of the height of an adult."""

SILHOUETTE: Colour = (34, 34, 44)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What one person looks like, whatever they do."""

    skin: Colour
    hair_colour: Colour
    hair: Hair
    top: Colour
    bottom: Colour
    shoes: Colour
    long_sleeves: bool = True
    lower: str = "trousers"
    """"trousers", "shorts" or "skirt"."""
    striped: bool = False
    bearded: bool = False
    glasses: bool = False
    height: float = 1.0
    head_scale: float = 1.0
    girth: float = 1.0


def sample_looks(rng: Random, style: Style, *, child: bool = False) -> Looks:
    """Draw a person's looks from the style's palette."""
    palette = style.palette
    hair = rng.choice(HAIR_STYLES)
    top, bottom = rng.sample(palette.clothes, 2)
    masculine = hair in ("short", "bald", "cap")
    looks = Looks(
        skin=vary(rng.choice(palette.skins), rng, 8),
        hair_colour=vary(rng.choice(palette.hairs), rng, 10),
        hair=hair,
        top=vary(top, rng),
        bottom=vary(darker(bottom, rng.uniform(0.0, 0.4)), rng),
        shoes=vary(rng.choice(((40, 38, 42), (236, 236, 232), (110, 66, 44), (176, 52, 48))), rng),
        long_sleeves=rng.random() < 0.55,
        lower=rng.choice(("trousers", "trousers", "shorts") if masculine else ("trousers", "shorts", "skirt")),
        striped=rng.random() < 0.18,
        bearded=masculine and not child and rng.random() < 0.25,
        glasses=rng.random() < 0.14,
        height=rng.uniform(0.66, 0.78) if child else rng.uniform(0.94, 1.05),
        head_scale=style.head_scale * (1.22 if child else 1.0),
        girth=style.girth * rng.uniform(0.9, 1.12),
    )
    return _silhouette(looks) if style.silhouette else looks


def _silhouette(looks: Looks) -> Looks:
    ink = dict.fromkeys(("skin", "hair_colour", "top", "bottom", "shoes"), SILHOUETTE)
    return replace(looks, **ink, striped=False, bearded=False, glasses=False)  # type: ignore[arg-type]


def bend(start: Point, target: Point, first: float, second: float, side: float) -> tuple[Point, Point]:
    """Place the two bones of a limb so that it reaches for `target`.

    Args:
        start: where the limb is attached.
        target: where its end should be; a target out of reach is reached for.
        first: length of the upper bone.
        second: length of the lower bone.
        side: +1 or -1, the side of the line from start to target to which the joint bends.

    Returns:
        The joint (elbow or knee) and the end (hand or ankle).
    """
    across, down = target[0] - start[0], target[1] - start[1]
    wanted = math.hypot(across, down) or 1e-6
    reach = min(max(wanted, abs(first - second) + 1e-3), (first + second) * 0.998)
    direction = math.atan2(down, across)
    cosine = (first * first + reach * reach - second * second) / (2 * first * reach)
    angle = direction + side * math.acos(max(-1.0, min(1.0, cosine)))
    joint = (start[0] + first * math.cos(angle), start[1] + first * math.sin(angle))
    end = (start[0] + reach * math.cos(direction), start[1] + reach * math.sin(direction))
    return joint, end


class Figure:
    """One posed person. Set the pose through the attributes and methods, then draw.

    "near" is the person's side nearer to the viewer, or at smaller x when they face the viewer.

    Args:
        looks: what the person looks like.
        pelvis: the middle of the hips.
        lean: tilt of the trunk in radians, clockwise (towards +x).
        turn: 0 faces the viewer, 1 faces +x.
        nod: tilt of the head against the trunk in radians, clockwise.
        expression: what the face shows.
    """

    def __init__(
        self,
        looks: Looks,
        *,
        pelvis: Point = (0.0, -0.5),
        lean: float = 0.0,
        turn: float = 0.0,
        nod: float = 0.0,
        expression: Expression = "neutral",
    ) -> None:
        self.looks = looks
        self.size = looks.height
        self.pelvis = pelvis
        self.lean = lean
        self.turn = turn
        self.tilt = lean + nod
        self.expression: Expression = expression
        self.gaze: Point = (turn, 0.2)
        self.chest = self.body_point(0.0, SPINE)
        neck = self.body_point(0.0, SPINE + NECK)
        self.head_radius = HEAD * looks.head_scale * self.size
        rise = self.head_radius * 0.95
        self.head = (neck[0] + rise * math.sin(self.tilt), neck[1] - rise * math.cos(self.tilt))
        width = SHOULDER * (1 - 0.72 * turn) * (0.7 + 0.3 * looks.girth)
        self.near_shoulder = self.body_point(-width, SPINE - 0.02)
        self.far_shoulder = self.body_point(width, SPINE - 0.02)
        hip = HIP * (1 - 0.7 * turn)
        self.near_hip = self.body_point(-hip, 0.0)
        self.far_hip = self.body_point(hip, 0.0)
        self.near_arm = self.arm(self.near_shoulder, self.body_point(-width - 0.045, -0.055), 1.0)
        self.far_arm = self.arm(self.far_shoulder, self.body_point(width + 0.045, -0.055), -1.0)
        self.stand()

    def body_point(self, right: float, up: float) -> Point:
        """A point given along the trunk from the pelvis, in the person's own size."""
        cosine, sine = math.cos(self.lean) * self.size, math.sin(self.lean) * self.size
        return (self.pelvis[0] + right * cosine + up * sine, self.pelvis[1] + right * sine - up * cosine)

    def head_point(self, right: float, down: float) -> Point:
        """A point given in the head's own frame."""
        cosine, sine = math.cos(self.tilt) * self.head_radius, math.sin(self.tilt) * self.head_radius
        return (self.head[0] + right * cosine - down * sine, self.head[1] + right * sine + down * cosine)

    @property
    def ear(self) -> Point:
        return self.head_point(*heads.ear_position(self.turn))

    @property
    def mouth(self) -> Point:
        return self.head_point(*heads.mouth_position(self.turn))

    @property
    def near_hand(self) -> Point:
        return self.near_arm[1]

    @property
    def far_hand(self) -> Point:
        return self.far_arm[1]

    def arm(self, shoulder: Point, target: Point, side: float) -> tuple[Point, Point]:
        """Elbow and hand of an arm that reaches for `target`."""
        return bend(shoulder, target, UPPER_ARM * self.size, FOREARM * self.size, side)

    def reach(
        self,
        near: Point | None = None,
        far: Point | None = None,
        *,
        near_side: float = 1.0,
        far_side: float = -1.0,
    ) -> None:
        """Reach for points with one or both hands; the sides say which way the elbows bend."""
        if near is not None:
            self.near_arm = self.arm(self.near_shoulder, near, near_side)
        if far is not None:
            self.far_arm = self.arm(self.far_shoulder, far, far_side)

    def lift(self, near: Point | None = None, far: Point | None = None) -> None:
        """Bring hands up in front of the body: elbows beside it, forearms towards the viewer."""
        drop, aside = 0.135, 0.035
        if near is not None:
            x, y = self.near_shoulder
            self.near_arm = ((x - aside * self.size, y + drop * self.size), near)
        if far is not None:
            x, y = self.far_shoulder
            self.far_arm = ((x + aside * self.size, y + drop * self.size), far)

    def step(self, near: Point, far: Point, *, near_side: float = -1.0, far_side: float = -1.0) -> None:
        """Put the ankles at points; the sides say which way the knees bend."""
        thigh, shin = THIGH * self.size, SHIN * self.size
        self.near_leg = bend(self.near_hip, near, thigh, shin, near_side)
        self.far_leg = bend(self.far_hip, far, thigh, shin, far_side)

    def stand(self, spread: float = 0.05) -> None:
        """Stand with the feet `spread` to the sides of the hips, on a ground one leg below the pelvis."""
        down = (THIGH + SHIN - 0.004) * self.size
        near, far = self.near_hip, self.far_hip
        if self.turn > 0.6:
            self.step((near[0] - spread, near[1] + down), (far[0] + spread, far[1] + down))
        else:
            ankles = (
                (near[0] - spread * self.size, near[1] + down),
                (far[0] + spread * self.size, far[1] + down),
            )
            self.step(*ankles, near_side=1.0)

    def draw(self, canvas: Canvas, *, between: Callable[[], None] | None = None) -> None:
        """Draw the person; `between` draws what is in front of the trunk but behind the near arm."""
        self.draw_far_side(canvas)
        if between is not None:
            between()
        self.draw_near_arm(canvas)

    def draw_far_side(self, canvas: Canvas) -> None:
        """Draw everything but the near arm (and the far arm, too, when the person faces the viewer)."""
        frontal = self.turn < 0.3
        if not frontal:
            self._draw_arm(canvas, self.far_shoulder, self.far_arm, shade=0.14)
        self._draw_leg(canvas, self.far_hip, self.far_leg, shade=0.14)
        head = canvas.placed(self.head, angle=self.tilt, scale=self.head_radius)
        heads.draw_back_hair(head, self.looks.hair, self.looks.hair_colour, self.turn)
        self._draw_leg(canvas, self.near_hip, self.near_leg, shade=0.0)
        self._draw_trunk(canvas)
        self._draw_head(head)

    def draw_near_arm(self, canvas: Canvas) -> None:
        """Draw the near arm, and the far arm when the person faces the viewer."""
        if self.turn < 0.3:
            self._draw_arm(canvas, self.far_shoulder, self.far_arm, shade=0.06)
        self._draw_arm(canvas, self.near_shoulder, self.near_arm, shade=0.06)

    def _draw_head(self, head: Canvas) -> None:
        looks = self.looks
        skin, hair = looks.skin, looks.hair_colour
        heads.draw_head_shape(head, skin, self.turn)
        if head.style.silhouette:
            heads.draw_hair(head, looks.hair, hair, self.turn)
            return
        if looks.bearded:
            heads.draw_beard(head, hair, self.turn)
        heads.draw_face(head, self.expression, turn=self.turn, gaze=self.gaze, skin=skin, hair=hair)
        heads.draw_hair(head, looks.hair, hair, self.turn)
        if looks.glasses:
            heads.draw_glasses(head, self.turn)

    def _draw_arm(self, canvas: Canvas, shoulder: Point, arm: tuple[Point, Point], *, shade: float) -> None:
        looks = self.looks
        width = 0.058 * looks.girth * self.size
        skin = darker(looks.skin, shade)
        cloth = darker(looks.top, shade)
        elbow, hand = arm
        canvas.limb(
            [shoulder, elbow, hand],
            [width, width * 0.88, width * 0.74],
            cloth if looks.long_sleeves else skin,
        )
        if not looks.long_sleeves:
            middle = ((shoulder[0] + 1.5 * elbow[0]) / 2.5, (shoulder[1] + 1.5 * elbow[1]) / 2.5)
            canvas.limb([shoulder, middle], [width * 1.12, width * 1.08], cloth)
        canvas.circle(hand, width * 0.52, skin)

    def _draw_leg(self, canvas: Canvas, hip: Point, leg: tuple[Point, Point], *, shade: float) -> None:
        looks = self.looks
        width = 0.088 * looks.girth * self.size
        cloth = darker(looks.bottom, shade)
        bare = darker(looks.skin, shade)
        knee, ankle = leg
        self._draw_foot(canvas, knee, ankle, shade=shade)
        lower = cloth if looks.lower == "trousers" else bare
        canvas.limb([hip, knee, ankle], [width, width * 0.78, width * 0.56], lower)
        if looks.lower != "trousers":
            end = (hip[0] + (knee[0] - hip[0]) * 0.85, hip[1] + (knee[1] - hip[1]) * 0.85)
            flare = 1.3 if looks.lower == "skirt" else 1.08
            canvas.limb([hip, end], [width * 1.08, width * flare], cloth)

    def _draw_foot(self, canvas: Canvas, knee: Point, ankle: Point, *, shade: float) -> None:
        across, down = ankle[0] - knee[0], ankle[1] - knee[1]
        length = math.hypot(across, down) or 1.0
        if self.turn > 0.3:
            toe = (down / length, -across / length)
        else:
            toe = (math.copysign(0.45, ankle[0] - self.pelvis[0]), 0.3)
        reach = 0.075 * self.size
        heel = (ankle[0] - toe[0] * 0.012, ankle[1] + 0.012)
        tip = (ankle[0] + toe[0] * reach, ankle[1] + toe[1] * reach + 0.014 * self.size)
        colour = darker(self.looks.shoes, shade)
        canvas.limb([heel, tip], [0.05 * self.size, 0.038 * self.size], colour)

    def _draw_trunk(self, canvas: Canvas) -> None:
        looks = self.looks
        skin = darker(looks.skin, 0.1)
        top = looks.top
        narrowing = 1 - 0.45 * self.turn
        shoulder = SHOULDER * (0.7 + 0.3 * looks.girth) * narrowing
        waist, hip = 0.078 * looks.girth * (1 - 0.2 * self.turn), 0.085 * looks.girth * (1 - 0.22 * self.turn)
        if looks.lower == "skirt":
            canvas.limb([self.near_hip, self.far_hip], [0.1 * self.size] * 2, looks.bottom)
        neck_width = 0.055 * self.size
        canvas.limb([self.body_point(0.0, SPINE - 0.02), self.head], [neck_width, neck_width], skin)
        outline = [
            (-hip, -0.035),
            (-waist, 0.1),
            (-shoulder - 0.012, SPINE - 0.035),
            (-shoulder + 0.02, SPINE + 0.008),
        ]
        half = [*outline, (-0.03, SPINE + 0.022)]
        contour = half + [(-x, y) for x, y in reversed(half)]
        canvas.shape([self.body_point(x, y) for x, y in contour], top)
        if canvas.style.shading:
            side = [
                (hip, -0.035),
                (waist, 0.1),
                (shoulder + 0.012, SPINE - 0.035),
                (shoulder * 0.55, SPINE - 0.03),
            ]
            shadow = [self.body_point(x, y) for x, y in [*side, (waist * 0.5, 0.1), (hip * 0.6, -0.035)]]
            canvas.shape(shadow, darker(top, canvas.style.shading * 0.6), contour=False)
        if looks.striped:
            self._draw_stripes(canvas, waist, darker(top, 0.3))

    def _draw_stripes(self, canvas: Canvas, waist: float, colour: Colour) -> None:
        for up in (0.05, 0.11, 0.17, 0.23):
            reach = waist + 0.05 * max(0.0, up - 0.08)
            canvas.line([self.body_point(-reach, up), self.body_point(reach, up)], 0.016 * self.size, colour)
