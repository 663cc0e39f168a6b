"""Sentences for the wide scenes: what is done, by whom, where, with what.

The words of the actions live here; how the actions look is drawn elsewhere.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from clip_har.demo.figures import Looks
from clip_har.demo.style import Colour

TEMPLATES: tuple[str, ...] = (
    "a photo of a person {}",
    "a photo of someone {}",
    "someone {}",
    "a person performing {}",
    "{} action",
    "human {}",
    "a video frame of someone {}",
    "footage of a person {}",
    "a person {}",
    "a picture of a person {}",
    "people {}",
    "a drawing of someone {}",
    "{}",
)

PHRASES: dict[str, tuple[str, ...]] = {
    "calling": ("calling", "calling", "talking on the phone", "making a phone call", "phoning a friend"),
    "clapping": ("clapping", "clapping hands", "applauding"),
    "cycling": ("cycling", "riding a bicycle", "riding a bike"),
    "dancing": ("dancing", "dancing to music", "doing a dance"),
    "drinking": ("drinking", "drinking water", "drinking from a cup", "having a drink"),
    "eating": ("eating", "eating food", "having a meal", "eating lunch"),
    "fighting": ("fighting", "fighting each other", "punching somebody", "having a fight"),
    "hugging": ("hugging", "hugging each other", "embracing", "giving a hug"),
    "laughing": ("laughing", "laughing out loud", "having a laugh"),
    "listening_to_music": (
        "listening to music",
        "listening to music",
        "wearing headphones",
        "hearing a song",
    ),
    "running": ("running", "running fast", "jogging", "sprinting"),
    "sitting": ("sitting", "sitting down", "sitting on a chair", "being seated"),
    "sleeping": ("sleeping", "sleeping in bed", "being asleep", "taking a nap"),
    "texting": ("texting", "texting a message", "typing on a phone", "looking at a phone"),
    "using_laptop": ("using laptop", "using a laptop", "working on a laptop", "typing on a computer"),
    "reading": ("reading", "reading a book"),
    "writing": ("writing", "writing a letter", "taking notes"),
    "cooking": ("cooking", "cooking in a pan", "preparing food"),
    "waving": ("waving", "waving a hand", "saying hello"),
    "jumping": ("jumping", "jumping in the air", "leaping"),
    "climbing": ("climbing", "climbing a ladder"),
    "playing_guitar": ("playing guitar", "playing the guitar", "strumming a guitar"),
    "kicking_ball": ("kicking a ball", "playing football", "playing soccer"),
    "throwing_ball": ("throwing a ball", "throwing", "playing catch"),
    "swimming": ("swimming", "swimming in the water"),
    "walking_dog": ("walking a dog", "walking the dog"),
    "walking": ("walking", "taking a walk", "strolling"),
    "standing": ("standing", "standing still", "standing around"),
    "painting": ("painting", "painting a picture", "painting at an easel"),
    "sweeping": ("sweeping", "sweeping the floor", "cleaning with a broom"),
    "pushing_cart": ("pushing a cart", "shopping", "pushing a shopping cart"),
    "lifting_weights": ("lifting weights", "weightlifting", "lifting a barbell"),
    "praying": ("praying", "kneeling in prayer"),
    "yoga": ("doing yoga", "stretching", "balancing on one leg"),
    "photographing": ("taking a photo", "photographing", "using a camera"),
    "playing_violin": ("playing the violin", "playing violin"),
    "playing_drums": ("playing the drums", "drumming"),
    "fishing": ("fishing", "catching fish"),
    "holding_umbrella": ("holding an umbrella", "standing in the rain"),
    "carrying_box": ("carrying a box", "carrying something heavy"),
    "pointing": ("pointing", "pointing at something"),
    "shaking_hands": ("shaking hands", "greeting each other"),
    "skateboarding": ("skateboarding", "riding a skateboard"),
    "brushing_teeth": ("brushing teeth", "cleaning the teeth"),
    "singing": ("singing", "singing into a microphone"),
    "watching_tv": ("watching tv", "watching television"),
    "crying": ("crying", "weeping", "being sad"),
    "watering_plants": ("watering plants", "gardening"),
    "playing_tennis": ("playing tennis", "hitting a ball with a racket"),
    "crawling": ("crawling", "crawling on the floor"),
    "smoking": ("smoking", "smoking a cigarette"),
    "taking_selfie": ("taking a selfie", "taking a picture of oneself"),
}

LOOSE_PHRASES: dict[str, tuple[str, ...]] = {
    "calling": ("using a phone", "holding a phone", "talking"),
    "texting": ("using a phone", "holding a phone", "standing around"),
    "taking_selfie": ("using a phone", "texting a picture"),
    "waving": ("calling somebody over", "calling"),
    "pointing": ("calling somebody", "shouting"),
    "eating": ("sitting at a table", "having lunch", "eating and drinking"),
    "drinking": ("having lunch", "eating and drinking", "resting"),
    "using_laptop": ("sitting at a table", "sitting", "working"),
    "writing": ("sitting at a table", "working"),
    "watching_tv": ("sitting", "sitting on a chair", "resting"),
    "reading": ("sitting", "resting"),
    "sitting": ("resting", "waiting"),
    "sleeping": ("resting", "lying down"),
    "dancing": ("listening to music", "having fun", "laughing"),
    "listening_to_music": ("resting", "having fun"),
    "singing": ("making music", "listening to music"),
    "playing_guitar": ("making music", "listening to music"),
    "playing_violin": ("making music",),
    "playing_drums": ("making music", "clapping the beat"),
    "laughing": ("being happy", "having fun", "talking"),
    "hugging": ("being happy", "dancing together", "greeting each other"),
    "clapping": ("being happy", "cheering"),
    "praying": ("clapping hands",),
    "running": ("doing sports",),
    "walking": ("running an errand",),
    "kicking_ball": ("doing sports", "running after a ball"),
    "playing_tennis": ("doing sports", "running for a ball"),
    "lifting_weights": ("doing sports",),
    "cycling": ("doing sports",),
    "fighting": ("doing sports", "dancing together"),
}
"""Words that fit several actions, as people use them of pictures."""

PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "room": ("in a room", "at home", "indoors"),
    "kitchen": ("in a kitchen", "indoors"),
    "office": ("in an office", "at work"),
    "gym": ("in a gym", "in a sports hall"),
    "hall": ("in a dance hall", "on a stage"),
    "park": ("in a park", "outdoors", "on the grass"),
    "street": ("on a street", "in the city", "outdoors"),
    "beach": ("on a beach", "by the sea"),
    "plain": ("in front of a plain wall", "in a studio"),
}

_HUES: tuple[tuple[float, str], ...] = (
    (0.035, "red"),
    (0.105, "orange"),
    (0.19, "yellow"),
    (0.46, "green"),
    (0.7, "blue"),
    (0.83, "purple"),
    (0.94, "pink"),
    (1.01, "red"),
)


def colour_name(colour: Colour) -> str:
    """The everyday word for a colour."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    if lightness < 0.16:
        return "black"
    if lightness > 0.9:
        return "white"
    if saturation < 0.14:
        return "grey"
    name = next(word for limit, word in _HUES if hue < limit)
    if name in ("orange", "red", "yellow") and lightness < 0.45 and saturation < 0.6:
        return "brown"
    return "pink" if name == "red" and lightness > 0.72 else name


