"""Ridge classification: least squares to class indicators, solved for every penalty by one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.methods.cross_validation import fold_count
from clip_har.methods.linear_heads import Head, HeadData, LinearHeadMethod, Solution

# Shapes: N images, C classes, H width of the features; X = H + 1 with the constant.


class Ridge(LinearHeadMethod):
    """Hoerl & Kennard 1970 (doi 10.1080/00401706.1970.10488634), of class indicators as in RLSC (Rifkin et al. 2003).

        W = (Z' V Z + k I)^-1 Z' V Y

    with features Z and a constant, V weighting each class alike whatever its size, and Y = 1 - 1/C for an image's own
    class, -1/C for others; k is a multiple of the mean eigenvalue. With Z' V Z = Q E Q' every k costs one product. Nor
    does cross-validation fit anything again: with residuals e and hat matrix A, the residuals of a fold f without it
    are (I - A_ff)^-1 e_f (Hastie, Tibshirani & Friedman 2009, section 7.10, with blocks in place of single images).
    """

    name = "ridge"
    source = "doi 10.1080/00401706.1970.10488634"
    penalties = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 3.0, 10.0)
    symbol = "penalty"

    def path(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> Iterator[Head]:
        problem = _Weighted(features_NH, labels_N, classes)
        for penalty in self.penalties:
            yield problem.head(penalty)

    def solutions(self, data: HeadData) -> Iterator[Solution]:
        if data.fold_N is None:
            yield from super().solutions(data)
            return
        problem = _Weighted(data.features_NH, data.labels_N, data.classes)
        for penalty in self.penalties:
            logits_NC = problem.out_of_fold(penalty, data.fold_N)
            yield Solution(penalty=penalty, head=problem.head(penalty), judged_MC=logits_NC[data.fold_N >= 0])


class _Weighted:
    """The least-squares problem with weighted images, its matrix decomposed."""

    def __init__(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> None:
        counts_C = torch.bincount(labels_N, minlength=classes).clamp(min=1)
        self.root_N = (len(labels_N) / classes / counts_C.float()).sqrt()[labels_N]
        inputs_NX = F.pad(features_NH, (0, 1), value=1.0) * self.root_N[:, None]
        targets_NC = F.one_hot(labels_N, classes).float() - 1 / classes
        self.targets_NC = targets_NC * self.root_N[:, None]
        values_X, self.vectors_XX = torch.linalg.eigh(inputs_NX.T @ inputs_NX)
        self.values_X = values_X.clamp(min=0)
        self.unit = float(self.values_X[:-1].mean())  # the largest is the constant's
        self.rotated_NX = inputs_NX @ self.vectors_XX
        self.moments_XC = self.rotated_NX.T @ self.targets_NC

    def head(self, penalty: float) -> Head:
        weight_XC = self.vectors_XX @ (self._shrinkage(penalty)[:, None] * self.moments_XC)
        return Head(weight_CH=weight_XC[:-1].T.contiguous(), bias_C=weight_XC[-1].clone())

    def out_of_fold(self, penalty: float, fold_N: Tensor) -> Tensor:
        """Logits [N, C] of the heads without each image's fold; zeros for images of none."""
        shrinkage_X = self._shrinkage(penalty)
        residual_NC = self.targets_NC - self.rotated_NX @ (shrinkage_X[:, None] * self.moments_XC)
        logits_NC = torch.zeros_like(self.targets_NC)
        for fold in range(fold_count(fold_N)):
            own_N = fold_N == fold
            rotated_FX = self.rotated_NX[own_N]
            hat_FF = rotated_FX @ (shrinkage_X[:, None] * rotated_FX.T)
            left_out_FC: Tensor = torch.linalg.solve(torch.eye(len(hat_FF)) - hat_FF, residual_NC[own_N])
            logits_NC[own_N] = (self.targets_NC[own_N] - left_out_FC) / self.root_N[own_N, None]
        return logits_NC

    def _shrinkage(self, penalty: float) -> Tensor:
        shrinkage_X: Tensor = 1 / (self.values_X + penalty * max(self.unit, 1e-12))
        return shrinkage_X
