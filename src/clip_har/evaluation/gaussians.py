"""Mahalanobis distances of features to the classes, to tell unknown images by.

Which features and which shrinkage is experiment/unknown.py's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

# Shapes: N images, C classes, H width of the features.


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """One Gaussian per class with a shared covariance, and one of all images."""

    means_CH: Floats
    precision_HH: Floats
    """Inverse of the shrunk covariance within the classes."""
    mean_H: Floats
    background_HH: Floats
    """Inverse of the shrunk covariance of all images."""

    def scores(self, features_NH: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Minus the Mahalanobis distance to the nearest class (Lee et al. 2018, arXiv 1807.03888, equation 2), and
        minus its excess over the distance to the Gaussian of all images (Ren et al. 2021, arXiv 2106.09022, equation
        3): [N] and [N].
        """
        values_NH = np.asarray(features_NH, dtype=np.float64)
        nearest_N = np.min([_distances(values_NH - mean_H, self.precision_HH) for mean_H in self.means_CH], axis=0)
        return -nearest_N, _distances(values_NH - self.mean_H, self.background_HH) - nearest_N


def fit_gaussians(features_NH: npt.ArrayLike, labels_N: npt.ArrayLike, classes: int, shrinkage: float) -> Gaussians:
    """Fit to training images.

    Args:
        features_NH: of images of all classes.
        labels_N: class indices.
        classes: how many.
        shrinkage: (1 - shrinkage) S + shrinkage tr(S)/H I stands for a covariance S, as in `methods.gda`; in (0, 1].
    """
    values_NH, labels = np.asarray(features_NH, dtype=np.float64), np.asarray(labels_N)
    means_CH = np.stack([values_NH[labels == index].mean(axis=0) for index in range(classes)])
    mean_H = values_NH.mean(axis=0)
    return Gaussians(
        means_CH=means_CH,
        precision_HH=_precision(values_NH - means_CH[labels], shrinkage),
        mean_H=mean_H,
        background_HH=_precision(values_NH - mean_H, shrinkage),
    )


def _precision(residuals_NH: Floats, shrinkage: float) -> Floats:
    covariance_HH = residuals_NH.T @ residuals_NH / len(residuals_NH)
    variance = max(float(covariance_HH.diagonal().mean()), 1e-12)  # 0 where each class has one image
    shrunk_HH = (1 - shrinkage) * covariance_HH + shrinkage * variance * np.eye(len(covariance_HH))
    inverse_HH: Floats = np.linalg.inv(shrunk_HH)
    return inverse_HH


def _distances(residuals_NH: Floats, precision_HH: Floats) -> Floats:
    distances_N: Floats = np.einsum("nh,nh->n", residuals_NH @ precision_HH, residuals_NH)
    return distances_N
