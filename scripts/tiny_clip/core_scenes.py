"""The demonstration's fifteen actions as the wide set draws them: other poses, other things, other views.

The demonstration's own drawings are in the package's demo module.
"""

from __future__ import annotations

import math

from clip_har.demo import furniture, props
from clip_har.demo.figures import Figure
from clip_har.demo.scenes_active import standing
from clip_har.demo.scenes_seated import seated_aside, seated_front
from clip_har.demo.stage import Stage
from clip_har.demo.style import Point
from tiny_clip.more_scenes import ANY, INSIDE, OUTSIDE, cloth, open_near, open_wide


def calling(stage: Stage) -> None:
    """Seated or walking, with the phone at the far or the near ear."""
    open_near(stage, ANY) if stage.chance(0.6) else open_wide(stage, ANY)
    turn = stage.rng.choice((0.0, 0.15, 0.6, 0.9))
    figure = standing(stage.looks(), turn=turn, lean=stage.jitter(0.1), nod=stage.jitter(0.2), expression="chew")
    far = turn < 0.3 and stage.chance(0.4)
    ear = figure.head_point(1.0, 0.1) if far else figure.ear
    hand = (ear[0], ear[1] + 0.05)
    if far:
        figure.reach(far=hand, far_side=1.0)
    else:
        figure.reach(near=hand, near_side=-1.0 if turn < 0.5 else 1.0)
    angle = figure.tilt + stage.jitter(0.4)
    figure.draw(stage.canvas, between=lambda: props.phone(stage.canvas, ear, angle=angle, screen=stage.chance(0.5)))


def clapping(stage: Stage) -> None:
    """Hands together high or low, from the front or the side."""
    open_near(stage, ANY) if stage.chance(0.5) else open_wide(stage, ANY)
    turn = stage.rng.choice((0.0, 0.2, 0.9))
    figure = standing(
        stage.looks(),
        turn=turn,
        nod=stage.jitter(0.2),
        expression=stage.rng.choice(("smile", "laugh", "neutral")),
    )
    apart, up = stage.rng.uniform(0.0, 0.08), stage.rng.uniform(0.12, 0.34)
    near, far = figure.body_point(0.16 * turn - apart, up), figure.body_point(0.16 * turn + apart, up)
    figure.lift(near, far) if turn < 0.5 else figure.reach(near, far, near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)
    for at, angle in ((near, 0.3), (far, -0.3)):
        stage.canvas.ellipse((at[0], at[1] - 0.03), 0.02, 0.045, figure.looks.skin, angle=angle)
    if stage.chance(0.5):
        props.rays(stage.canvas, near, 0.08, 0.14, stage.rng.choice(props.BRIGHT), count=5)


def cycling(stage: Stage) -> None:
    """Upright or crouched riders, some standing on the pedals."""
    stage.open(focus=(0.0, -0.55), span=stage.rng.uniform(1.1, 1.6), places=(*OUTSIDE, "gym"))
    spots = furniture.bicycle(stage.canvas, 0.0, cloth(stage), radius=stage.rng.uniform(0.15, 0.2))
    x, y = spots["seat"]
    up = stage.rng.choice((0.02, 0.05, 0.16))
    figure = Figure(stage.adult(), pelvis=(x + up * 0.3, y - up), lean=stage.rng.uniform(0.1, 1.0), turn=0.9, nod=-0.3)
    crank = stage.rng.uniform(0.0, math.tau)
    px, py = spots["pedals"]
    across, down = 0.08 * math.cos(crank), 0.08 * math.sin(crank)
    figure.step((px + across, py + down), (px - across, py - down))
    figure.reach(spots["grip"], spots["grip"], near_side=1.0, far_side=1.0)
    figure.draw(stage.canvas)


