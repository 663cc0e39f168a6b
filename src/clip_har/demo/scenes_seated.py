"""Scenes at tables, on seats and in beds: eating, sitting, sleeping, using a laptop.

Each function opens the stage and draws one variant of its action, chosen by the stage's generator.
"""

from __future__ import annotations

import math

from clip_har.demo import furniture, props
from clip_har.demo.figures import Figure, Looks
from clip_har.demo.heads import Expression
from clip_har.demo.stage import Stage
from clip_har.demo.style import WHITE, Colour, darker, lighter, vary


def seated_aside(
    looks: Looks, x: float, *, lean: float = 0.0, nod: float = 0.0, expression: Expression = "neutral"
) -> Figure:
    """A person who sits on a seat 0.25 high at x, in side view facing +x."""
    figure = Figure(looks, pelvis=(x, -0.3), lean=lean, turn=0.95, nod=nod, expression=expression)
    figure.step((x + 0.25, -0.02), (x + 0.21, -0.02))
    return figure


def seated_front(
    looks: Looks, x: float, *, seat: float = 0.28, nod: float = 0.0, expression: Expression = "neutral"
) -> Figure:
    """A person who sits on a seat at x and faces the viewer."""
    figure = Figure(looks, pelvis=(x, -seat - 0.04), nod=nod, expression=expression)
    figure.near_leg = ((x - 0.1, -seat + 0.065), (x - 0.085, -0.02))
    figure.far_leg = ((x + 0.1, -seat + 0.065), (x + 0.085, -0.02))
    return figure


def _wood(stage: Stage) -> Colour:
    return darker(vary(stage.rng.choice(stage.style.palette.floors), stage.rng), 0.2)


def _cloth(stage: Stage) -> Colour:
    return vary(stage.rng.choice(stage.style.palette.clothes), stage.rng)


def _food_in_hand(stage: Stage, at: tuple[float, float], kind: str) -> None:
    if kind == "fork":
        props.fork(
            stage.canvas,
            at,
            angle=-0.9,
            food=stage.rng.choice(((196, 70, 48), (226, 176, 72), (94, 150, 66))),
        )
    elif kind == "burger":
        props.burger(stage.canvas, at)
    elif kind == "sandwich":
        props.sandwich(stage.canvas, at)
    elif kind == "pizza":
        props.pizza(stage.canvas, at, angle=math.pi + 0.3)
    else:
        props.apple(stage.canvas, at)


def _eating_front(stage: Stage) -> None:
    """Behind a table, facing the viewer."""
    figure = seated_front(
        stage.adult(), 0.0, nod=stage.jitter(0.1), expression=stage.rng.choice(("chew", "smile", "chew"))
    )
    figure.gaze = (0.0, 0.8)
    kind = stage.rng.choice(("fork", "burger", "sandwich", "pizza", "fork"))
    mouth = figure.mouth
    wood = _wood(stage)
    if kind == "fork":
        hand = (mouth[0] - 0.085, mouth[1] + 0.06)
        figure.lift(hand, (0.16, -0.46))
        figure.draw_far_side(stage.canvas)
        furniture.counter(stage.canvas, 0.0, wood, width=1.0)
        _table_ware(stage, 0.0)
        props.fork(stage.canvas, hand, angle=0.85, food=(196, 70, 48))
    else:
        at = (mouth[0], mouth[1] + 0.05)
        figure.lift((at[0] - 0.055, at[1] + 0.015), (at[0] + 0.055, at[1] + 0.015))
        figure.draw_far_side(stage.canvas)
        furniture.counter(stage.canvas, 0.0, wood, width=1.0)
        _table_ware(stage, 0.0)
        _food_in_hand(stage, at, kind)
    figure.draw_near_arm(stage.canvas)


def _table_ware(stage: Stage, x: float) -> None:
    rng = stage.rng
    if stage.chance(0.7):
        props.plate(stage.canvas, (x + stage.jitter(0.03), -0.455), rng)
    else:
        props.bowl(stage.canvas, (x, -0.5), rng.choice(props.BRIGHT))
    if stage.chance(0.5):
        props.glass(stage.canvas, (x + 0.24, -0.5), rng.choice(props.BRIGHT))


