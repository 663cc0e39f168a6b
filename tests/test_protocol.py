"""A run that was trained on or with something else is refused, and told what differs and what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from clip_har.errors import RunError
from clip_har.protocol import ASPECTS, Protocol, differing, hash_prompts, require_same

THEN = Protocol(
    model="a" * 64,
    model_name="demo",
    activation="QuickGELU",
    features="",
    images="b" * 64,
    classes=("running", "sitting"),
    prompts=hash_prompts(["a {}"], {"running": "running", "sitting": "sitting"}),
)


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        (
            {"model": "c" * 64, "model_name": "RN50"},
            "run was trained on demo (weights aaaaaaaaaaaa), but RN50 has weights cccccccccccc",
            "--model",
        ),
        (
            {"activation": "GELU", "model_name": "RN50:file.pt"},
            "run was trained on demo with QuickGELU, but RN50:file.pt has GELU",
            "--model",
        ),
        ({"features": "attnpool.c_proj"}, "run was trained by an earlier version", "Train it again"),
        ({"images": ""}, "run was trained on other images or another split of them", "--data"),
        ({"classes": ("running",)}, "run was trained on other classes", "--hold-out"),
        (
            {"prompts": hash_prompts(["a {}"], {"running": "jogging"})},
            "run was trained with other prompts",
            "--templates",
        ),
    ],
)
def test_what_differs_is_said_with_its_remedy(change: dict[str, Any], said: str, remedy: str) -> None:
    now = dataclasses.replace(THEN, **change)
    assert differing(THEN, now) == next(aspect for aspect in ASPECTS if aspect in change)
    with pytest.raises(RunError) as caught:
        require_same("run", THEN, now)
    assert caught.value.what.startswith(said) and remedy in caught.value.remedy
    with pytest.raises(RunError, match=r"Choose another --out\.$"):
        require_same("run", THEN, now, remedy="Choose another --out.")


def test_what_is_not_known_does_not_differ() -> None:
    assert differing(THEN, THEN) is None
    require_same("run", THEN, Protocol())
    require_same("run", dataclasses.replace(THEN, images=None), dataclasses.replace(THEN, images="other"))


def test_the_first_difference_is_that_of_the_model() -> None:
    now = dataclasses.replace(THEN, model="other", images="other", prompts="other")
    assert differing(THEN, now) == "model"


def test_prompts_are_compared_by_content() -> None:
    assert hash_prompts(("a {}",), {"b": "x", "a": "y"}) == hash_prompts(["a {}"], {"a": "y", "b": "x"})
    assert hash_prompts(["a {}"], {"a": "y"}) != hash_prompts(["a {}", "b {}"], {"a": "y"})
