"""Scenes of whole bodies in movement: clapping, cycling, dancing, fighting, hugging, running.

Each function opens the stage and draws one variant of its action, chosen by the stage's generator.
"""

from __future__ import annotations

import math

from clip_har.demo import furniture, props
from clip_har.demo.backgrounds import OUTDOOR
from clip_har.demo.canvas import Canvas
from clip_har.demo.figures import Figure, Looks
from clip_har.demo.heads import Expression
from clip_har.demo.stage import Stage
from clip_har.demo.style import WHITE, Point, lighter


def standing(
    looks: Looks,
    x: float = 0.0,
    *,
    lean: float = 0.0,
    turn: float = 0.0,
    nod: float = 0.0,
    expression: Expression = "neutral",
) -> Figure:
    """A person who stands on the ground line at x."""
    return Figure(looks, pelvis=(x, -0.5 * looks.height), lean=lean, turn=turn, nod=nod, expression=expression)


def _clapper(stage: Stage, looks: Looks, x: float) -> None:
    expression: Expression = stage.rng.choice(("smile", "smile", "laugh"))
    figure = standing(looks, x, nod=stage.jitter(0.12), expression=expression)
    apart, height = stage.rng.uniform(0.012, 0.05), stage.rng.uniform(0.14, 0.2)
    near, far = figure.body_point(-apart, height), figure.body_point(apart, height)
    figure.lift(near, far)
    figure.draw(stage.canvas)
    middle = figure.body_point(0.0, height)
    hand = 0.03 * figure.size
    for at, angle in ((near, 0.25), (far, -0.25)):
        stage.canvas.ellipse((at[0], at[1] - hand), hand * 0.62, hand * 1.5, looks.skin, angle=angle)
    tone = lighter(stage.rng.choice(props.BRIGHT), 0.2)
    if stage.chance(0.85):
        for side in (-1, 1):
            for slope in (-0.045, 0.0, 0.045):
                start, end = (
                    (middle[0] + side * 0.075, middle[1] - 0.04 + slope),
                    (middle[0] + side * 0.125, middle[1] - 0.04 + 2 * slope),
                )
                stage.canvas.line([start, end], 0.014, tone)


def clapping(stage: Stage) -> None:
    """One or two people who clap their hands in front of their chest."""
    pair = stage.chance(0.25)
    span = stage.rng.choice((0.7, 0.82, 1.0)) + (0.15 if pair else 0.0)
    stage.open(focus=(0.0, -0.42 - 0.3 / span), span=span, places=("room", "hall", "gym", "park", "plain"))
    for x in (-0.2, 0.2) if pair else (0.0,):
        stage.shadow(x)
        _clapper(stage, stage.looks(), x)


def cycling(stage: Stage) -> None:
    """A person who rides a bicycle."""
    stage.open(focus=(0.02, -0.56), span=stage.rng.uniform(1.15, 1.4), places=OUTDOOR)
    stage.shadow(0.0, 0.45)
    spots = furniture.bicycle(stage.canvas, 0.0, stage.rng.choice(stage.style.palette.clothes))
    x, y = spots["seat"]
    figure = Figure(
        stage.adult(),
        pelvis=(x, y - 0.035),
        lean=stage.rng.uniform(0.3, 0.75),
        turn=1.0,
        nod=-stage.rng.uniform(0.1, 0.4),
        expression=stage.rng.choice(("neutral", "smile")),
    )
    crank, pedals = stage.rng.uniform(0.0, math.tau), spots["pedals"]
    across, down = 0.075 * math.cos(crank), 0.075 * math.sin(crank)
    figure.step((pedals[0] + across, pedals[1] + down - 0.02), (pedals[0] - across, pedals[1] - down - 0.02))
    figure.reach(spots["grip"], spots["grip"], near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)
    if stage.chance(0.5):
        _helmet(stage, figure)
    if stage.chance(0.4):
        speed_lines(stage, -0.5, -0.6)


def _helmet(stage: Stage, figure: Figure) -> None:
    head = stage.canvas.placed(figure.head, angle=figure.tilt, scale=figure.head_radius)
    colour = stage.rng.choice(props.BRIGHT)
    rim = [
        (1.12 * math.cos(math.pi * (0.98 + step / 8)), 1.2 * math.sin(math.pi * (0.98 + step / 8))) for step in range(9)
    ]
    head.shape([*rim, (0.9, -0.4), (-0.9, -0.25)], colour)
    head.line([(-0.5, -1.0), (0.4, -1.08)], 0.12, lighter(colour, 0.5))


