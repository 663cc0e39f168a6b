"""Stratified folds of the images at hand, and the mixture of two kinds of logits that fits their labels best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clip_har.memory import one_thread

# Shapes: N images, C classes.

FOLDS = 5
LARGEST_WEIGHT = 1e4
"""Of zero-shot logits and of a head's, in units of their spread."""


def fold_numbers(labels_N: Tensor, hashes: Sequence[str], seed: int, folds: int = FOLDS) -> Tensor:
    """Each image's fold, int64 [N]: every class is spread evenly, and equal files are together.

    A class with one distinct image is in no fold (-1): nothing could be fitted without it.
    """
    draw = np.random.default_rng(seed)
    labels = labels_N.tolist()
    first = {sha256: index for index, sha256 in reversed(list(enumerate(hashes)))}
    fold_of: dict[str, int] = {}
    begin = 0
    for label in sorted(set(labels)):
        own = sorted(sha256 for sha256, index in first.items() if labels[index] == label)
        if len(own) < 2:
            fold_of.update(dict.fromkeys(own, -1))
            continue
        draw.shuffle(own)
        for number, sha256 in enumerate(own):
            fold_of[sha256] = (begin + number) % folds
        begin += len(own)  # so that small classes do not all begin with fold 0
    used = sorted(set(fold_of.values()) - {-1})
    place = {fold: number for number, fold in enumerate(used)} | {-1: -1}
    return torch.tensor([place[fold_of[sha256]] for sha256 in hashes], dtype=torch.int64)


def fold_count(fold_N: Tensor | None) -> int:
    """How many folds there are; 0 without cross-validation."""
    return 0 if fold_N is None else int(fold_N.max()) + 1


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """scale * logits + zero_shot_weight * zero-shot logits."""

    scale: float
    zero_shot_weight: float


def fit_mixture(logits_NC: Tensor, zero_shot_NC: Tensor | None, labels_N: Tensor) -> Mixture:
    """The weights of least cross-entropy; both are at least 0, and the problem is convex, so there is one answer.

    Cross-entropy is taken as if one more image were of no known class, as Platt 1999 does in "Probabilistic outputs for
    support vector machines", section 2.2: else no scale would be large enough where every answer is right.
    """
    from scipy.optimize import minimize  # slow to import, and predicting does not need it

    parts = [logits_NC.double()] + ([] if zero_shot_NC is None else [zero_shot_NC.double()])
    units = [max(float(_spread(part)), 1e-12) for part in parts]
    stacked_KNC = torch.stack([part / unit for part, unit in zip(parts, units, strict=True)])
    smoothing = 1 / (len(labels_N) + 1)
    targets_NC = torch.full(logits_NC.shape, smoothing / logits_NC.shape[1], dtype=torch.float64)
    targets_NC[torch.arange(len(labels_N)), labels_N] += 1 - smoothing

    def loss_and_gradient(weights_K: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        mixed_NC = torch.tensordot(torch.from_numpy(weights_K), stacked_KNC, dims=1)
        log_NC = mixed_NC.log_softmax(dim=1)
        error_NC = log_NC.exp() - targets_NC
        gradient_K = (stacked_KNC * error_NC).sum(dim=(1, 2)) / len(labels_N)
        return float(-(targets_NC * log_NC).sum() / len(labels_N)), gradient_K.numpy()

    with one_thread():  # many small questions
        found = minimize(
            loss_and_gradient,
            np.ones(len(parts)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, LARGEST_WEIGHT)] * len(parts),
        )
    weights = [float(weight) / unit for weight, unit in zip(found.x, units, strict=True)]
    return Mixture(scale=weights[0], zero_shot_weight=weights[1] if len(weights) > 1 else 0.0)


def _spread(logits_NC: Tensor) -> Tensor:
    """Standard deviation around each image's mean, a scalar."""
    return (logits_NC - logits_NC.mean(dim=1, keepdim=True)).square().mean().sqrt()
