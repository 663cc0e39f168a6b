"""Which scenes the wide set is drawn from: for each action, one or more functions to choose among.

The drawing itself is in core_scenes.py, more_scenes.py and other_scenes.py; half of the pictures of the
demonstration's own actions share its compositions, in the wide set's styles.
"""

from __future__ import annotations

from collections.abc import Callable

from clip_har.demo.scenes import SCENES
from clip_har.demo.stage import Stage
from tiny_clip import core_scenes, more_scenes, other_scenes

Scene = Callable[[Stage], None]

WIDE_SCENES: dict[str, tuple[Scene, ...]] = {
    "calling": (core_scenes.calling, SCENES["calling"]),
    "clapping": (core_scenes.clapping, SCENES["clapping"]),
    "cycling": (core_scenes.cycling, SCENES["cycling"]),
    "dancing": (core_scenes.dancing, SCENES["dancing"]),
    "drinking": (core_scenes.drinking, SCENES["drinking"]),
    "eating": (core_scenes.eating, SCENES["eating"]),
    "fighting": (core_scenes.fighting, SCENES["fighting"]),
    "hugging": (core_scenes.hugging, SCENES["hugging"]),
    "laughing": (core_scenes.laughing, SCENES["laughing"]),
    "listening_to_music": (core_scenes.listening_to_music, SCENES["listening_to_music"]),
    "running": (core_scenes.running, SCENES["running"]),
    "sitting": (core_scenes.sitting, SCENES["sitting"]),
    "sleeping": (core_scenes.sleeping, SCENES["sleeping"]),
    "texting": (core_scenes.texting, SCENES["texting"]),
    "using_laptop": (core_scenes.using_laptop, SCENES["using_laptop"]),
    "reading": (more_scenes.reading, more_scenes.reading_seated),
    "writing": (more_scenes.writing,),
    "cooking": (more_scenes.cooking,),
    "waving": (more_scenes.waving,),
    "jumping": (more_scenes.jumping,),
    "climbing": (more_scenes.climbing,),
    "playing_guitar": (more_scenes.playing_guitar,),
    "kicking_ball": (more_scenes.kicking_ball,),
    "throwing_ball": (more_scenes.throwing_ball,),
    "swimming": (more_scenes.swimming,),
    "walking": (more_scenes.walking,),
    "walking_dog": (more_scenes.walking_dog,),
    "standing": (more_scenes.standing_still,),
    "painting": (more_scenes.painting,),
    "sweeping": (more_scenes.sweeping,),
    "pushing_cart": (more_scenes.pushing_cart,),
    "lifting_weights": (more_scenes.lifting_weights,),
    "praying": (other_scenes.praying,),
    "yoga": (other_scenes.yoga,),
    "photographing": (other_scenes.photographing,),
    "playing_violin": (other_scenes.playing_violin,),
    "playing_drums": (other_scenes.playing_drums,),
    "fishing": (other_scenes.fishing,),
    "holding_umbrella": (other_scenes.holding_umbrella,),
    "carrying_box": (other_scenes.carrying_box,),
    "pointing": (other_scenes.pointing,),
    "shaking_hands": (other_scenes.shaking_hands,),
    "skateboarding": (other_scenes.skateboarding,),
    "brushing_teeth": (other_scenes.brushing_teeth,),
    "singing": (other_scenes.singing,),
    "watching_tv": (other_scenes.watching_tv,),
    "crying": (other_scenes.crying,),
    "watering_plants": (other_scenes.watering_plants,),
    "playing_tennis": (other_scenes.playing_tennis,),
    "crawling": (other_scenes.crawling,),
    "smoking": (other_scenes.smoking,),
    "taking_selfie": (other_scenes.taking_selfie,),
}
