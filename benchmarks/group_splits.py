"""How even folds of groups come out, dealt as here and by scikit-learn's StratifiedGroupKFold, and how long each takes.

    python benchmarks/group_splits.py [--folds 5] [--repeats 20]

Draws images in groups of sizes that fall off geometrically, of one class each or of two, and deals the groups into
folds. Says, over the repeats, the mean chi-square over folds and classes, sum((have - want)^2 / want), the furthest
that any fold's count of a class is off, in images, and the seconds for each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from clip_har.dataset.stratified_groups import Group, deal

Indices = NDArray[np.int64]
CASES = {
    "15 classes, groups of 1 to 10": (15, 600, 0.5, 0.0),
    "15 classes, large groups": (15, 200, 0.1, 0.0),
    "15 classes, groups of two classes": (15, 200, 0.2, 0.5),
}
"""Name -> classes, groups, parameter of the geometric sizes, share of groups of two classes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    ways: dict[str, Callable[[Indices, Indices, int, int], Indices]] = {"deal": dealt, "scikit-learn": by_scikit_learn}
    for case, (classes, groups, falling, mixed) in CASES.items():
        for way, cut in ways.items():
            measured = []
            for seed in range(arguments.repeats):
                labels_N, groups_N = drawn(classes, groups, falling, mixed, seed)
                start = time.perf_counter()
                folds_N = cut(labels_N, groups_N, arguments.folds, seed)
                measured.append((*unevenness(labels_N, folds_N, arguments.folds), time.perf_counter() - start))
            chi_square, furthest, seconds = np.mean(measured, axis=0)
            print(f"{case:34} {way:13} chi-square {chi_square:7.2f}, furthest off {furthest:5.2f}, {seconds:.3f} s")


def drawn(classes: int, groups: int, falling: float, mixed: float, seed: int) -> tuple[Indices, Indices]:
    """Class and group of every image."""
    random = np.random.default_rng(seed)
    labels, numbers = [], []
    for number, size in enumerate(random.geometric(falling, groups)):
        own = random.integers(0, classes, 2 if random.random() < mixed else 1)
        labels.append(random.choice(own, size))
        numbers.append(np.full(size, number))
    return np.concatenate(labels), np.concatenate(numbers)


def dealt(labels_N: Indices, groups_N: Indices, folds: int, seed: int) -> Indices:
    """The fold of every image, as `clip-har data split --folds` deals them."""
    groups = [
        Group(key=f"{number:06d}", counts=Counter(map(str, labels_N[groups_N == number])))
        for number in np.unique(groups_N)
    ]
    parts = deal(groups, (1 / folds,) * folds, seed=[seed], guarded=range(folds))
    return np.array(parts)[groups_N]


def by_scikit_learn(labels_N: Indices, groups_N: Indices, folds: int, seed: int) -> Indices:
    """The fold of every image by StratifiedGroupKFold."""
    folds_N = np.zeros_like(labels_N)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes smaller than the number of folds
        for fold, (_, held_out) in enumerate(splitter.split(labels_N, labels_N, groups_N)):
            folds_N[held_out] = fold
    return folds_N


def unevenness(labels_N: Indices, folds_N: Indices, folds: int) -> tuple[float, float]:
    """Chi-square, and the furthest that a count is off."""
    have_CF = np.zeros((labels_N.max() + 1, folds))
    np.add.at(have_CF, (labels_N, folds_N), 1)
    want_C1 = have_CF.sum(axis=1, keepdims=True).clip(1e-9) / folds
    off_CF = have_CF - want_C1
    return float((off_CF**2 / want_C1).sum()), float(np.abs(off_CF).max())


if __name__ == "__main__":
    main()
