"""Linear probe: multinomial logistic regression on the frozen features before the projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from clip_har.config import Settings, TrainConfig
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, InputKind, SolvedMethod, Task

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Shapes: N images, C classes, H width of the features.

INVERSE_REGULARISATION = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Candidates for scikit-learn's C, on features scaled to a mean squared length of 1; chosen on validation."""
MAX_ITERATIONS = 1000


class LinearProbeClassifier(Classifier):
    """logits = W x + b, on the unscaled features."""

    reads = "hidden"

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)

    def forward(self, hidden_BH: Tensor) -> Tensor:
        return self.linear(hidden_BH)  # type: ignore[no-any-return]


class LinearProbe(SolvedMethod):
    """The linear evaluation of Radford et al. 2021 (arXiv 2103.00020, appendix A.3): L-BFGS, L2 swept on validation.

    Each candidate starts from the one before; the first from the zero-shot classifier where the tower has no
    projection, so that features and prompts share a space.
    """

    name = "linear-probe"
    answers_new_names = False
    source = "arXiv 2103.00020"
    candidates = len(INVERSE_REGULARISATION)

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "hidden"

    def build(self, task: Task) -> LinearProbeClassifier:
        classifier = LinearProbeClassifier(task.train.table.hidden.shape[1], len(task.classes))
        nn.init.zeros_(classifier.linear.weight)
        nn.init.zeros_(classifier.linear.bias)
        if classifier.linear.weight.shape == task.prompts_CD.shape and _same_space(task):
            with torch.no_grad():
                classifier.linear.weight.copy_(task.logit_scale * task.prompts_CD)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> LinearProbeClassifier:
        del frame
        classes, width = tensors["linear.weight"].shape
        classifier = LinearProbeClassifier(width, classes)
        classifier.load_state_dict(dict(tensors))
        return classifier

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        from sklearn.linear_model import LogisticRegression  # slow to import, and predicting does not need it

        assert isinstance(classifier, LinearProbeClassifier)
        features_NH = task.train.table.hidden
        labels_N = task.train.labels_N
        length = float(features_NH.square().sum(dim=1).mean().sqrt()) or 1.0
        scaled_NH = (features_NH / length).numpy()
        model = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-4, warm_start=True, random_state=task.seed)
        if len(task.classes) > 2:  # scikit-learn keeps one row of weights for two classes
            model.coef_ = classifier.linear.weight.detach().numpy().astype(scaled_NH.dtype) * length
            model.intercept_ = np.zeros(len(task.classes), dtype=scaled_NH.dtype)
        for inverse in INVERSE_REGULARISATION:
            model.set_params(C=inverse)
            model.fit(scaled_NH, labels_N.numpy())
            _copy_solution(model, classifier, length)
            with torch.inference_mode():
                loss = nn.functional.cross_entropy(classifier(features_NH), labels_N)
            yield Candidate(description=f"C={inverse:g}", train_loss=float(loss))


def _same_space(task: Task) -> bool:
    return task.train.table.hidden is task.train.table.embedding or torch.equal(
        task.train.table.hidden[:1], task.train.table.embedding[:1]
    )


def _copy_solution(model: LogisticRegression, classifier: LinearProbeClassifier, length: float) -> None:
    weight, bias = model.coef_ / length, model.intercept_
    if len(weight) == 1:  # two classes: the decision function is the second's logit less the first's
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        classifier.linear.weight.copy_(torch.from_numpy(weight))
        classifier.linear.bias.copy_(torch.from_numpy(bias))
