"""Scenes of actions that the demonstration set does not have, second part: music, sport, gestures.

The first part is in more_scenes.py; the demonstration's own actions are in core_scenes.py.
"""

from __future__ import annotations

import math

from clip_har.demo import furniture, props
from clip_har.demo.figures import Figure
from clip_har.demo.scenes_active import standing
from clip_har.demo.scenes_seated import seated_aside
from clip_har.demo.stage import Stage
from tiny_clip import more_props
from tiny_clip.more_scenes import ANY, INSIDE, OUTSIDE, cloth, open_near, open_wide


def praying(stage: Stage) -> None:
    """On the knees, hands folded."""
    stage.open(focus=(0.0, -0.42), span=stage.rng.choice((0.9, 1.1)), places=ANY)
    figure = Figure(stage.adult(), pelvis=(-0.05, -0.26), turn=0.9, lean=0.05, nod=0.35, expression="asleep")
    figure.near_leg = ((0.1, -0.04), (-0.12, -0.03))
    figure.far_leg = ((0.13, -0.04), (-0.1, -0.03))
    hands = figure.body_point(0.14, 0.22)
    figure.reach(hands, hands)
    figure.draw(stage.canvas)
    stage.canvas.ellipse((hands[0] + 0.01, hands[1] - 0.03), 0.018, 0.045, figure.looks.skin)


def yoga(stage: Stage) -> None:
    """On one leg, or legs and arms spread."""
    open_wide(stage, ANY, y=-0.6)
    figure = standing(stage.adult(), expression="asleep")
    if stage.chance(0.6):
        figure.step((-0.05, -0.02), (-0.02, -0.26), near_side=1.0, far_side=-1.0)
        figure.reach((-0.03, -1.16), (0.03, -1.16), near_side=-1.0, far_side=1.0)
    else:
        figure.step((-0.3, -0.02), (0.3, -0.02), near_side=1.0, far_side=-1.0)
        figure.reach((-0.42, -0.74), (0.42, -0.74))
    figure.draw(stage.canvas)


def photographing(stage: Stage) -> None:
    """A camera at the eye."""
    open_near(stage, ANY)
    turn = stage.rng.choice((0.0, 1.0))
    figure = standing(stage.adult(), turn=turn)
    x, y = figure.head_point(0.9 * turn, -0.05)
    figure.reach((x - 0.055 + 0.06 * turn, y + 0.03), (x + 0.055, y + 0.03), near_side=-1.0 + 2 * turn, far_side=1.0)
    figure.draw_far_side(stage.canvas)
    more_props.camera(stage.canvas, (x + 0.05 * turn, y), front=turn < 0.5)
    figure.draw_near_arm(stage.canvas)
    if stage.chance(0.3):
        props.burst(stage.canvas, (x + 0.16 * turn, y - 0.05), 0.05, (255, 255, 230))


def playing_violin(stage: Stage) -> None:
    """A violin under the chin."""
    open_near(stage, ANY)
    figure = standing(stage.adult(), nod=-0.15, turn=0.2, expression="blissful")
    x, y = figure.head_point(0.5, 1.1)
    figure.reach((x + 0.02, y + 0.12), (x + 0.24, y - 0.06))
    figure.draw(stage.canvas, between=lambda: more_props.violin(stage.canvas, (x, y)))


def playing_drums(stage: Stage) -> None:
    """Behind drums, sticks in hands."""
    stage.open(focus=(0.0, -0.5), span=stage.rng.choice((0.95, 1.15)), places=("hall", "room", "plain", "street"))
    figure = standing(stage.adult(), expression=stage.rng.choice(("smile", "laugh", "shout")))
    figure.reach((-0.24, -0.62 - stage.rng.uniform(0.0, 0.14)), (0.24, -0.58 - stage.rng.uniform(0.0, 0.14)))
    figure.draw(stage.canvas)
    for x, height in ((-0.26, 0.4), (0.26, 0.38), (0.0, 0.26)):
        more_props.drum(stage.canvas, x, height, cloth(stage), width=0.26 if x else 0.34)
    for (x, y), side in ((figure.near_hand, 1), (figure.far_hand, -1)):
        more_props.stick(stage.canvas, (x, y), (x + side * 0.1, y + 0.09), (214, 170, 110))


def fishing(stage: Stage) -> None:
    """A rod over the water."""
    open_wide(stage, ("beach", "park", "plain"), x=0.2)
    figure = standing(stage.adult(), -0.12, turn=0.9)
    figure.reach((0.08, -0.62), (0.14, -0.68), near_side=1.0, far_side=1.0)
    tip = (0.52, -1.12 + stage.jitter(0.1))
    figure.draw(stage.canvas, between=lambda: more_props.stick(stage.canvas, (0.02, -0.58), tip, (110, 80, 50)))
    stage.canvas.line([tip, (tip[0] + 0.05, -0.12)], 0.007, (230, 230, 230))
    if stage.chance(0.5):
        stage.canvas.ellipse((tip[0] + 0.05, -0.1), 0.04, 0.08, (120, 160, 190))


