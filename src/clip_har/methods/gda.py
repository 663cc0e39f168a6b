"""Gaussian discriminant analysis: one Gaussian per class with a shared covariance, next to the zero-shot classifier."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clip_har.methods.linear_heads import Head, LinearHeadMethod

# Shapes: N images, C classes, H width of the features.


class Gda(LinearHeadMethod):
    """Wang et al. 2024 (arXiv 2402.04087, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation").

    With class means m_c and the covariance S within classes, of features z, the Bayes classifier of equally frequent
    classes is linear:

        logit_c(z) = m_c' P z - m_c' P m_c / 2,    P = ((1 - shrinkage) S + shrinkage tr(S)/H I)^-1

    and zero-shot logits are added with a weight (their equation 8). Three things differ from the paper: the features
    are those before the projection, which tell classes apart better than the embeddings; the shrinkage is chosen, where
    theirs follows from the number of images and is far too small for thousands; and weight and scale minimise
    cross-entropy, so that the answers are probabilities.
    """

    name = "gda"
    source = "arXiv 2402.04087"
    penalties = (0.3, 0.6, 0.9, 0.1, 0.03, 0.01)
    symbol = "shrinkage"
    mixes_zero_shot = True

    def path(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> Iterator[Head]:
        counts_C = torch.bincount(labels_N, minlength=classes).clamp(min=1)
        sums_CH = torch.zeros(classes, features_NH.shape[1]).index_add_(0, labels_N, features_NH)
        means_CH = sums_CH / counts_C[:, None]
        centre_H = means_CH.mean(dim=0)
        residuals_NH = features_NH - means_CH[labels_N]
        covariance_HH = residuals_NH.T @ residuals_NH / len(features_NH)
        variance = covariance_HH.diagonal().mean().clamp(min=1e-12)  # 0 where each class has one image
        for shrinkage in self.penalties:
            shrunk_HH = (1 - shrinkage) * covariance_HH
            shrunk_HH.diagonal().add_(shrinkage * variance)
            factor_HH = torch.linalg.cholesky(shrunk_HH)
            weight_CH = torch.cholesky_solve((means_CH - centre_H).T, factor_HH).T
            yield Head(weight_CH=weight_CH, bias_C=-0.5 * (weight_CH * (means_CH + centre_H)).sum(dim=1))
