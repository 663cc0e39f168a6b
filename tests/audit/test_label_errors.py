"""Suspected label errors: planted swaps are found, copies never vouch for each other, small classes are borne."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_har.audit import label_errors
from clip_har.audit.embeddings import Features
from clip_har.audit.label_errors import label_doubts, out_of_fold_probabilities
from clip_har.errors import UserError

CLASSES = ("cycling", "drinking", "running", "sitting")


def clusters(
    counts: Sequence[int], *, width: int = 16, spread: float = 0.6, seed: int = 0
) -> tuple[Features, list[str]]:
    """Features in one cluster per class, and the classes."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(len(counts), width))
    labels = [CLASSES[place] for place, count in enumerate(counts) for _ in range(count)]
    rows = np.concatenate(
        [centre + spread * random.normal(size=(n, width)) for centre, n in zip(centres, counts, strict=True)]
    )
    return rows.astype(np.float32), labels


def alone(count: int) -> NDArray[np.int64]:
    """Each image a group of its own."""
    return np.arange(count, dtype=np.int64)


def test_swapped_labels_are_found_with_their_true_class() -> None:
    rows, true = clusters([60, 60, 60, 60])
    given = list(true)
    swapped = {5: "running", 70: "cycling", 130: "sitting", 200: "drinking"}
    for index, label in swapped.items():
        given[index] = label
    doubts = label_doubts(rows, given, alone(240))
    assert {doubt.index for doubt in doubts} == set(swapped)
    for doubt in doubts:
        assert (doubt.given, doubt.suggested) == (swapped[doubt.index], true[doubt.index])
        assert doubt.given_probability < doubt.suggested_probability == doubt.top[0][1]
        assert len(doubt.top) == 3 and doubt.top[0][0] == doubt.suggested
    doubted = [doubt.given_probability for doubt in doubts]
    assert doubted == sorted(doubted)


def test_good_labels_are_not_doubted() -> None:
    rows, labels = clusters([50, 50, 50], spread=0.3)
    assert label_doubts(rows, labels, alone(150)) == []


def test_the_same_seed_gives_the_same_doubts() -> None:
    rows, labels = clusters([40, 40, 40], spread=1.5)
    first, again = (label_doubts(rows, labels, alone(120), seed=3) for _ in range(2))
    assert first == again and first
    assert label_doubts(rows, labels, alone(120), seed=4) != first


def test_a_copy_with_the_same_wrong_label_does_not_vouch_for_it() -> None:
    """Without groups the copies of a mislabelled image teach the probe the wrong label."""
    rows, given = clusters([60, 60], width=200, spread=1.2)
    copies = 6
    rows = np.concatenate([rows, np.repeat(rows[:1], copies - 1, axis=0)])
    given = ["drinking", *given[1:], *["drinking"] * (copies - 1)]
    groups = np.concatenate([alone(120), np.zeros(copies - 1, dtype=np.int64)])
    planted = {0, *range(120, 120 + copies - 1)}
    assert planted <= {doubt.index for doubt in label_doubts(rows, given, groups)}
    ungrouped = label_doubts(rows, given, alone(len(given)))
    assert not planted & {doubt.index for doubt in ungrouped}


def test_probabilities_come_from_folds_that_hold_no_image_of_the_group() -> None:
    """An image whose group is all there is of a class gets no probability of that class."""
    rows, labels = clusters([20, 20, 6])
    targets = np.array([CLASSES.index(label) for label in labels])
    groups = alone(46)
    groups[40:] = 40
    found = out_of_fold_probabilities(rows, targets, groups, folds=3, seed=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert not found[40:, 2].any()
    assert (found[:40].argmax(axis=1) == targets[:40]).all()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rare", [2, 4])
def test_a_small_class_is_judged_only_by_models_that_know_it(rare: int, seed: int) -> None:
    """Well apart, no image of it is doubted, whichever folds it falls into."""
    rows, labels = clusters([30, 30, rare], spread=0.2, seed=seed)
    assert label_doubts(rows, labels, alone(60 + rare), seed=seed) == []


def test_classes_of_one_image_are_left_out() -> None:
    rows, labels = clusters([30, 30, 1, 2], spread=0.2)
    groups = alone(63)
    groups[62] = groups[61]  # the two of the last class are copies
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doubts = label_doubts(rows, labels, groups)
    assert not {60, 61, 62} & {doubt.index for doubt in doubts}
    assert all(set(dict(doubt.top)) <= {"cycling", "drinking"} for doubt in doubts)


@pytest.mark.parametrize("counts", [[5], [5, 1], [1, 1, 1], [2, 1]])
def test_too_little_to_compare_gives_no_doubts(counts: list[int]) -> None:
    rows, labels = clusters(counts)
    assert label_doubts(rows, labels, alone(len(labels))) == []


def test_equal_features_give_no_crash() -> None:
    labels = ["cycling"] * 5 + ["running"] * 5
    assert isinstance(label_doubts(np.ones((10, 4), dtype=np.float32), labels, alone(10)), list)


def test_without_cleanlab_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UserError) as caught:
        label_errors.label_doubts(*clusters([5, 5]), alone(10))
    assert str(caught.value) == (
        "Suspected label errors are found with cleanlab, which is not installed. "
        "pip install 'clip-har[audit]', or audit without a model: --no-embeddings."
    )
