"""Which images and classes tell most about a run: confusions, confident mistakes, what fine-tuning fixed and broke."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from clip_har.evaluation import FloatArray, IntArray, compute_metrics, confused_pairs
from clip_har.evaluation.findings import ClassChange, ConfusedImages

# Shapes: N images, C classes.


def confidently_wrong(probabilities_NC: FloatArray, targets_N: IntArray) -> list[int]:
    """Indices of the wrong answers, the most confident first."""
    wrong = np.flatnonzero(probabilities_NC.argmax(axis=1) != targets_N)
    return [int(index) for index in wrong[np.argsort(-probabilities_NC[wrong].max(axis=1), kind="stable")]]


def hardest(probabilities_NC: FloatArray, targets_N: IntArray) -> list[int]:
    """Indices of all images, the one whose true class got the least probability first."""
    own_N = probabilities_NC[np.arange(len(targets_N)), targets_N]
    return [int(index) for index in np.argsort(own_N, kind="stable")]


def changed(before_NC: FloatArray, after_NC: FloatArray, targets_N: IntArray) -> tuple[list[int], list[int]]:
    """Indices of the images that fine-tuning fixed and of those that it broke, the most confident answers first."""
    was, now = before_NC.argmax(axis=1) == targets_N, after_NC.argmax(axis=1) == targets_N
    confidence = after_NC.max(axis=1)

    def ordered(chosen_N: npt.NDArray[np.bool_]) -> list[int]:
        indices = np.flatnonzero(chosen_N)
        return [int(index) for index in indices[np.argsort(-confidence[indices], kind="stable")]]

    return ordered(now & ~was), ordered(was & ~now)


def class_changes(
    before_NC: FloatArray, after_NC: FloatArray, targets_N: IntArray, classes: Sequence[str]
) -> tuple[ClassChange, ...]:
    """Gain and loss of every class."""
    was, now = before_NC.argmax(axis=1) == targets_N, after_NC.argmax(axis=1) == targets_N
    changes = []
    for index, name in enumerate(classes):
        own = targets_N == index
        support = int(own.sum())
        changes.append(
            ClassChange(
                name=name,
                support=support,
                baseline=float(was[own].mean()) if support else 0.0,
                finetuned=float(now[own].mean()) if support else 0.0,
                fixed=int((now & ~was & own).sum()),
                broken=int((was & ~now & own).sum()),
            )
        )
    return tuple(changes)


def confused_images(
    probabilities_NC: FloatArray,
    targets_N: IntArray,
    classes: Sequence[str],
    paths: Sequence[str],
    *,
    pairs: int = 8,
    examples: int = 6,
) -> tuple[ConfusedImages, ...]:
    """The most frequent confusions, each with its most confident images."""
    answers_N = probabilities_NC.argmax(axis=1)
    found = []
    for pair in confused_pairs(compute_metrics(probabilities_NC, targets_N, classes=classes, resamples=1), pairs):
        true, predicted = classes.index(pair.true), classes.index(pair.predicted)
        own = np.flatnonzero((targets_N == true) & (answers_N == predicted))
        order = own[np.argsort(-probabilities_NC[own, predicted], kind="stable")][:examples]
        found.append(
            ConfusedImages(
                true=pair.true,
                predicted=pair.predicted,
                count=pair.count,
                support=pair.support,
                paths=tuple(paths[index] for index in order),
            )
        )
    return tuple(found)


def chosen(lists: Sequence[Sequence[int]], others: Iterable[int], count: int) -> list[int]:
    """`count` indices, taken from the lists in turn so that each has its share, then from the others; none twice."""
    picked: dict[int, None] = {}
    for rank in range(max(map(len, lists), default=0)):
        for candidates in lists:
            if rank < len(candidates) and len(picked) < count:
                picked[candidates[rank]] = None
    for index in others:
        if len(picked) >= count:
            break
        picked[index] = None
    return list(picked)
