"""The images that a solver fits and is judged by: all of train and val by cross-validation (--refit), or each for one.

What is fitted is for the methods to say.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_har.methods.base import Candidate, Task
from clip_har.methods.cross_validation import fold_count, fold_numbers
from clip_har.methods.labelled_images import LabelledImages, OutOfFold

# Shapes: N images that are fitted, M images that are judged, C classes.


class Judged:
    """The images to fit, their folds, and the labels of those that judge."""

    def __init__(self, task: Task, *, refit: bool) -> None:
        self.fitted: LabelledImages = task.train.joined(task.val) if refit else task.train
        self.fold_N: Tensor | None = None
        """In cross-validation each image's fold; -1 is always fitted and never judged."""
        self.images = task.val
        """The images that judge."""
        if refit:
            self.fold_N = fold_numbers(self.fitted.labels_N, self.fitted.table.hashes, task.seed)
            self.images = self.fitted.subset(torch.nonzero(self.fold_N >= 0).flatten().tolist())
        self.labels_M = self.images.labels_N

    @property
    def folds(self) -> int:
        """How many folds there are; 0 without cross-validation."""
        return fold_count(self.fold_N)

    def candidate(self, description: str, train_loss: float, logits_MC: Tensor) -> Candidate:
        """A candidate with what it answered in cross-validation, where there is any."""
        out_of_fold = None
        if self.fold_N is not None:
            out_of_fold = OutOfFold(
                hashes=self.images.table.hashes, labels_N=self.labels_M, probabilities_NC=logits_MC.softmax(dim=1)
            )
        return Candidate(description=description, train_loss=train_loss, out_of_fold=out_of_fold)
