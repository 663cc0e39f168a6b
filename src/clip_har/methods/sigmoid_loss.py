"""SigLIP's loss on a classification: every image and class prompt is a question of its own, "do they match?"

    L = -1/B sum_i sum_c log sigmoid(y_ic (s cos(x_i, t_c) + b)),   y_ic = 1 for the image's class, else -1

Zhai et al. 2023 (arXiv 2303.15343, eq. 1) with the classes' prompts in place of a batch's captions, so that an image's
own class is never a negative. Answers stay the softmax of the logits, which b does not change.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.methods.base import Batch, Task

# Shapes: N training images, B images, C classes.


def start_bias(task: Task) -> float:
    """The bias b that a training starts with: the model's own, or one for which sigmoid starts near softmax.

    For a model without one, b = -mean over the training images of logsumexp over the classes of the zero-shot logits:
    sigmoid(z_c - logsumexp(z)) = softmax_c / (1 + softmax_c).
    """
    if task.logit_bias is not None:
        return task.logit_bias
    logits_NC = task.logit_scale * task.train.table.embedding @ task.prompts_CD.T
    return -float(torch.logsumexp(logits_NC, dim=1).mean())


def weighted_sigmoid_loss(logits_BC: Tensor, bias: Tensor | float, batch: Batch) -> Tensor:
    """The loss with the batch's shares, margins and mixed labels: a scalar."""
    logits_BC = logits_BC.float() + bias
    if batch.offsets_BC is not None:
        logits_BC = logits_BC + batch.offsets_BC
    targets_BC = batch.targets_BC
    if targets_BC is None:
        targets_BC = F.one_hot(batch.labels_B, logits_BC.shape[1]).to(logits_BC.dtype)
    loss_BC = F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="none")
    return (loss_BC.sum(dim=1) * batch.weights_B).sum()
