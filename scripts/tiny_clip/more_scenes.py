"""Scenes of actions that the demonstration set does not have, first part: hobbies, chores and work.

The second part is in other_scenes.py; the demonstration's own actions are in core_scenes.py.
"""

from __future__ import annotations

from clip_har.demo import furniture, props
from clip_har.demo.figures import Figure
from clip_har.demo.scenes_active import standing
from clip_har.demo.scenes_seated import seated_aside, seated_front
from clip_har.demo.stage import Stage
from clip_har.demo.style import Colour, Point
from tiny_clip import more_props

ANY = ("room", "kitchen", "office", "park", "street", "beach", "plain", "gym", "hall")
INSIDE = ("room", "kitchen", "office", "plain")
OUTSIDE = ("park", "street", "beach", "plain")


def open_wide(stage: Stage, places: tuple[str, ...], *, x: float = 0.0, y: float = -0.54) -> None:
    """Show a whole standing person."""
    stage.open(focus=(x, y), span=stage.rng.uniform(1.05, 1.35), places=places)


def open_near(stage: Stage, places: tuple[str, ...]) -> None:
    """Show a person's upper body."""
    span = stage.rng.choice((0.65, 0.8, 1.0))
    stage.open(focus=(0.03, -1.06 + 0.45 * span), span=span, places=places)


def cloth(stage: Stage) -> Colour:
    """A colour for a thing."""
    return stage.rng.choice(stage.style.palette.clothes)


def reading(stage: Stage) -> None:
    """Standing, a book in both hands."""
    open_near(stage, ANY)
    turn = stage.rng.choice((0.0, 0.4, 1.0))
    figure = standing(stage.adult(), turn=turn, nod=0.3 * turn)
    figure.gaze = (turn * 0.6, 1.0)
    at = figure.body_point(0.02 + 0.18 * turn, 0.2)
    figure.lift((at[0] - 0.08, at[1] + 0.03), (at[0] + 0.08, at[1] + 0.03))
    figure.draw(stage.canvas, between=lambda: props.book(stage.canvas, at, cloth(stage)))


def reading_seated(stage: Stage) -> None:
    """On a bench, a book in both hands."""
    stage.open(focus=(0.0, -0.42), span=1.0, places=(*INSIDE, "park"))
    furniture.bench(stage.canvas, 0.0, cloth(stage))
    figure = seated_front(stage.adult(), 0.0)
    figure.gaze = (0.0, 1.0)
    figure.lift((-0.08, -0.42), (0.08, -0.42))
    figure.draw(stage.canvas)
    props.book(stage.canvas, (0.0, -0.46), cloth(stage))


def writing(stage: Stage) -> None:
    """At a table, a pen on paper."""
    stage.open(focus=(0.03, -0.46), span=stage.rng.choice((0.8, 1.0)), places=INSIDE)
    furniture.chair(stage.canvas, -0.2, cloth(stage))
    figure = seated_aside(stage.adult(), -0.2, lean=0.25, nod=0.3)
    figure.reach((0.14, -0.47), (0.2, -0.46), near_side=1.0, far_side=1.0)
    figure.draw_far_side(stage.canvas)
    furniture.table(stage.canvas, 0.22, cloth(stage))
    stage.canvas.box((0.16, -0.445), 0.16, 0.018, (250, 250, 250))
    x, y = figure.near_hand
    more_props.stick(stage.canvas, (x - 0.01, y - 0.07), (x + 0.03, y + 0.02), (230, 180, 40), width=0.014)
    figure.draw_near_arm(stage.canvas)


def cooking(stage: Stage) -> None:
    """At a stove, with a pan."""
    stage.open(focus=(0.1, -0.6), span=stage.rng.choice((0.9, 1.1)), places=("kitchen", "kitchen", "room", "plain"))
    figure = standing(stage.adult(), -0.12, turn=0.8, nod=0.2)
    figure.reach((0.14, -0.53), (0.2, -0.56), near_side=1.0, far_side=1.0)
    figure.draw_far_side(stage.canvas)
    furniture.counter(stage.canvas, 0.32, (200, 204, 210), width=0.6, height=0.46)
    more_props.pan(stage.canvas, (0.3, -0.5))
    stage.canvas.circle((0.3, -0.53), 0.035, stage.rng.choice(props.BRIGHT))
    for x in (0.26, 0.32, 0.37):
        stage.canvas.line([(x, -0.6), (x + 0.015, -0.66), (x - 0.01, -0.72)], 0.01, (240, 240, 244))
    figure.draw_near_arm(stage.canvas)


