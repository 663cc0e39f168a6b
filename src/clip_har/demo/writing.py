"""Writes the demonstration set to disk as class folders, completing what an interrupted call has left.

How the pictures are drawn is told in scenes.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from clip_har.demo.scenes import ACTIONS, draw_action
from clip_har.errors import DataError

MARKER = ".clip-har-demo.json"
"""File that says with which arguments a folder was made, and whether it is complete."""

DRAWING_VERSION = 1
"""Counts up whenever the same seed would give other pictures."""

JPEG_QUALITY = 90


def write_dataset(
    out: Path,
    *,
    seed: int = 0,
    train_per_class: int = 60,
    test_per_class: int = 30,
    on_image: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw the demonstration set: `out/train/<class>/<class>_0000.jpg` and on, and `out/test` likewise.

    A complete set that was made with the same arguments is left as it is; an interrupted one is completed.

    Args:
        out: folder to write to; made if it is not there.
        seed: of all chance; equal seeds give equal pictures.
        train_per_class: training images per class.
        test_per_class: test images per class, from another random stream than the training images.
        on_image: called after each image with the number of images done and in all.

    Returns:
        `out`.

    Raises:
        DataError: `out` holds a set made with other arguments, or something else, or a number is negative.
    """
    if train_per_class < 0 or test_per_class < 0:
        raise DataError("A demonstration set cannot have a negative number of images", remedy="Ask for 0 or more.")
    recipe: dict[str, object] = {
        "drawing_version": DRAWING_VERSION,
        "seed": seed,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
    }
    if _state(out, recipe):
        return out
    out.mkdir(parents=True, exist_ok=True)
    _mark(out, recipe, complete=False)
    images = list(_images(train_per_class, test_per_class))
    for done, (split, action, number) in enumerate(images, start=1):
        folder = out / split / action
        folder.mkdir(parents=True, exist_ok=True)
        _write_image(folder / f"{action}_{number:04d}.jpg", action, Random(f"{seed}/{split}/{action}/{number}"))
        if on_image is not None:
            on_image(done, len(images))
    _mark(out, recipe, complete=True)
    return out


def _images(train_per_class: int, test_per_class: int) -> Iterator[tuple[str, str, int]]:
    for split, count in (("train", train_per_class), ("test", test_per_class)):
        for action in ACTIONS:
            for number in range(count):
                yield split, action, number


def _state(out: Path, recipe: dict[str, object]) -> bool:
    """Whether `out` is complete; raises when it holds something else than this set."""
    marker = out / MARKER
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{out} is not empty and holds no demonstration set", remedy="Name an empty or a new folder."
        ) from error
    if not isinstance(found, dict) or {name: found.get(name) for name in recipe} != recipe:
        raise DataError(
            f"{out} holds a demonstration set made with other settings",
            remedy="Name another folder, or delete it.",
        )
    return bool(found.get("complete"))


def _mark(out: Path, recipe: dict[str, object], *, complete: bool) -> None:
    partial = out / f"{MARKER}.tmp"
    partial.write_text(json.dumps({**recipe, "complete": complete}, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / MARKER)


def _write_image(path: Path, action: str, rng: Random) -> None:
    """Write one picture under its final name only when it is whole; leave it alone when it is there."""
    if path.exists():
        return
    partial = path.with_suffix(".tmp")
    draw_action(action, rng).save(partial, format="JPEG", quality=JPEG_QUALITY)
    partial.replace(path)