def dancing(stage: Stage) -> None:
    """Freely posed dancers."""
    count = stage.rng.choice((1, 1, 2, 3, 4))
    stage.open(focus=(0.0, -0.6), span=1.2 + 0.14 * count, places=("hall", "hall", *ANY))
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.36
        figure = standing(stage.looks(), x, lean=stage.jitter(0.4), nod=stage.jitter(0.4), expression="laugh")
        near: Point = (-stage.rng.uniform(0.05, 0.34), stage.rng.uniform(0.1, 0.6))
        far: Point = (stage.rng.uniform(0.05, 0.34), stage.rng.uniform(0.1, 0.6))
        figure.reach(
            figure.body_point(*near),
            figure.body_point(*far),
            near_side=stage.rng.choice((-1, 1)),
            far_side=1.0,
        )
        lifted = -stage.rng.uniform(0.0, 0.35)
        figure.step(
            (x - stage.rng.uniform(0.02, 0.2), -0.02),
            (x + stage.rng.uniform(0.05, 0.3), lifted),
            near_side=1.0,
        )
        figure.draw(stage.canvas)
    for _ in range(stage.rng.choice((0, 0, 1, 3))):
        props.note(stage.canvas, (stage.jitter(0.5), stage.rng.uniform(-1.2, -0.7)), stage.rng.choice(props.BRIGHT))


def drinking(stage: Stage) -> None:
    """Vessels of all kinds at the mouth, at all angles."""
    open_near(stage, ANY)
    turn = stage.rng.choice((0.0, 0.3, 0.7, 1.0))
    figure = standing(stage.looks(), turn=turn, nod=-stage.rng.uniform(0.0, 0.5) * turn)
    x, y = figure.mouth
    angle = -stage.rng.uniform(0.6, 2.0) * turn
    at = (x + 0.05 * turn, y + 0.045 * (1 - turn))
    figure.lift((at[0] - 0.02, at[1] + 0.03)) if turn < 0.6 else figure.reach((at[0], at[1] + 0.03), near_side=1.0)
    draw = stage.rng.choice((props.cup, props.glass, props.bottle))
    colour = stage.rng.choice((*props.BRIGHT, *stage.style.palette.clothes))
    figure.draw(stage.canvas, between=lambda: draw(stage.canvas, at, colour, angle=angle))


def eating(stage: Stage) -> None:
    """Food in the hand, standing or at a table."""
    seated = stage.chance(0.5)
    open_near(stage, ANY)
    turn = stage.rng.choice((0.0, 0.3, 1.0))
    figure = standing(stage.adult(), turn=turn, nod=stage.jitter(0.1), expression="chew")
    x, y = figure.mouth
    at = (x + 0.06 * turn, y + 0.04 * (1 - turn))
    figure.lift((at[0] - 0.05, at[1] + 0.03), (at[0] + 0.05, at[1] + 0.03) if stage.chance(0.5) else None)
    figure.draw_far_side(stage.canvas)
    if seated:
        furniture.counter(stage.canvas, 0.0, cloth(stage), height=0.58, width=1.0)
        if stage.chance(0.5):
            props.plate(stage.canvas, (stage.jitter(0.15), -0.62), stage.rng)
        else:
            props.bowl(stage.canvas, (stage.jitter(0.15), -0.65), cloth(stage))
    draw = stage.rng.choice((props.burger, props.sandwich, props.pizza, props.apple, None))
    if draw is not None:
        draw(stage.canvas, at)
    else:
        props.fork(stage.canvas, (at[0] - 0.06, at[1] + 0.05), angle=0.8, food=(200, 80, 50))
    figure.draw_near_arm(stage.canvas)


