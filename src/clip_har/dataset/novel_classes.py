"""Classes kept out of training, to see what it does to actions that a model was never shown.

What is measured on them is in experiment/novel_classes.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clip_har.dataset.classes import spelling
from clip_har.dataset.records import ActionDataset
from clip_har.errors import ConfigError

_FEWEST = 2
"""Classes on either side: with a single class every prediction is correct."""


def novel_class_names(classes: Sequence[str], asked: Sequence[str], seed: int) -> tuple[str, ...]:
    """The classes meant by --hold-out, in the order of `classes`.

    Args:
        classes: of the dataset, sorted.
        asked: names of classes, whose case and separators do not matter; or one number, of classes to draw.
        seed: of the draw.

    Raises:
        ConfigError: an unknown class, or fewer than two classes held out or left.
    """
    if len(asked) == 1 and asked[0].isdecimal() and asked[0] not in classes:
        chosen = set(_drawn(classes, int(asked[0]), seed))
    else:
        chosen = {_known(name, classes) for name in asked}
    for count, said in ((len(chosen), "holds out"), (len(classes) - len(chosen), "leaves")):
        if count < _FEWEST:
            raise ConfigError(
                f"--hold-out {','.join(asked)} {said} {max(count, 0)} of {len(classes)} classes",
                remedy="Hold out at least two classes and keep at least two; with one class, accuracy is always 100 %.",
            )
    return tuple(name for name in classes if name in chosen)


def split_novel(dataset: ActionDataset, held_out: Sequence[str]) -> tuple[ActionDataset, ActionDataset]:
    """The dataset without some of its classes, and those alone."""
    return (
        _of_classes(dataset, [name for name in dataset.classes if name not in set(held_out)]),
        _of_classes(dataset, [name for name in dataset.classes if name in set(held_out)]),
    )


def merge_novel(base: ActionDataset, novel: ActionDataset) -> ActionDataset:
    """What `divided` took apart."""
    return replace(
        base,
        classes=tuple(sorted((*base.classes, *novel.classes))),
        records=tuple(sorted((*base.records, *novel.records), key=lambda record: record.name)),
    )


def _of_classes(dataset: ActionDataset, classes: Sequence[str]) -> ActionDataset:
    kept = set(classes)
    return replace(
        dataset,
        classes=tuple(classes),
        records=tuple(record for record in dataset.records if record.label in kept),
    )


def _drawn(classes: Sequence[str], count: int, seed: int) -> Sequence[str]:
    order = np.random.default_rng(seed).permutation(len(classes))
    return [classes[index] for index in order[:count]]


def _known(name: str, classes: Sequence[str]) -> str:
    for known in classes:
        if spelling(known) == spelling(name):
            return known
    near = difflib.get_close_matches(name, classes, n=1)
    raise ConfigError(
        f"--hold-out lists the class {name!r}, which is not in the dataset",
        remedy=f"Did you mean {near[0]!r}?" if near else f"Its classes: {', '.join(classes)}.",
    )