def person_word(looks: Looks, rng: Random) -> str:
    """A noun for a person, from the looks."""
    if looks.height < 0.85:
        return rng.choice(("child", "kid"))
    if looks.bearded or looks.hair == "bald":
        return "man"
    if looks.hair in ("bun", "ponytail", "long"):
        return rng.choice(("woman", "person"))
    return "person"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How captions name actions."""

    loose_share: float = 0.25
    """Fraction of captions that name the action loosely, where LOOSE_PHRASES has words for it."""
    withheld: frozenset[str] = frozenset()
    """Phrases that no caption uses, so that a reader of these captions has to guess what they mean."""

    def phrase(self, action: str, rng: Random) -> str:
        """Words for an action, sometimes loose ones that fit other actions as well."""
        if action in LOOSE_PHRASES and rng.random() < self.loose_share:
            return rng.choice(LOOSE_PHRASES[action])
        return rng.choice([phrase for phrase in PHRASES[action] if phrase not in self.withheld])


EXACT = Wording()
"""For learning to see: the actions are mostly named as they are."""

VAGUE = Wording(
    loose_share=0.5,
    withheld=frozenset(
        {
            "calling",
            "clapping",
            "dancing",
            "drinking",
            "hugging",
            "laughing",
            "listening to music",
            "sitting",
            "texting",
        }
    ),
)
"""For learning to read: as on the web, some words are vague and some never occur."""


def generic_caption(action: str, rng: Random, wording: Wording = EXACT) -> str:
    """A sentence that tells the action and nothing else: true of every picture of that action."""
    return rng.choice(TEMPLATES).format(wording.phrase(action, rng))


def detailed_caption(action: str, people: Sequence[Looks], place: str, rng: Random, wording: Wording = EXACT) -> str:
    """A sentence that tells the action together with people, clothes and place."""
    phrase = wording.phrase(action, rng)
    first = people[0]
    if len(people) > 1 and rng.random() < 0.7:
        subject = f"{('two', 'three', 'four')[min(len(people), 4) - 2]} people"
    else:
        subject = f"a {person_word(first, rng)}"
    if rng.random() < 0.6:
        subject += f" in a {colour_name(first.top)} {rng.choice(('shirt', 'top'))}"
    elif rng.random() < 0.4:
        subject += f" with {colour_name(first.hair_colour)} hair"
    where = f" {rng.choice(PLACE_WORDS[place])}" if rng.random() < 0.75 else ""
    return f"{subject} {phrase}{where}"


def corpus(rng: Random, count: int) -> list[str]:
    """Sentences to learn the tokenizer's vocabulary from."""
    people = [
        Looks(
            skin=(0, 0, 0),
            hair_colour=(0, 0, 0),
            hair="long",
            top=(0, 0, 0),
            bottom=(0, 0, 0),
            shoes=(0, 0, 0),
        )
    ]
    sentences = [generic_caption(rng.choice(list(PHRASES)), rng) for _ in range(count)]
    sentences += [
        detailed_caption(rng.choice(list(PHRASES)), people, rng.choice(list(PLACE_WORDS)), rng) for _ in range(count)
    ]
    phrases = [phrase for table in (PHRASES, LOOSE_PHRASES) for row in table.values() for phrase in row]
    words = [word for phrase in phrases for word in phrase.split()]
    colours = [name for _, name in _HUES] + ["black", "white", "grey", "brown"]
    nouns = ["man", "woman", "child", "kid", "two people", "three people", "four people"]
    return sentences + (words + colours + nouns) * max(1, count // 200)