def fighting(stage: Stage) -> None:
    """Fighters of all poses, some on the ground."""
    open_wide(stage, ANY)
    gap = stage.rng.uniform(0.3, 0.6)
    if stage.chance(0.25):
        fallen = Figure(stage.adult(), pelvis=(0.2, -0.06), lean=1.3, turn=0.5, expression="shout")
        fallen.step((-0.1, -0.2), (-0.2, -0.05))
        fallen.draw(stage.canvas)
    else:
        other = stage.canvas.placed((gap / 2, 0.0), mirrored=True)
        loser = standing(stage.adult(), lean=stage.jitter(0.4), turn=stage.rng.uniform(0.4, 1.0), expression="frown")
        loser.reach(
            loser.body_point(0.2, stage.rng.uniform(0.2, 0.5)),
            loser.body_point(0.25, stage.rng.uniform(0.1, 0.4)),
        )
        loser.draw(other)
    figure = standing(stage.adult(), -gap / 2, lean=stage.rng.uniform(-0.1, 0.5), turn=0.7, expression="shout")
    figure.step((-gap / 2 - 0.15, -0.02), (-gap / 2 + 0.16, -stage.rng.choice((0.02, 0.02, 0.3))))
    figure.reach((gap / 2 - 0.05, -stage.rng.uniform(0.6, 0.95)), figure.body_point(0.2, 0.4))
    figure.draw(stage.canvas)
    if stage.chance(0.4):
        props.burst(
            stage.canvas,
            (gap / 2 - 0.03, -0.85),
            stage.rng.uniform(0.05, 0.1),
            stage.rng.choice(props.BRIGHT),
        )


def hugging(stage: Stage) -> None:
    """Two people close together, arms around each other."""
    stage.open(focus=(0.0, -0.68), span=stage.rng.uniform(0.75, 1.3), places=ANY)
    gap, lean = stage.rng.uniform(0.1, 0.2), stage.rng.uniform(0.0, 0.2)
    left = standing(
        stage.looks(child=stage.chance(0.15)), -gap / 2, turn=0.6, lean=lean, nod=0.2, expression="blissful"
    )
    right = standing(stage.looks(child=stage.chance(0.15)), 0.0, turn=0.6, lean=lean, nod=0.2, expression="smile")
    canvas = stage.canvas.placed((gap / 2, 0.0), mirrored=True)
    left.reach((gap + 0.02, -0.65), (gap, -0.55), near_side=1.0, far_side=1.0)
    right.reach((gap + 0.04, -0.55), (gap, -0.7), near_side=1.0, far_side=1.0)
    left.draw_far_side(stage.canvas)
    right.draw_far_side(canvas)
    left.draw_near_arm(stage.canvas)
    right.draw_near_arm(canvas)


def laughing(stage: Stage) -> None:
    """Laughing faces, near or in a group, bodies at rest."""
    count = stage.rng.choice((1, 1, 2, 3))
    stage.open(focus=(0.0, -0.8), span=stage.rng.uniform(0.5, 0.75) + 0.15 * (count - 1), places=ANY)
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.3
        lean = stage.jitter(0.2)
        figure = standing(
            stage.looks(),
            x,
            turn=stage.rng.choice((0.0, 0.2, 0.5)),
            lean=lean,
            nod=stage.jitter(0.3),
            expression="laugh",
        )
        if stage.chance(0.4):
            figure.lift(figure.body_point(0.0, stage.rng.uniform(0.0, 0.15)))
        figure.draw(stage.canvas)


def listening_to_music(stage: Stage) -> None:
    """Headphones on people who stand, sit or walk."""
    seated = stage.chance(0.3)
    if seated:
        stage.open(focus=(0.0, -0.5), span=stage.rng.uniform(0.8, 1.0), places=ANY)
        furniture.chair_front(stage.canvas, 0.0, cloth(stage))
        figure = seated_front(stage.adult(), 0.0, nod=stage.jitter(0.3), expression="blissful")
        figure.reach((-0.09, -0.3), (0.09, -0.3))
    else:
        open_near(stage, ANY)
        turn = stage.rng.choice((0.0, 0.2, 0.7, 1.0))
        figure = standing(
            stage.looks(), turn=turn, nod=stage.jitter(0.3), expression=stage.rng.choice(("smile", "neutral"))
        )
    head = stage.canvas.placed(figure.head, angle=figure.tilt, scale=figure.head_radius)
    colour = cloth(stage)
    if stage.chance(0.7):
        figure.draw(stage.canvas, between=lambda: props.headphones(head, colour, figure.turn))
    else:
        figure.draw(stage.canvas, between=lambda: props.earphones(head, figure.turn, (0.4, 3.0)))
    for _ in range(stage.rng.choice((0, 1, 2))):
        at = (figure.head[0] + stage.rng.choice((-1, 1)) * 0.22, figure.head[1] + stage.jitter(0.15))
        props.note(stage.canvas, at, stage.rng.choice(props.BRIGHT), double=stage.chance(0.5))


