"""Scenes seen from near, where hands and faces tell the action: from calling to texting.

Each function opens the stage and draws one variant of its action, chosen by the stage's generator.
"""

from __future__ import annotations

from clip_har.demo import furniture, props
from clip_har.demo.backgrounds import INDOOR, OUTDOOR
from clip_har.demo.figures import Figure
from clip_har.demo.heads import Expression
from clip_har.demo.scenes_active import standing
from clip_har.demo.stage import Stage
from clip_har.demo.style import Point

ANYWHERE: tuple[str, ...] = tuple(name for name in dict.fromkeys((*INDOOR, *OUTDOOR)) if name != "gym")


def _open_near(stage: Stage, spans: tuple[float, ...], places: tuple[str, ...] = ANYWHERE) -> None:
    """Point the camera at the upper body; wider spans show more of the legs."""
    span = stage.rng.choice(spans)
    stage.open(focus=(0.03, -1.06 + 0.45 * span), span=span, places=places)
    stage.shadow(0.0)


def calling(stage: Stage) -> None:
    """A person with a mobile phone at the ear."""
    _open_near(stage, (0.7, 0.85, 1.1))
    turn = stage.rng.choice((0.0, 0.3, 0.45, 1.0))
    expression: Expression = stage.rng.choice(("neutral", "smile", "chew", "chew"))
    figure = standing(stage.adult(), turn=turn, nod=-stage.rng.uniform(0.0, 0.15), expression=expression)
    ear = figure.ear
    hand = (ear[0] - 0.012 + 0.02 * turn, ear[1] + 0.045 + 0.02 * turn)
    figure.reach(hand, near_side=1.0 if turn > 0.8 else -1.0)
    if stage.chance(0.4):
        figure.reach(far=figure.body_point(0.13, 0.03) if stage.chance(0.5) else figure.body_point(0.26, 0.2))

    def draw_phone() -> None:
        angle = figure.tilt + (0.35 if turn > 0.8 else 0.12)
        props.phone(stage.canvas, (ear[0] - 0.018 * (1 - turn), ear[1] + 0.02), angle=angle, screen=stage.chance(0.3))

    if turn > 0.8:
        figure.draw(stage.canvas)
        draw_phone()
    else:
        figure.draw(stage.canvas, between=draw_phone)


def drinking(stage: Stage) -> None:
    """A person who drinks from a cup, a glass or a bottle."""
    seated = stage.chance(0.3)
    _open_near(stage, (0.66, 0.8, 1.0), places=("kitchen", "room", "park", "office", "street", "plain"))
    turn = stage.rng.choice((0.0, 0.4, 1.0, 1.0))
    figure = standing(
        stage.adult(),
        turn=turn,
        nod=-stage.rng.uniform(0.15, 0.4) * (1.0 if turn else 0.3),
        expression="blissful",
    )
    if stage.chance(0.5):
        figure.expression = "neutral"
    mouth = figure.mouth
    kind = stage.rng.choice(("cup", "glass", "bottle"))
    colour = stage.rng.choice(props.BRIGHT)
    if turn < 0.3:
        at, angle = (mouth[0] + 0.005, mouth[1] + 0.05), -0.15
    else:
        angle = -stage.rng.uniform(0.9, 1.5) if kind != "bottle" else -stage.rng.uniform(1.5, 2.0)
        ahead = 0.045 if kind != "bottle" else 0.105
        at = (mouth[0] + ahead, mouth[1] + 0.012 - (0.015 if kind == "bottle" else 0.0))
    if turn < 0.6:
        figure.lift((at[0] - 0.03, at[1] + 0.02))
    else:
        figure.reach((at[0] - 0.02, at[1] + 0.025), near_side=1.0)

    def draw_vessel() -> None:
        if kind == "cup":
            props.cup(stage.canvas, at, colour, angle=angle)
        elif kind == "glass":
            props.glass(stage.canvas, at, colour, angle=angle, straw=turn < 0.3)
        else:
            props.bottle(stage.canvas, (at[0], at[1] + (0.07 if turn < 0.3 else 0.0)), colour, angle=angle)

    figure.draw(stage.canvas, between=draw_vessel)
    if seated:
        furniture.counter(stage.canvas, 0.15, stage.rng.choice(stage.style.palette.floors), height=0.55, width=0.9)