def _eating_aside(stage: Stage) -> None:
    """At a table, in side view."""
    wood = _wood(stage)
    furniture.chair(stage.canvas, -0.2, _cloth(stage))
    figure = seated_aside(stage.adult(), -0.2, lean=0.08, nod=0.1, expression="chew")
    kind = stage.rng.choice(("fork", "sandwich", "pizza", "burger"))
    mouth = figure.mouth
    ahead = 0.13 if kind == "fork" else 0.06
    at = (mouth[0] + ahead, mouth[1] + (0.06 if kind == "fork" else 0.01))
    figure.reach((at[0], at[1] + 0.015), (0.14, -0.46), near_side=1.0, far_side=1.0)
    figure.draw_far_side(stage.canvas)
    furniture.table(stage.canvas, 0.24, wood, width=0.56)
    props.plate(stage.canvas, (0.17, -0.455), stage.rng, width=0.11)
    if stage.chance(0.5):
        props.glass(stage.canvas, (0.38, -0.5), stage.rng.choice(props.BRIGHT))
    _food_in_hand(stage, at, kind)
    figure.draw_near_arm(stage.canvas)


def eating(stage: Stage) -> None:
    """A person who eats at a table."""
    places = ("kitchen", "kitchen", "room", "office", "park", "plain")
    if stage.chance(0.65):
        stage.open(focus=(0.0, -0.63), span=stage.rng.choice((0.62, 0.72, 0.85)), places=places)
        _eating_front(stage)
    else:
        stage.open(focus=(0.03, -0.46), span=stage.rng.choice((0.85, 1.0)), places=places)
        _eating_aside(stage)


def _sitter_front(stage: Stage, x: float, seat: float) -> None:
    expression: Expression = stage.rng.choice(("neutral", "neutral", "smile"))
    figure = seated_front(stage.adult(), x, seat=seat, nod=stage.jitter(0.12), expression=expression)
    knee = seat + 0.03
    hands = stage.rng.choice((((x - 0.09, -knee), (x + 0.09, -knee)), ((x - 0.03, -knee), (x + 0.03, -knee - 0.01))))
    figure.reach(*hands)
    figure.draw(stage.canvas)


def _sitting_aside(stage: Stage) -> None:
    furniture.chair(stage.canvas, 0.0, _cloth(stage))
    figure = seated_aside(stage.adult(), 0.0, lean=-stage.rng.uniform(-0.05, 0.15), nod=stage.jitter(0.1))
    figure.reach((0.17, -0.34), (0.2, -0.34), near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)


def _sitting_on_floor(stage: Stage) -> None:
    x = 0.0
    figure = Figure(
        stage.adult(),
        pelvis=(x, -0.08),
        nod=stage.jitter(0.1),
        expression=stage.rng.choice(("neutral", "smile")),
    )
    figure.near_leg = ((-0.22, -0.08), (-0.02, -0.015))
    figure.far_leg = ((0.22, -0.08), (0.04, -0.02))
    figure.reach((-0.17, -0.12), (0.17, -0.12))
    figure.draw(stage.canvas)


def sitting(stage: Stage) -> None:
    """People who sit on a chair, a bench, a sofa or the floor, their hands at rest."""
    kind = stage.rng.choice(("chair", "aside", "aside", "bench", "sofa", "floor"))
    places = ("park", "street", "beach") if kind == "bench" else ("room", "office", "plain", "gym", "room")
    focus = (0.0, -0.34) if kind == "floor" else (0.03, -0.42)
    stage.open(focus=focus, span=stage.rng.uniform(0.9, 1.1), places=places)
    if kind == "aside":
        _sitting_aside(stage)
    elif kind == "floor":
        _sitting_on_floor(stage)
    else:
        draw = {"chair": furniture.chair_front, "bench": furniture.bench, "sofa": furniture.sofa}[kind]
        draw(stage.canvas, 0.0, _wood(stage) if kind == "bench" else _cloth(stage))
        pair = kind != "chair" and stage.chance(0.35)
        for x in (-0.19, 0.19) if pair else (stage.jitter(0.12) if kind != "chair" else 0.0,):
            _sitter_front(stage, x, 0.24)


def _sleeping_in_bed(stage: Stage) -> None:
    rng = stage.rng
    furniture.bed(stage.canvas, 0.0, _wood(stage), vary((236, 232, 226), rng))
    props_pillow = vary(lighter(_cloth(stage), 0.6), rng)
    furniture.pillow(stage.canvas, (-0.42, -0.31), props_pillow, angle=-0.05)
    turn = rng.choice((0.0, 0.35))
    figure = Figure(stage.adult(), pelvis=(0.05, -0.325), lean=-math.pi / 2, turn=turn, nod=0.1, expression="asleep")
    figure.step((0.5, -0.31), (0.5, -0.3), near_side=-1.0)
    figure.reach((-0.05, -0.36), (-0.05, -0.3))
    figure.draw(stage.canvas)
    if stage.chance(0.85):
        start = rng.uniform(-0.17, -0.05)
        furniture.blanket(stage.canvas, start, 0.52, _cloth(stage), top=-0.44)
        if stage.chance(0.6):
            arm = [(-0.2, -0.36), (start + 0.08, -0.42), (start + 0.2, -0.4)]
            stage.canvas.limb(arm, [0.055, 0.05, 0.045], figure.looks.top)
            stage.canvas.circle(arm[-1], 0.026, figure.looks.skin)