def running(stage: Stage) -> None:
    """Runners at any phase of the stride, alone or several."""
    count = stage.rng.choice((1, 1, 1, 2, 3))
    stage.open(focus=(0.0, -0.54), span=stage.rng.uniform(1.1, 1.3) + 0.12 * count, places=ANY)
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.4
        figure = standing(stage.looks(), x, lean=stage.rng.uniform(0.0, 0.5), turn=stage.rng.uniform(0.7, 1.0))
        ahead, behind = stage.rng.uniform(0.08, 0.34), stage.rng.uniform(0.12, 0.38)
        feet = [(x + ahead, -stage.rng.uniform(0.02, 0.3)), (x - behind, -stage.rng.uniform(0.05, 0.35))]
        stage.rng.shuffle(feet)
        figure.step(feet[0], feet[1])
        hands = [
            figure.body_point(0.2, stage.rng.uniform(0.12, 0.28)),
            figure.body_point(-0.16, stage.rng.uniform(0.02, 0.16)),
        ]
        stage.rng.shuffle(hands)
        figure.reach(hands[0], hands[1], near_side=1.0, far_side=1.0)
        figure.draw(stage.canvas)


def sitting(stage: Stage) -> None:
    """People on all kinds of seats."""
    stage.open(focus=(0.0, -0.45), span=stage.rng.uniform(0.85, 1.3), places=ANY)
    if stage.chance(0.45):
        draw = stage.rng.choice((furniture.chair, furniture.stool))
        draw(stage.canvas, 0.0, cloth(stage))
        figure = seated_aside(stage.adult(), 0.0, lean=stage.jitter(0.2), nod=stage.jitter(0.2))
        figure.reach((0.15, -0.32 + stage.jitter(0.05)), None, near_side=1.0)
    else:
        draw_front = stage.rng.choice((furniture.chair_front, furniture.bench, furniture.sofa, furniture.stool))
        draw_front(stage.canvas, 0.0, cloth(stage))
        figure = seated_front(stage.adult(), stage.jitter(0.03), seat=0.25, nod=stage.jitter(0.2), expression="smile")
        figure.reach((-0.1 + stage.jitter(0.05), -0.3), (0.1 + stage.jitter(0.05), -0.3))
    figure.draw(stage.canvas)


def sleeping(stage: Stage) -> None:
    """Lying on beds, benches, sofas and the ground."""
    stage.open(focus=(-0.06, -0.32), span=stage.rng.uniform(0.9, 1.4), places=(*INSIDE, "park", "beach"))
    kind = stage.rng.choice(("bed", "bed", "bench", "ground"))
    height = -0.33
    if kind == "bed":
        furniture.bed(stage.canvas, 0.0, cloth(stage), cloth(stage))
    elif kind == "bench":
        furniture.bench(stage.canvas, 0.0, cloth(stage), width=1.1)
    else:
        height = -0.07
    if stage.chance(0.7):
        furniture.pillow(stage.canvas, (-0.42, height + 0.01), cloth(stage))
    turn = stage.rng.choice((0.0, 0.3, 0.8))
    figure = Figure(
        stage.adult(),
        pelvis=(0.04, height),
        lean=-math.pi / 2 + stage.jitter(0.05),
        turn=turn,
        expression="asleep",
    )
    figure.step((0.45, height + 0.02), (0.44, height), near_side=-1.0)
    figure.reach((-0.05, height - 0.04), (-0.02, height + 0.03))
    figure.draw(stage.canvas)
    if stage.chance(0.5):
        furniture.blanket(
            stage.canvas,
            stage.rng.uniform(-0.2, 0.1),
            0.52,
            cloth(stage),
            top=height - 0.1,
            bottom=height + 0.14,
        )
    if stage.chance(0.3):
        props.snore(stage.canvas, (-0.32, height - 0.22), (110, 120, 180))


