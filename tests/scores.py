"""Random scores with known skill, that the tests of metrics share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]


def random_case(seed: int, n: int, n_classes: int, skill: float = 2.0) -> tuple[Scores, Targets]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), targets] += skill
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True), targets