def holding_umbrella(stage: Stage) -> None:
    """Under an umbrella, often in the rain."""
    open_wide(stage, OUTSIDE, y=-0.66)
    figure = standing(stage.adult(), turn=stage.rng.choice((0.0, 0.9)))
    hand = figure.body_point(0.12, 0.18)
    figure.lift(near=hand)
    figure.draw(stage.canvas, between=lambda: more_props.umbrella(stage.canvas, hand, cloth(stage)))
    if stage.chance(0.7):
        more_props.rain(stage.canvas, stage.rng)


def carrying_box(stage: Stage) -> None:
    """A carton in both arms."""
    open_wide(stage, ANY)
    turn = stage.rng.choice((0.0, 0.95))
    figure = standing(
        stage.adult(),
        -0.06 * turn,
        turn=turn,
        lean=-0.1 * turn,
        expression=stage.rng.choice(("neutral", "frown")),
    )
    at = (0.2, -0.6) if turn else (0.0, -0.58)
    figure.reach((at[0] - 0.1 + 0.1 * turn, at[1] + 0.1), (at[0] + 0.1, at[1] + 0.1), far_side=-1.0 + 2.0 * (turn > 0))
    figure.draw(stage.canvas, between=lambda: more_props.carton(stage.canvas, at))


def pointing(stage: Stage) -> None:
    """One arm stretched out."""
    open_near(stage, ANY)
    figure = standing(stage.adult(), turn=stage.rng.choice((0.0, 0.6)))
    figure.reach(far=figure.body_point(0.5, 0.3 + stage.jitter(0.14)))
    figure.draw(stage.canvas)
    x, y = figure.far_hand
    stage.canvas.limb([(x, y), (x + 0.045, y - 0.005)], [0.022, 0.018], figure.looks.skin)


def shaking_hands(stage: Stage) -> None:
    """Two people, hand in hand."""
    open_wide(stage, ANY)
    middle = (0.0, -0.58)
    right = stage.canvas.placed((0.24, 0.0), mirrored=True)
    for canvas, x in ((stage.canvas.placed((-0.24, 0.0)), 0.24), (right, 0.24)):
        figure = standing(stage.adult(), 0.0, turn=0.85, lean=0.06, expression=stage.rng.choice(("smile", "neutral")))
        figure.reach(near=(x, middle[1]), near_side=1.0)
        figure.draw(canvas)


def skateboarding(stage: Stage) -> None:
    """On a skateboard, arms out."""
    open_wide(stage, ("street", "park", "plain", "gym"))
    more_props.skateboard(stage.canvas, 0.0, cloth(stage))
    figure = Figure(stage.adult(), pelvis=(0.0, -0.5), turn=0.6, lean=0.25, expression="smile")
    figure.step((-0.14, -0.12), (0.13, -0.12))
    figure.reach((-0.3, -0.7), (0.32, -0.72))
    figure.draw(stage.canvas)


def brushing_teeth(stage: Stage) -> None:
    """A toothbrush in the mouth."""
    open_near(stage, INSIDE)
    figure = standing(stage.adult(), expression=stage.rng.choice(("chew", "smile", "shout")))
    x, y = figure.mouth
    figure.lift(near=(x - 0.1, y + 0.03))
    figure.draw_far_side(stage.canvas)
    more_props.stick(stage.canvas, (x - 0.13, y + 0.02), (x + 0.03, y), stage.rng.choice(props.BRIGHT), width=0.016)
    stage.canvas.circle((x + 0.01, y + 0.01), 0.022, (250, 250, 250), contour=False)
    figure.draw_near_arm(stage.canvas)


def singing(stage: Stage) -> None:
    """A microphone at the open mouth."""
    open_near(stage, ("hall", "hall", "room", "plain", "street"))
    turn = stage.rng.choice((0.0, 0.4))
    figure = standing(stage.adult(), turn=turn, nod=-stage.rng.uniform(0.0, 0.25), expression="shout")
    x, y = figure.mouth
    figure.lift(near=(x + 0.0, y + 0.12))
    if stage.chance(0.5):
        figure.reach(far=figure.body_point(0.3, 0.32))
    figure.draw(stage.canvas, between=lambda: more_props.microphone(stage.canvas, (x, y + 0.045), angle=0.15))