def waving(stage: Stage) -> None:
    """One hand high."""
    open_near(stage, ANY)
    figure = standing(stage.adult(), turn=stage.rng.choice((0.0, 0.2)), expression="smile")
    hand = figure.body_point(-0.2, 0.44 + stage.jitter(0.06))
    figure.reach(near=hand, near_side=-1.0)
    figure.draw(stage.canvas)
    x, y = figure.near_hand
    stage.canvas.ellipse((x, y - 0.025), 0.026, 0.045, figure.looks.skin, angle=-0.2)
    for shift in (0.07, 0.1):
        stage.canvas.arc((x, y), shift, 3.4, 4.1, 0.012, (250, 250, 250))
        stage.canvas.arc((x, y), shift, 5.3, 6.0, 0.012, (250, 250, 250))


def jumping(stage: Stage) -> None:
    """Off the ground, arms up."""
    open_wide(stage, (*OUTSIDE, "gym"), y=-0.66)
    looks = stage.adult()
    stage.shadow(0.0)
    figure = Figure(
        looks, pelvis=(0.0, -0.66), lean=stage.jitter(0.15), expression=stage.rng.choice(("smile", "laugh"))
    )
    figure.step((-0.22, -0.36 + stage.jitter(0.08)), (0.22, -0.36 + stage.jitter(0.08)), near_side=1.0, far_side=-1.0)
    figure.reach((-0.26, -1.2), (0.26, -1.2), near_side=-1.0, far_side=1.0)
    figure.draw(stage.canvas)


def climbing(stage: Stage) -> None:
    """On a ladder."""
    open_wide(stage, ANY, y=-0.8)
    more_props.ladder(stage.canvas, 0.0)
    figure = Figure(stage.adult(), pelvis=(0.0, -0.72), lean=stage.jitter(0.06), nod=stage.jitter(0.2))
    figure.step((-0.08, -0.3), (0.1, -0.42), near_side=1.0, far_side=-1.0)
    figure.reach((-0.11, -1.25), (0.11, -1.1), near_side=-1.0, far_side=1.0)
    figure.draw(stage.canvas)


def playing_guitar(stage: Stage) -> None:
    """A guitar in front of the body."""
    open_near(stage, ANY)
    figure = standing(
        stage.adult(), nod=stage.jitter(0.2), expression=stage.rng.choice(("smile", "blissful", "neutral"))
    )
    at = figure.body_point(-0.02, 0.06)
    figure.reach((at[0] + 0.02, at[1] + 0.02), (at[0] + 0.24, at[1] - 0.12))
    figure.draw(stage.canvas, between=lambda: more_props.guitar(stage.canvas, at, cloth(stage)))


def kicking_ball(stage: Stage) -> None:
    """One leg forward, a ball flying off."""
    open_wide(stage, (*OUTSIDE, "gym"), x=0.12)
    stage.shadow(0.0)
    figure = standing(stage.adult(), -0.05, lean=-0.2, turn=0.9, nod=0.2)
    figure.step((-0.12, -0.02), (0.28, -0.16 - stage.rng.uniform(0.0, 0.12)))
    figure.reach(figure.body_point(-0.2, 0.1), figure.body_point(0.2, 0.15))
    figure.draw(stage.canvas)
    x, y = figure.far_leg[1]
    props.ball(
        stage.canvas,
        (x + stage.rng.uniform(0.1, 0.2), y - stage.rng.uniform(0.0, 0.08)),
        0.07,
        (245, 245, 245),
    )


def throwing_ball(stage: Stage) -> None:
    """A ball in a raised hand."""
    open_wide(stage, (*OUTSIDE, "gym"), y=-0.62)
    figure = standing(stage.adult(), -0.05, lean=-0.15, turn=0.7)
    figure.step((-0.2, -0.02), (0.14, -0.02))
    figure.reach(figure.body_point(-0.12, 0.5), figure.body_point(0.3, 0.3))
    figure.draw(stage.canvas)
    x, y = figure.near_hand
    props.ball(stage.canvas, (x - 0.02, y - 0.07), 0.065, stage.rng.choice(props.BRIGHT))