def texting(stage: Stage) -> None:
    """A phone in front of the body, standing or seated, the head bowed."""
    seated = stage.chance(0.3)
    if seated:
        stage.open(focus=(0.04, -0.45), span=stage.rng.uniform(0.8, 1.1), places=ANY)
        furniture.chair(stage.canvas, 0.0, cloth(stage))
        figure = seated_aside(stage.adult(), 0.0, lean=stage.rng.uniform(0.0, 0.2), nod=0.4)
    else:
        open_near(stage, ANY)
        turn = stage.rng.choice((0.0, 0.2, 0.6, 0.9))
        figure = standing(stage.looks(), turn=turn, nod=0.4 * turn, lean=stage.jitter(0.06))
    figure.gaze = (0.6 * figure.turn, 1.0)
    at = figure.body_point(0.02 + 0.2 * figure.turn, stage.rng.uniform(0.1, 0.26))
    hands = ((at[0] - 0.02, at[1] + 0.03), (at[0] + 0.02, at[1] + 0.03))
    figure.lift(*hands) if figure.turn < 0.5 else figure.reach(*hands, near_side=1.0, far_side=1.0)
    angle = stage.jitter(0.5)
    if figure.turn < 0.3:
        figure.draw(stage.canvas)
        props.phone(stage.canvas, at, angle=angle, screen=stage.chance(0.6))
    else:
        figure.draw(stage.canvas, between=lambda: props.phone(stage.canvas, at, angle=angle + 0.3))
    if stage.chance(0.2):
        props.bubble(stage.canvas, (at[0] + 0.16, at[1] - 0.16), cloth(stage), size=0.06)


def using_laptop(stage: Stage) -> None:
    """Laptops on tables, seen from the side, from behind or obliquely."""
    stage.open(focus=(0.04, -0.5), span=stage.rng.uniform(0.75, 1.15), places=ANY)
    if stage.chance(0.5):
        furniture.stool(stage.canvas, -0.22, cloth(stage))
        figure = seated_aside(stage.adult(), -0.22, lean=stage.rng.uniform(0.0, 0.3), nod=stage.rng.uniform(0.0, 0.3))
        figure.reach((0.12, -0.47), (0.15, -0.47), near_side=1.0, far_side=1.0)
        figure.draw_far_side(stage.canvas)
        furniture.table(stage.canvas, 0.22, cloth(stage))
        if stage.chance(0.5):
            props.laptop(stage.canvas, (0.27, -0.45), open_angle=stage.rng.uniform(0.0, 0.6), glow=cloth(stage))
        else:
            props.laptop_oblique(stage.canvas, (0.2, -0.43), screen=cloth(stage))
        figure.draw_near_arm(stage.canvas)
    else:
        figure = seated_front(stage.adult(), stage.jitter(0.03), seat=0.33, nod=stage.jitter(0.15))
        figure.gaze = (0.0, 0.9)
        figure.lift((-0.1, -0.46), (0.1, -0.46))
        figure.draw(stage.canvas)
        furniture.counter(stage.canvas, 0.0, cloth(stage), width=stage.rng.uniform(0.7, 1.1))
        props.laptop_back(stage.canvas, (0.0, -0.44), cloth(stage))
