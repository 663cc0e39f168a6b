"""The scenes of the demonstration set: which actions there are and how a picture of one is made.

How each action is drawn stands in scenes_active.py, scenes_close.py and scenes_seated.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image

from clip_har.demo import scenes_active, scenes_close, scenes_seated
from clip_har.demo.stage import Stage
from clip_har.demo.style import DEMO_STYLES

SIZE = 160
"""Side of a picture in pixels."""

SCENES: dict[str, Callable[[Stage], None]] = {
    "calling": scenes_close.calling,
    "clapping": scenes_active.clapping,
    "cycling": scenes_active.cycling,
    "dancing": scenes_active.dancing,
    "drinking": scenes_close.drinking,
    "eating": scenes_seated.eating,
    "fighting": scenes_active.fighting,
    "hugging": scenes_active.hugging,
    "laughing": scenes_close.laughing,
    "listening_to_music": scenes_close.listening_to_music,
    "running": scenes_active.running,
    "sitting": scenes_seated.sitting,
    "sleeping": scenes_seated.sleeping,
    "texting": scenes_close.texting,
    "using_laptop": scenes_seated.using_laptop,
}

ACTIONS: tuple[str, ...] = tuple(SCENES)
"""The fifteen actions, in alphabetical order."""


def draw_action(action: str, rng: Random) -> Image.Image:
    """Draw one picture of an action.

    Args:
        action: one of `ACTIONS`.
        rng: the only source of chance; equal states give equal pictures.

    Returns:
        An RGB picture of `SIZE` by `SIZE` pixels.
    """
    stage = Stage(rng, DEMO_STYLES.sample(rng), size=SIZE)
    SCENES[action](stage)
    return stage.finish()
