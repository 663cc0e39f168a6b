"""The wide set in memory: pictures rendered by several processes, with what their captions are made from.

Which scenes there are is told in core_scenes.py and more_scenes.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from clip_har.demo import ACTIONS
from clip_har.demo.figures import Looks
from clip_har.demo.stage import Stage
from tiny_clip.scenes import WIDE_SCENES
from tiny_clip.styles import WIDE_LIVELINESS, WIDE_STYLES

SIZE = 80
"""Side of the rendered pictures in pixels; training crops them to the model's size."""

ORDER: tuple[str, ...] = (*WIDE_SCENES, *ACTIONS, *ACTIONS, *ACTIONS)
"""The actions by turns; those of the demonstration set come four times as often."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one picture shows."""

    action: str
    place: str
    people: tuple[Looks, ...]


@dataclass(frozen=True, kw_only=True)
class WideSet:
    """Pictures and what they show, in the same order."""

    images: NDArray[np.uint8]
    """N x SIZE x SIZE x 3."""
    facts: list[Facts]


def render(seed: int, index: int) -> tuple[NDArray[np.uint8], Facts]:
    """Render one picture of the wide set."""
    rng = Random(f"wide/{seed}/{index}")
    action = ORDER[index % len(ORDER)]
    stage = Stage(rng, WIDE_STYLES.sample(rng), size=SIZE, supersample=3, liveliness=WIDE_LIVELINESS)
    rng.choice(WIDE_SCENES[action])(stage)
    image = np.asarray(stage.finish(), dtype=np.uint8)
    return image, Facts(action=action, place=stage.place, people=tuple(stage.people))


def _render_range(seed: int, start: int, stop: int) -> tuple[NDArray[np.uint8], list[Facts]]:
    pairs = [render(seed, index) for index in range(start, stop)]
    return np.stack([image for image, _ in pairs]), [facts for _, facts in pairs]


def render_all(seed: int, count: int, *, workers: int, on_done: Callable[[int], None]) -> WideSet:
    """Render `count` pictures; `on_done` is told how many are ready."""
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    facts: list[Facts] = []
    starts = list(range(0, count, 500))
    with ProcessPoolExecutor(max_workers=workers) as pool:
        stops = [min(start + 500, count) for start in starts]
        results = pool.map(_render_range, [seed] * len(starts), starts, stops)
        for start, (chunk, chunk_facts) in zip(starts, results, strict=True):
            images[start : start + len(chunk)] = chunk
            facts += chunk_facts
            on_done(len(facts))
    return WideSet(images=images, facts=facts)
