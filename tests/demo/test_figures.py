"""The geometry of figures and camera against naive references."""

from __future__ import annotations

import math
from random import Random

import pytest

from clip_har.demo.canvas import Camera, Canvas
from clip_har.demo.figures import FOREARM, UPPER_ARM, Figure, bend, sample_looks
from clip_har.demo.style import DEMO_STYLES, Point


def distance(first: Point, second: Point) -> float:
    return math.hypot(first[0] - second[0], first[1] - second[1])


@pytest.mark.parametrize("seed", range(20))
def test_bones_keep_their_lengths_and_reach_the_target(seed: int) -> None:
    rng = Random(seed)
    start, target = (rng.uniform(-1, 1), rng.uniform(-1, 1)), (rng.uniform(-1, 1), rng.uniform(-1, 1))
    first, second = rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0)
    joint, end = bend(start, target, first, second, rng.choice((-1, 1)))
    assert distance(start, joint) == pytest.approx(first, abs=1e-9)
    assert distance(joint, end) == pytest.approx(second, abs=1e-9)
    reachable = abs(first - second) + 1e-3 < distance(start, target) < (first + second) * 0.998
    if reachable:
        assert end == pytest.approx(target)
    else:
        gap = distance(start, target)
        along = (end[0] - start[0]) * (target[0] - start[0]) + (end[1] - start[1]) * (target[1] - start[1])
        assert along == pytest.approx(distance(start, end) * gap)


def test_the_side_decides_where_the_joint_goes() -> None:
    left, _ = bend((0.0, 0.0), (0.0, 1.0), 0.7, 0.7, 1.0)
    right, _ = bend((0.0, 0.0), (0.0, 1.0), 0.7, 0.7, -1.0)
    assert left[0] < 0 < right[0]
    assert left[0] == pytest.approx(-right[0])


def test_a_reaching_arm_ends_at_the_target() -> None:
    rng = Random(0)
    looks = sample_looks(rng, DEMO_STYLES.sample(rng))
    figure = Figure(looks)
    target = (figure.near_shoulder[0] - 0.1, figure.near_shoulder[1] + 0.2)
    figure.reach(near=target)
    assert figure.near_hand == pytest.approx(target)
    assert distance(figure.near_shoulder, figure.near_arm[0]) == pytest.approx(UPPER_ARM * looks.height)
    assert distance(figure.near_arm[0], figure.near_hand) == pytest.approx(FOREARM * looks.height)


def test_the_camera_maps_as_a_naive_rotation_does() -> None:
    camera = Camera(focus=(0.3, -0.5), span=2.0, tilt=0.4, mirrored=True)
    a, b, c, d, e, f = camera.affine(100)
    x, y = 0.9, -0.1
    u, v = -(x - 0.3) * 50, (y + 0.5) * 50
    expected = (
        50 + u * math.cos(0.4) - v * math.sin(0.4),
        50 + u * math.sin(0.4) + v * math.cos(0.4),
    )
    assert (a * x + b * y + c, d * x + e * y + f) == pytest.approx(expected)


def test_a_placed_canvas_draws_where_it_is_placed() -> None:
    rng = Random(0)
    style = DEMO_STYLES.sample(rng)
    style = type(style)(palette=style.palette)
    camera = Camera(focus=(0.0, 0.0), span=2.0)
    canvas = Canvas(size=64, supersample=2, camera=camera, style=style, rng=rng)
    canvas.placed((0.5, 0.5), angle=math.pi / 2, scale=0.5).box((0.5, 0.0), 0.2, 0.2, (255, 0, 0))
    image = canvas.finish()
    assert image.getpixel((48, 56)) == (255, 0, 0)
    assert image.getpixel((56, 48)) != (255, 0, 0)