def speed_lines(stage: Stage, x: float, y: float) -> None:
    """Draw the lines that a fast movement leaves behind."""
    for step in range(3):
        start = x + stage.jitter(0.05)
        row = y + step * 0.17 + stage.jitter(0.03)
        stage.canvas.line([(start - 0.16, row), (start, row)], 0.012, WHITE)


def _dancer(stage: Stage, x: float) -> None:
    rng, looks = stage.rng, stage.looks()
    lean = stage.jitter(0.22)
    expression: Expression = rng.choice(("smile", "laugh", "blissful"))
    turn = rng.choice((0.0, 0.0, 0.25))
    figure = standing(looks, x, lean=lean, turn=turn, nod=stage.jitter(0.25), expression=expression)
    size, ground = looks.height, -0.02
    moves: tuple[tuple[Point, Point], ...] = (
        ((-0.26, 0.46), (0.24, 0.5)),
        ((-0.13, 0.02), (0.24, 0.5)),
        ((-0.34, 0.3), (0.34, 0.26)),
        ((-0.05, 0.58), (0.06, 0.58)),
        ((-0.3, 0.12), (0.2, 0.48)),
    )
    (near_x, near_up), (far_x, far_up) = rng.choice(moves)
    figure.reach(
        figure.body_point(near_x + stage.jitter(0.05), near_up + stage.jitter(0.05)),
        figure.body_point(far_x + stage.jitter(0.05), far_up + stage.jitter(0.05)),
        near_side=-1.0 if near_up > 0.35 else 1.0,
        far_side=1.0 if far_up > 0.35 else -1.0,
    )
    kicks: tuple[tuple[Point, Point], ...] = (
        ((-0.13, ground), (0.13, ground)),
        ((-0.03, ground), (0.3 * size, -0.28 * size)),
        ((-0.04, ground), (0.1 * size, -0.22 * size)),
        ((-0.2, ground), (0.06, ground)),
    )
    (near_foot, near_down), (far_foot, far_down) = rng.choice(kicks)
    figure.step((x + near_foot, near_down), (x + far_foot, far_down), near_side=1.0, far_side=-1.0)
    figure.draw(stage.canvas)


def dancing(stage: Stage) -> None:
    """One to three people who dance."""
    count = stage.rng.choice((1, 1, 1, 2, 2, 3))
    span = 1.3 + 0.12 * (count - 1)
    stage.open(focus=(0.0, -0.58), span=span, places=("hall", "hall", "room", "gym", "park", "street"))
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.42
        stage.shadow(x)
        _dancer(stage, x)
    if stage.chance(0.4):
        for side in (-1, 1):
            at = (side * stage.rng.uniform(0.36, 0.5), stage.rng.uniform(-1.05, -0.8))
            props.note(stage.canvas, at, stage.rng.choice(props.BRIGHT), double=stage.chance(0.5))


def _fighter(stage: Stage, canvas: Canvas, *, attacks: bool, gap: float) -> Figure:
    """Draw a fighter at x = 0 who faces +x, with an opponent `gap` away."""
    expression: Expression = "shout" if attacks else stage.rng.choice(("frown", "shout"))
    lean = stage.rng.uniform(0.12, 0.32) if attacks else -stage.rng.uniform(0.05, 0.3)
    figure = standing(stage.adult(), 0.0, lean=lean, turn=0.85, nod=stage.jitter(0.1), expression=expression)
    figure.step((-0.16, -0.02), (0.15, -0.02))
    guard = figure.body_point(0.15, 0.33)
    if attacks and stage.chance(0.35):
        figure.step((-0.08, -0.02), (gap - 0.08, -0.62), far_side=-1.0)
        figure.reach(guard, figure.body_point(0.1, 0.25))
    elif attacks:
        figure.reach((gap - 0.1, -0.88 + stage.jitter(0.08)), guard, near_side=1.0, far_side=1.0)
    else:
        figure.reach(guard, figure.body_point(0.13, 0.4 + stage.jitter(0.06)), near_side=1.0, far_side=1.0)
    figure.draw(canvas)
    if stage.chance(0.3):
        for hand in (figure.far_hand, figure.near_hand):
            canvas.circle(hand, 0.048, (196, 44, 44))
    return figure