def swimming(stage: Stage) -> None:
    """Half in the water, one arm ahead."""
    stage.open(focus=(0.0, -0.35), span=stage.rng.uniform(0.9, 1.2), places=("beach", "plain", "gym"))
    water: Colour = (70, 150, 200)
    canvas = stage.canvas
    canvas.shape([(-2.5, -0.34), (2.5, -0.34), (2.5, 2.5), (-2.5, 2.5)], water, contour=False)
    figure = Figure(stage.adult(), pelvis=(-0.2, -0.3), lean=1.35, turn=0.8, nod=-0.6, expression="chew")
    figure.step((-0.6, -0.26), (-0.62, -0.3))
    figure.reach((0.44, -0.4 + stage.jitter(0.12)), (0.2, -0.55), near_side=-1.0, far_side=-1.0)
    figure.draw(canvas)
    canvas.shape([(-2.5, -0.24), (2.5, -0.24), (2.5, 2.5), (-2.5, 2.5)], water, contour=False)
    for _ in range(10):
        x, y = stage.jitter(0.6), stage.rng.uniform(-0.22, 0.2)
        canvas.line([(x, y), (x + 0.06, y - 0.02), (x + 0.12, y)], 0.012, (210, 236, 250))


def _walker(stage: Stage, x: float) -> Figure:
    figure = standing(stage.adult(), x, turn=1.0, lean=0.05)
    reach = stage.rng.uniform(0.08, 0.16)
    figure.step((x + reach, -0.02), (x - reach, -0.03))
    figure.reach(figure.body_point(-0.12, 0.0), figure.body_point(0.12, 0.0), near_side=1.0, far_side=1.0)
    return figure


def walking(stage: Stage) -> None:
    """A calm step."""
    open_wide(stage, ANY)
    stage.shadow(0.0)
    _walker(stage, 0.0).draw(stage.canvas)


def walking_dog(stage: Stage) -> None:
    """A calm step with a dog on a lead."""
    open_wide(stage, OUTSIDE, x=0.16)
    stage.shadow(0.0)
    figure = _walker(stage, -0.1)
    figure.reach(near=(0.1, -0.52), near_side=1.0)
    collar = more_props.dog(stage.canvas, 0.34, stage.rng.choice(((150, 104, 64), (60, 54, 50), (230, 220, 200))))
    stage.canvas.line([figure.near_hand, collar], 0.012, (170, 40, 40))
    figure.draw(stage.canvas)


def standing_still(stage: Stage) -> None:
    """One to three people who do nothing."""
    open_wide(stage, ANY)
    count = stage.rng.choice((1, 1, 2, 3))
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.34
        stage.shadow(x)
        standing(stage.looks(), x, turn=stage.rng.choice((0.0, 0.0, 0.4, 1.0))).draw(stage.canvas)


def painting(stage: Stage) -> None:
    """A brush at an easel."""
    open_wide(stage, ANY, x=0.14)
    more_props.easel(stage.canvas, 0.32, stage.rng)
    figure = standing(stage.adult(), -0.08, turn=0.8)
    figure.reach((0.18, -0.72 + stage.jitter(0.08)), (0.1, -0.55), near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)
    x, y = figure.near_hand
    more_props.stick(stage.canvas, (x - 0.02, y + 0.02), (x + 0.09, y - 0.04), (170, 60, 50))


def sweeping(stage: Stage) -> None:
    """A broom on the floor."""
    open_wide(stage, ANY, x=0.08)
    figure = standing(stage.adult(), -0.08, turn=0.7, lean=0.2, nod=0.2)
    figure.reach((0.1, -0.72), (0.16, -0.55), near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas, between=lambda: more_props.broom(stage.canvas, (0.06, -0.8), (0.3, -0.06)))


def pushing_cart(stage: Stage) -> None:
    """Behind a shopping cart."""
    open_wide(stage, ("street", "plain", "gym", "office"), x=0.12)
    figure = _walker(stage, -0.22)
    figure.reach((0.04, -0.53), (0.05, -0.53), near_side=1.0, far_side=1.0)
    more_props.cart(stage.canvas, 0.03, cloth(stage))
    figure.draw(stage.canvas)


def lifting_weights(stage: Stage) -> None:
    """A barbell at some height."""
    open_wide(stage, ("gym", "gym", "room", "plain"), y=-0.66)
    figure = standing(stage.adult(), expression=stage.rng.choice(("frown", "neutral", "shout")))
    figure.stand(0.1)
    height = stage.rng.choice((-1.2, -1.12, -0.82, -0.45))
    side = -1.0 if height < -1.0 else 1.0
    figure.reach((-0.19, height), (0.19, height), near_side=side, far_side=-side)
    middle: Point = (0.0, figure.near_hand[1])
    figure.draw(stage.canvas)
    more_props.barbell(stage.canvas, middle)
    for hand in (figure.near_hand, figure.far_hand):
        stage.canvas.circle(hand, 0.026, figure.looks.skin)