def _sleeping_at_desk(stage: Stage) -> None:
    wood = _wood(stage)
    furniture.chair(stage.canvas, -0.22, _cloth(stage))
    figure = seated_aside(stage.adult(), -0.22, lean=0.85, nod=0.6, expression="asleep")
    figure.draw_far_side(stage.canvas)
    furniture.table(stage.canvas, 0.22, wood, width=0.66, height=0.4)
    figure.reach((0.28, -0.45), near_side=1.0)
    figure.draw_near_arm(stage.canvas)
    if stage.chance(0.5):
        props.cup(stage.canvas, (0.46, -0.47), stage.rng.choice(props.BRIGHT))


def sleeping(stage: Stage) -> None:
    """A person asleep in bed, or fallen asleep at a desk."""
    if stage.chance(0.82):
        stage.open(focus=(-0.08, -0.36), span=stage.rng.choice((0.95, 1.1, 1.25)), places=("room", "room", "plain"))
        _sleeping_in_bed(stage)
        zed = (-0.34, -0.52)
    else:
        stage.open(focus=(0.03, -0.45), span=stage.rng.choice((0.95, 1.1)), places=("office", "room", "plain"))
        _sleeping_at_desk(stage)
        zed = (0.22, -0.72)
    if stage.chance(0.55):
        props.snore(stage.canvas, zed, WHITE if stage.chance(0.5) else (84, 92, 140))


def _laptop_front(stage: Stage) -> None:
    figure = seated_front(stage.adult(), 0.0, nod=stage.jitter(0.08), expression=stage.rng.choice(("neutral", "smile")))
    figure.gaze = (0.0, 0.9)
    figure.lift((-0.09, -0.45), (0.09, -0.45))
    figure.draw(stage.canvas)
    furniture.counter(stage.canvas, 0.0, _wood(stage), width=1.0)
    if stage.chance(0.4):
        props.cup(stage.canvas, (0.28, -0.49), stage.rng.choice(props.BRIGHT))
    props.laptop_back(stage.canvas, (0.0, -0.44), vary(stage.rng.choice(((178, 184, 194), (70, 74, 84))), stage.rng))


def _laptop_aside(stage: Stage) -> None:
    furniture.chair(stage.canvas, -0.2, _cloth(stage))
    figure = seated_aside(stage.adult(), -0.2, lean=stage.rng.uniform(0.02, 0.14), nod=0.08)
    figure.reach((0.12, -0.47), (0.15, -0.47), near_side=1.0, far_side=1.0)
    figure.draw_far_side(stage.canvas)
    furniture.table(stage.canvas, 0.22, _wood(stage), width=0.6)
    if stage.chance(0.3):
        props.cup(stage.canvas, (0.42, -0.49), stage.rng.choice(props.BRIGHT))
    props.laptop(stage.canvas, (0.26, -0.45), open_angle=stage.rng.uniform(0.1, 0.45))
    figure.draw_near_arm(stage.canvas)


def _laptop_on_lap(stage: Stage) -> None:
    furniture.sofa(stage.canvas, 0.0, _cloth(stage))
    figure = seated_front(
        stage.adult(),
        0.0,
        seat=0.24,
        nod=stage.jitter(0.08),
        expression=stage.rng.choice(("neutral", "smile")),
    )
    figure.gaze = (0.0, 0.9)
    figure.reach((-0.1, -0.33), (0.1, -0.33))
    figure.draw(stage.canvas)
    props.laptop_back(stage.canvas, (0.0, -0.25))


def using_laptop(stage: Stage) -> None:
    """A person who works at a laptop, at a desk or on a sofa."""
    kind = stage.rng.choice(("front", "front", "aside", "aside", "lap"))
    places = ("room", "plain") if kind == "lap" else ("office", "office", "room", "kitchen", "plain")
    focus = {"front": (0.0, -0.6), "aside": (0.04, -0.46), "lap": (0.0, -0.42)}[kind]
    stage.open(focus=focus, span=stage.rng.uniform(0.7, 0.9) + 0.15 * (kind != "front"), places=places)
    {"front": _laptop_front, "aside": _laptop_aside, "lap": _laptop_on_lap}[kind](stage)