def watching_tv(stage: Stage) -> None:
    """On a chair in front of a television."""
    stage.open(focus=(0.1, -0.42), span=stage.rng.uniform(1.05, 1.25), places=("room", "room", "plain"))
    furniture.chair(stage.canvas, -0.28, cloth(stage))
    more_props.television(stage.canvas, 0.42, stage.rng)
    figure = seated_aside(stage.adult(), -0.28, lean=-0.15)
    figure.reach((-0.08, -0.36), (-0.06, -0.36), near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)


def crying(stage: Stage) -> None:
    """Tears down a sad face."""
    open_near(stage, ANY)
    figure = standing(stage.adult(), nod=stage.jitter(0.25), expression="frown")
    if stage.chance(0.5):
        eye = figure.head_point(-0.5, 0.2)
        figure.lift(near=(eye[0] - 0.02, eye[1] + 0.02))
    figure.draw(stage.canvas)
    for side in (-0.45, 0.45):
        for drop in (0.35, 0.75):
            stage.canvas.ellipse(figure.head_point(side, drop), 0.012, 0.022, (90, 170, 240), contour=False)


def watering_plants(stage: Stage) -> None:
    """A watering can over plants."""
    open_wide(stage, ("park", "park", "room", "kitchen"), x=0.15, y=-0.5)
    figure = standing(stage.adult(), -0.1, turn=0.9, lean=0.25, nod=0.2)
    figure.reach(near=(0.16, -0.46), near_side=1.0)
    figure.draw(stage.canvas)
    x, y = figure.near_hand
    stage.canvas.box((x + 0.06, y + 0.05), 0.14, 0.13, cloth(stage))
    stage.canvas.limb([(x + 0.12, y + 0.08), (x + 0.24, y + 0.0)], [0.03, 0.03], (140, 150, 160))
    for shift in (0.0, 0.03, 0.06):
        stage.canvas.line([(x + 0.24 + shift, y + 0.03), (x + 0.27 + shift, y + 0.2)], 0.01, (120, 180, 240))
    for shift in (-0.06, 0.0, 0.06):
        stage.canvas.limb(
            [(0.44, 0.0), (0.44 + shift, -0.2)], [0.02, 0.05], stage.rng.choice(stage.style.palette.greens)
        )


def playing_tennis(stage: Stage) -> None:
    """A racket and a ball."""
    open_wide(stage, ("park", "gym", "plain", "street"), y=-0.62)
    figure = standing(stage.adult(), turn=0.6, lean=0.1)
    figure.step((-0.2, -0.02), (0.18, -0.02))
    figure.reach(figure.body_point(0.3, 0.4), figure.body_point(0.16, 0.1))
    angle = stage.rng.uniform(-0.4, 0.9)
    figure.draw(stage.canvas, between=lambda: more_props.racket(stage.canvas, figure.near_hand, angle=angle))
    x, y = figure.near_hand
    props.ball(stage.canvas, (x + 0.2 * math.cos(angle) + 0.06, y - 0.25 + stage.jitter(0.1)), 0.035, (220, 235, 70))


def crawling(stage: Stage) -> None:
    """On hands and knees."""
    stage.open(focus=(0.0, -0.3), span=stage.rng.uniform(0.85, 1.1), places=ANY)
    figure = Figure(stage.adult(), pelvis=(-0.18, -0.27), lean=1.4, turn=0.9, nod=-0.8)
    figure.near_leg = ((-0.08 + stage.jitter(0.06), -0.04), (-0.32, -0.03))
    figure.far_leg = ((-0.16, -0.04), (-0.4, -0.03))
    figure.reach((0.16, -0.02), (0.06, -0.02), near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)


def smoking(stage: Stage) -> None:
    """A cigarette and its smoke."""
    open_near(stage, ("street", "park", "plain", "office", "room"))
    figure = standing(stage.adult(), turn=stage.rng.choice((0.4, 1.0)))
    x, y = figure.mouth
    figure.reach(near=(x + 0.06, y + 0.03), near_side=1.0)
    figure.draw(stage.canvas)
    more_props.stick(stage.canvas, (x, y), (x + 0.08, y + 0.01), (245, 245, 240), width=0.014)
    stage.canvas.circle((x + 0.085, y + 0.01), 0.01, (240, 120, 40), contour=False)
    for step in range(4):
        at = (x + 0.1 + 0.02 * step, y - 0.05 - 0.06 * step)
        stage.canvas.circle(at, 0.016 + 0.007 * step, (206, 206, 210), contour=False)


def taking_selfie(stage: Stage) -> None:
    """A phone at arm's length."""
    open_near(stage, ANY)
    figure = standing(stage.adult(), nod=0.12, expression=stage.rng.choice(("smile", "laugh")))
    figure.reach(far=figure.body_point(0.34, 0.4), far_side=1.0)
    figure.draw(stage.canvas)
    props.phone(stage.canvas, (figure.far_hand[0], figure.far_hand[1] - 0.04), angle=0.2, screen=False)
