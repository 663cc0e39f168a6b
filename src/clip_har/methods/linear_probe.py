"""Linear probe: multinomial logistic regression on the frozen features before the projection."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.memory import one_thread
from clip_har.methods.base import Task
from clip_har.methods.labelled_images import LabelledImages
from clip_har.methods.linear_heads import Head, LinearHeadMethod

# Shapes: N images, C classes, H width of the features.

INVERSE_REGULARISATION = (10.0, 30.0, 100.0, 1000.0, 1.0)
"""Candidates for C, which divides the penalty, on features of unit length."""
MAX_ITERATIONS = 1000
GRADIENT_TOLERANCE = 1e-4
"""Of the mean loss, in the solver's coordinates."""
KEPT_CORRECTIONS = 20


class LinearProbe(LinearHeadMethod):
    """The linear evaluation of Radford et al. 2021 (arXiv 2103.00020, appendix A.3): L-BFGS, L2 swept."""

    name = "linear-probe"
    source = "arXiv 2103.00020"
    penalties = INVERSE_REGULARISATION
    symbol = "C"

    def path(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> Iterator[Head]:
        solver = _Logistic(features_NH, labels_N, classes)
        for inverse in self.penalties:
            yield solver.next(inverse)


class _Logistic:
    """Minimises the sum of cross-entropies + |W|^2 / (2 C) for one C after the other, each from the solution before.

    L-BFGS (Liu & Nocedal 1989, doi 10.1007/BF01589116) in coordinates V with W = L^-T V, where L L' bounds the loss's
    curvature (Boehning 1992, doi 10.1007/BF00048682): a fraction of the iterations that it needs in W.
    """

    def __init__(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> None:
        self._features_NH = features_NH
        self._targets_NC = F.one_hot(labels_N, classes).float()
        self._gram_HH = features_NH.T @ features_NH
        width = features_NH.shape[1]
        self._head = Head(weight_CH=torch.zeros(classes, width), bias_C=torch.zeros(classes))
        self._factor_HH = torch.eye(width)
        self._inverse = 1.0

    def next(self, inverse: float) -> Head:
        """The solution for another C."""
        self._inverse = inverse
        curvature_HH = self._gram_HH / self._targets_NC.shape[1]  # half the Gram matrix, at twice a class's share
        curvature_HH.diagonal().add_(1 / inverse)
        self._factor_HH = torch.linalg.cholesky(curvature_HH)
        self._head = self._minimise()
        return self._head

    def _minimise(self) -> Head:
        from scipy.optimize import minimize  # slow to import, and predicting does not need it

        features_NH, targets_NC = self._features_NH, self._targets_NC
        factor_HH, inverse, count = self._factor_HH, self._inverse, len(targets_NC)
        classes, width = self._head.weight_CH.shape

        def weights(point: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
            turned_XC = torch.from_numpy(point).float().view(width + 1, classes)
            return torch.linalg.solve_triangular(factor_HH.T, turned_XC[:-1], upper=True), turned_XC[-1]

        def loss_and_gradient(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            weight_HC, bias_C = weights(point)
            log_NC = torch.addmm(bias_C, features_NH, weight_HC).log_softmax(dim=1)
            error_NC = log_NC.exp() - targets_NC
            gradient_HC = torch.addmm(weight_HC, features_NH.T, error_NC, beta=1 / inverse)
            turned_HC = torch.linalg.solve_triangular(factor_HH, gradient_HC, upper=False)
            loss = -(targets_NC * log_NC).sum() + 0.5 / inverse * weight_HC.square().sum()
            gradient_XC = torch.cat([turned_HC, error_NC.sum(dim=0)[None]])
            return float(loss) / count, gradient_XC.div(count).double().flatten().numpy()

        start_XC = torch.cat([factor_HH.T @ self._head.weight_CH.T, self._head.bias_C[None]])
        with one_thread():
            found = minimize(
                loss_and_gradient,
                start_XC.double().flatten().numpy(),
                jac=True,
                method="L-BFGS-B",
                options={
                    "maxiter": MAX_ITERATIONS,
                    "maxfun": 2 * MAX_ITERATIONS,
                    "gtol": GRADIENT_TOLERANCE,
                    "ftol": 1e-7,
                    "maxcor": KEPT_CORRECTIONS,
                },
            )
        weight_HC, bias_C = weights(found.x)
        return Head(weight_CH=weight_HC.T.contiguous(), bias_C=bias_C.clone())


def probe_of_raw_features(task: Task, *, refit: bool = False) -> Head:
    """The probe of lowest validation loss, fitted on the training images' features as they are.

    The penalty is on features scaled to a mean squared length of 1.

    Args:
        refit: whether it is fitted again on the training and validation images, with the penalty that was best.
    """
    val_MH = task.val.table.hidden
    best_loss, best, best_inverse = float("inf"), None, 0.0
    for inverse, head in _raw_path(task.train, len(task.classes)):
        loss = float(F.cross_entropy(head(val_MH), task.val.labels_N))
        if loss < best_loss or best is None:
            best_loss, best, best_inverse = loss, head, inverse
    assert best is not None
    if not refit:
        return best
    path = _raw_path(task.train.joined(task.val), len(task.classes))
    return next(head for inverse, head in path if inverse == best_inverse)


def _raw_path(images: LabelledImages, classes: int) -> Iterator[tuple[float, Head]]:
    """The candidates for C from the strongest penalty to the weakest, each with its probe."""
    hidden_NH = images.table.hidden
    length = float(hidden_NH.square().sum(dim=1).mean().sqrt()) or 1.0
    solver = _Logistic(hidden_NH / length, images.labels_N, classes)
    for inverse in sorted(INVERSE_REGULARISATION):
        head = solver.next(inverse)
        yield inverse, Head(weight_CH=head.weight_CH / length, bias_C=head.bias_C)