def fighting(stage: Stage) -> None:
    """Two people who hit or kick each other."""
    stage.open(
        focus=(0.0, -0.52),
        span=stage.rng.uniform(1.15, 1.35),
        places=("street", "gym", "park", "room", "plain"),
    )
    gap = stage.rng.uniform(0.4, 0.48)
    for x in (-gap / 2, gap / 2):
        stage.shadow(x)
    _fighter(stage, stage.canvas.placed((gap / 2, 0.0), mirrored=True), attacks=False, gap=gap)
    _fighter(stage, stage.canvas.placed((-gap / 2, 0.0)), attacks=True, gap=gap)
    if stage.chance(0.7):
        props.burst(stage.canvas, (gap / 2 - 0.09, -0.92 + stage.jitter(0.08)), stage.rng.uniform(0.06, 0.1))


def _embrace(stage: Stage) -> None:
    """Two people who face and hold each other."""
    first = stage.adult()
    second = stage.looks(child=True) if stage.chance(0.25) else stage.adult()
    gap = 0.15
    left = standing(first, -gap / 2, turn=0.75, lean=0.1, nod=0.12, expression="blissful")
    right = standing(second, 0.0, turn=0.75, lean=0.1, nod=0.12, expression="blissful")
    canvas = stage.canvas.placed((gap / 2, 0.0), mirrored=True)
    stand_in = second.height
    left.reach((0.15, -0.7 * stand_in), (0.12, -0.6 * stand_in), near_side=1.0, far_side=1.0)
    right.reach((0.2, -0.58 * stand_in), (0.2, -0.7 * stand_in), near_side=1.0, far_side=1.0)
    left.draw_far_side(stage.canvas)
    right.draw_far_side(canvas)
    left.draw_near_arm(stage.canvas)
    right.draw_near_arm(canvas)


def _side_hug(stage: Stage) -> None:
    """Two people side by side, each with an arm around the other."""
    left = standing(stage.adult(), -0.12, lean=0.06, nod=0.16, expression=stage.rng.choice(("smile", "laugh")))
    right = standing(stage.adult(), 0.12, lean=-0.06, nod=-0.16, expression=stage.rng.choice(("smile", "blissful")))
    left.reach(near=(0.02, -0.62), far=(0.25, -0.76), far_side=-1.0)
    right.reach(near=(-0.24, -0.62), far=(-0.02, -0.6))
    left.draw(stage.canvas)
    right.draw(stage.canvas)
    hand = left.looks.skin
    stage.canvas.limb([(0.2, -0.79), (0.23, -0.71)], [0.04, 0.036], hand)


def hugging(stage: Stage) -> None:
    """Two people in each other's arms."""
    span = stage.rng.choice((0.8, 0.95, 1.2))
    stage.open(focus=(0.0, -0.42 - 0.26 / span), span=span, places=("room", "park", "street", "beach", "plain"))
    stage.shadow(0.0, 0.26)
    if stage.chance(0.7):
        _embrace(stage)
    else:
        _side_hug(stage)
    if stage.chance(0.35):
        props.heart(stage.canvas, (stage.jitter(0.1), -1.12), 0.05)


def _runner(stage: Stage, x: float) -> None:
    rng, looks = stage.rng, stage.looks()
    size = looks.height
    lean = rng.uniform(0.12, 0.35)
    figure = standing(looks, x, lean=lean, turn=1.0, nod=-0.1, expression=rng.choice(("neutral", "smile", "chew")))
    strides: tuple[tuple[Point, Point], ...] = (
        ((0.3, -0.1), (-0.36, -0.2)),
        ((-0.32, -0.16), (0.2, -0.2)),
        ((-0.04, -0.02), (-0.24, -0.3)),
        ((0.1, -0.24), (-0.22, -0.04)),
    )
    (near_x, near_y), (far_x, far_y) = rng.choice(strides)
    figure.step((x + near_x * size, near_y * size), (x + far_x * size, far_y * size))
    forward, back = (
        figure.body_point(0.2, 0.2 + stage.jitter(0.04)),
        figure.body_point(-0.14, 0.1 + stage.jitter(0.03)),
    )
    hands = (back, forward) if near_x > 0 else (forward, back)
    figure.reach(*hands, near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)


def running(stage: Stage) -> None:
    """One or two people who run."""
    pair = stage.chance(0.2)
    span = stage.rng.uniform(1.15, 1.35) + (0.15 if pair else 0.0)
    stage.open(focus=(0.0, -0.52), span=span, places=("park", "park", "street", "gym", "beach"))
    for x in (-0.3, 0.28) if pair else (0.0,):
        stage.shadow(x)
        _runner(stage, x)
    if stage.chance(0.6):
        speed_lines(stage, -0.36 - (0.3 if pair else 0.0), -0.7)