def _laugher(stage: Stage, x: float) -> None:
    nod = stage.rng.choice((-1, 1)) * stage.rng.uniform(0.08, 0.32)
    turn = stage.rng.choice((0.0, 0.0, 0.3))
    figure = standing(stage.adult(), x, turn=turn, lean=nod * 0.4, nod=nod, expression="laugh")
    gestures: tuple[tuple[Point, Point], ...] = (
        ((-0.02, 0.09), (0.03, 0.05)),
        ((-0.02, 0.09), (0.2, 0.0)),
        ((-0.16, 0.0), (0.04, 0.08)),
        ((0.0, 0.1), (0.28, 0.2)),
    )
    (near_x, near_up), (far_x, far_up) = stage.rng.choice(gestures)
    figure.reach(figure.body_point(near_x, near_up), figure.body_point(far_x, far_up))
    figure.draw(stage.canvas)
    if stage.chance(0.35):
        for side in (-1, 1):
            tear = figure.head_point(side * 0.75, 0.1)
            stage.canvas.ellipse(tear, 0.012, 0.02, (120, 190, 240), contour=False)
    if stage.chance(0.4):
        props.rays(
            stage.canvas,
            figure.head,
            figure.head_radius * 1.35,
            figure.head_radius * 1.65,
            (250, 214, 90),
            count=6,
        )


def laughing(stage: Stage) -> None:
    """One or two people who laugh out loud."""
    pair = stage.chance(0.25)
    _open_near(stage, (0.75, 0.9) if pair else (0.52, 0.62, 0.8))
    for x in (-0.17, 0.17) if pair else (0.0,):
        _laugher(stage, x)


def listening_to_music(stage: Stage) -> None:
    """A person with headphones or earphones, often with notes around."""
    _open_near(stage, (0.62, 0.72, 0.9))
    turn = stage.rng.choice((0.0, 0.0, 0.4, 1.0))
    expression: Expression = stage.rng.choice(("blissful", "smile", "asleep"))
    figure = standing(stage.adult(), turn=turn, nod=stage.jitter(0.22), expression=expression)
    worn = stage.chance(0.75)
    colour = stage.rng.choice((*props.BRIGHT, (40, 42, 50), (236, 236, 236)))
    if worn and turn < 0.8 and stage.chance(0.5):
        ear = figure.ear
        figure.reach((ear[0] - 0.02, ear[1] + 0.02), near_side=-1.0)
        if turn < 0.3:
            far_ear = figure.head_point(1.0, 0.1)
            figure.reach(far=(far_ear[0] + 0.02, far_ear[1]), far_side=1.0)
    head = stage.canvas.placed(figure.head, angle=figure.tilt, scale=figure.head_radius)

    def draw_gear() -> None:
        if worn:
            props.headphones(head, colour, turn)
        else:
            props.earphones(head, turn, (0.2, 3.4))

    figure.draw(stage.canvas, between=draw_gear)
    if not worn:
        props.phone(stage.canvas, figure.body_point(0.02, 0.06), angle=0.2)
    if stage.chance(0.75):
        for side in (-1, 1):
            at = (
                figure.head[0] + side * stage.rng.uniform(0.17, 0.24),
                figure.head[1] - stage.rng.uniform(-0.05, 0.1),
            )
            props.note(stage.canvas, at, stage.rng.choice(props.BRIGHT), size=0.05, double=stage.chance(0.5))


def texting(stage: Stage) -> None:
    """A person who looks down at a phone held in one or both hands."""
    _open_near(stage, (0.7, 0.85, 1.05))
    turn = stage.rng.choice((0.0, 0.35, 1.0, 1.0))
    nod = stage.rng.uniform(0.2, 0.42) if turn > 0.2 else stage.jitter(0.1)
    figure = standing(stage.adult(), turn=turn, nod=nod, expression=stage.rng.choice(("neutral", "smile")))
    figure.gaze = (0.6 * turn, 1.0)
    height = stage.rng.uniform(0.16, 0.23)
    at = figure.body_point(0.02 + 0.2 * turn, height)
    both = stage.chance(0.6)
    figure.reach(
        (at[0] - 0.03, at[1] + 0.03),
        (at[0] + 0.03, at[1] + 0.03) if both else None,
        far_side=-1.0 if turn < 0.8 else 1.0,
    )
    if turn < 0.3:
        figure.draw(stage.canvas)
        props.phone(stage.canvas, (at[0], at[1] - 0.01), angle=stage.jitter(0.2), screen=stage.chance(0.5))
        thumbs(stage, figure)
    else:
        figure.draw(stage.canvas, between=lambda: props.phone(stage.canvas, at, angle=0.35 + 0.25 * turn))
    if stage.chance(0.45):
        spot = (at[0] + 0.17, at[1] - 0.14 - 0.1 * (turn < 0.3))
        props.bubble(
            stage.canvas,
            spot,
            stage.rng.choice(((250, 250, 250), (150, 220, 150), (150, 205, 245))),
            size=0.06,
        )


def thumbs(stage: Stage, figure: Figure) -> None:
    """Draw the thumbs over something that is held in front of the body."""
    for x, y in (figure.near_hand, figure.far_hand):
        stage.canvas.circle((x, y - 0.008), 0.018, figure.looks.skin)
