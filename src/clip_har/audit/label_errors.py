"""Which labels a model that never saw them doubts: cross-validated probe probabilities, ranked by cleanlab.

Features come as an array; what is done about a suspect is decided by the person who looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from clip_har.audit.embeddings import Features
from clip_har.errors import UserError

FOLDS = 5
INVERSE_REGULARISATION = 10.0
"""scikit-learn's C, on features scaled to a mean squared length of 1."""
MAX_ITERATIONS = 300


@dataclass(frozen=True, kw_only=True)
class LabelDoubt:
    """One image whose label is in doubt."""

    index: int
    """Place of the image among those examined."""
    given: str
    given_probability: float
    suggested: str
    suggested_probability: float
    top: tuple[tuple[str, float], ...]
    """The most probable classes, best first."""


def label_doubts(
    features_NH: Features, labels: Sequence[str], groups_N: NDArray[np.int64], *, seed: int = 0, top: int = 3
) -> list[LabelDoubt]:
    """Images whose labels confident learning holds for wrong, the most doubtful first.

    Northcutt, Jiang and Chuang 2021, "Confident learning" (arXiv 1911.00068), by cleanlab's `find_label_issues`
    on out-of-fold probabilities: as many as the confident joint says there are errors, of lowest probability of the
    given label. With labels swapped on purpose, this filter finds more of them than cleanlab's default, at fewer
    suspects (`benchmarks/audit_recall.py`).

    Args:
        features_NH: features of N images.
        labels: their classes.
        groups_N: equal numbers for copies of one image, which never vouch for each other.
        seed: seed of the folds.
        top: how many classes to name for each image.

    Returns:
        The doubts; none where fewer than two classes have two images that differ.

    Raises:
        UserError: cleanlab is not installed.
    """
    find_label_issues = _cleanlab()
    names, labels_N = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    distinct = [len(np.unique(groups_N[labels_N == label])) for label in range(len(names))]
    testable = [label for label, count in enumerate(distinct) if count >= 2]
    if len(testable) < 2:
        return []
    examined = np.flatnonzero(np.isin(labels_N, testable))
    names, targets_M = names[testable], np.searchsorted(testable, labels_N[examined])
    folds = min(FOLDS, min(distinct[label] for label in testable))
    probabilities_MC = out_of_fold_probabilities(
        features_NH[examined], targets_M, groups_N[examined], folds=folds, seed=seed
    )
    ranked = find_label_issues(
        targets_M,
        probabilities_MC,
        filter_by="low_self_confidence",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [_doubt(int(examined[row]), int(targets_M[row]), probabilities_MC[row], names, top) for row in ranked]


def require_cleanlab() -> None:
    """Find out early whether labels can be examined.

    Raises:
        UserError: cleanlab is not installed.
    """
    if find_spec("cleanlab") is None:
        raise _missing_cleanlab()


def out_of_fold_probabilities(
    features_NH: Features, labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], *, folds: int, seed: int
) -> NDArray[np.float64]:
    """Class probabilities [N, C] of each image, from logistic regressions trained on the other folds.

    Folds are stratified by class as far as groups allow, which stay together. Every label in [0, C) occurs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    classes = int(labels_N.max()) + 1
    scaled_NH = features_NH - features_NH.mean(axis=0)
    scaled_NH /= float(np.sqrt(np.square(scaled_NH).sum(axis=1).mean())) or 1.0
    probabilities_NC = np.full((len(labels_N), classes), 1 / classes)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, held_out in splitter.split(scaled_NH, labels_N, groups_N):
        if len(np.unique(labels_N[train])) < 2:
            continue
        model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS, tol=1e-3)
        model.fit(scaled_NH[train], labels_N[train])
        probabilities_NC[held_out] = 0
        probabilities_NC[np.ix_(held_out, model.classes_)] = model.predict_proba(scaled_NH[held_out])
    return probabilities_NC


def _doubt(
    index: int, given: int, probabilities_C: NDArray[np.float64], names: NDArray[np.str_], top: int
) -> LabelDoubt:
    order = np.argsort(-probabilities_C, kind="stable")
    suggested = next(int(label) for label in order if label != given)
    return LabelDoubt(
        index=index,
        given=str(names[given]),
        given_probability=float(probabilities_C[given]),
        suggested=str(names[suggested]),
        suggested_probability=float(probabilities_C[suggested]),
        top=tuple((str(names[label]), float(probabilities_C[label])) for label in order[:top]),
    )


def _cleanlab() -> Callable[..., NDArray[np.int64]]:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise _missing_cleanlab() from error
    return find_label_issues  # type: ignore[no-any-return]


def _missing_cleanlab() -> UserError:
    return UserError(
        "Suspected label errors are found with cleanlab, which is not installed",
        remedy="pip install 'clip-har[audit]', or audit without a model: --no-embeddings.",
    )
