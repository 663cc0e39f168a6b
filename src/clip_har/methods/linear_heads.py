"""Linear classifiers on frozen features: what gda, ridge and linear-probe share.

Each offers solutions along a path of penalties, on the features under one of two transforms. They are compared by
cross-validation over the training and validation images, and the best is fitted again on all of them (--refit); without
it, they are fitted on the training images and compared on the validation images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.config import Settings, TrainConfig
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, SolvedMethod, Task
from clip_har.methods.cross_validation import fit_mixture, fold_count
from clip_har.methods.judged import Judged
from clip_har.methods.labelled_images import InputKind

# Shapes: N images that are fitted, M images that are judged, C classes, D embedding width, H width of the features.

Transform = Literal["none", "unit", "signed-sqrt"]
TRANSFORMS: tuple[Transform, ...] = ("none", "unit", "signed-sqrt")
"""What is done to features before a linear classifier; a run stores the index."""


def transformed(hidden_BH: Tensor, transform: Transform) -> Tensor:
    """Features as a linear classifier sees them, [B, H].

    "unit" scales them to unit length. "signed-sqrt" takes sign(x) sqrt(|x|) first, which evens out bursts of a few
    large activations (Perronnin, Sanchez & Mensink 2010, doi 10.1007/978-3-642-15561-1_11, section 3.1).
    """
    if transform == "none":
        return hidden_BH
    if transform == "signed-sqrt":
        hidden_BH = hidden_BH.sign() * hidden_BH.abs().sqrt()
    return F.normalize(hidden_BH, dim=-1)


@dataclass(frozen=True, kw_only=True)
class Head:
    """logits = W z + b on transformed features z."""

    weight_CH: Tensor
    bias_C: Tensor

    def __call__(self, features_NH: Tensor) -> Tensor:
        return features_NH @ self.weight_CH.T + self.bias_C


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A head for one penalty, with its logits for the images it is judged by, none of which it was fitted on.

    In cross-validation the logits are those of K other heads, each fitted without the fold that it answers for.
    """

    penalty: float
    head: Head
    judged_MC: Tensor


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """Transformed features with their labels, and how solutions are judged."""

    features_NH: Tensor
    labels_N: Tensor
    classes: int
    fold_N: Tensor | None
    """In cross-validation each image's fold; -1 is always fitted and never judged."""
    held_out_MH: Tensor
    """Without cross-validation, the images to judge by."""

    def rest(self, fold: int) -> tuple[Tensor, Tensor]:
        """Features and labels without a fold."""
        assert self.fold_N is not None
        return self.features_NH[self.fold_N != fold], self.labels_N[self.fold_N != fold]

    @property
    def folds(self) -> int:
        return fold_count(self.fold_N)

    def judged_logits(self, heads: tuple[Head, ...], whole: Head) -> Tensor:
        """Logits for the judged images, [M, C], from the head of each fold or else from the one head."""
        if self.fold_N is None:
            return whole(self.held_out_MH)
        logits_NC = torch.zeros(len(self.labels_N), self.classes)
        for fold, head in enumerate(heads):
            logits_NC[self.fold_N == fold] = head(self.features_NH[self.fold_N == fold])
        return logits_NC[self.fold_N >= 0]


class LinearHeadClassifier(Classifier):
    """logits = W z(x) + b, with x the features before the projection and z a transform of them."""

    reads: ClassVar[InputKind] = "hidden"

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.transform: Tensor
        self.register_buffer("transform", torch.tensor(0))

    def set(self, head: Head, transform: Transform, scale: float, zero_shot_weight: float) -> None:
        """Take over a head whose logits are multiplied by `scale`."""
        assert zero_shot_weight == 0.0 or isinstance(self, PromptedHeadClassifier)
        with torch.no_grad():
            self.linear.weight.copy_(scale * head.weight_CH)
            self.linear.bias.copy_(scale * head.bias_C)
            self.transform.fill_(TRANSFORMS.index(transform))

    def head_logits(self, hidden_BH: Tensor) -> Tensor:
        """W z(x) + b: [B, C]."""
        logits: Tensor = self.linear(transformed(hidden_BH, TRANSFORMS[int(self.transform)]))
        return logits

    def forward(self, hidden_BH: Tensor) -> Tensor:
        return self.head_logits(hidden_BH)


class PromptedHeadClassifier(LinearHeadClassifier):
    """logits = W z(x) + b + a s cos(e, prompts), with e the embedding, s CLIP's logit scale and a >= 0."""

    reads = "both"

    def __init__(self, frame: ClassifierContext, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.prompts_CD: Tensor
        self.zero_shot_weight: Tensor
        self.logit_scale = frame.logit_scale
        self.register_buffer("prompts_CD", frame.prompts_CD, persistent=False)
        self.register_buffer("zero_shot_weight", torch.tensor(0.0))

    def set(self, head: Head, transform: Transform, scale: float, zero_shot_weight: float) -> None:
        super().set(head, transform, scale, zero_shot_weight)
        self.zero_shot_weight.fill_(zero_shot_weight)

    def forward(self, both_BX: Tensor) -> Tensor:
        embedding_BD, hidden_BH = both_BX.split([self.prompts_CD.shape[1], self.linear.in_features], dim=1)
        zero_shot_BC = self.logit_scale * embedding_BD @ self.prompts_CD.T
        logits_BC: Tensor = self.head_logits(hidden_BH) + self.zero_shot_weight * zero_shot_BC
        return logits_BC


class LinearHeadMethod(SolvedMethod):
    """A method that is a path of heads, one for each penalty."""

    saves_buffers = True
    answers_new_names = False
    refits = True
    chosen_by = "val_loss"
    transforms: ClassVar[tuple[Transform, ...]] = ("unit", "signed-sqrt")
    penalties: ClassVar[tuple[float, ...]]
    """The first is tried with every transform, the others with the better transform."""
    symbol: ClassVar[str]
    """The penalty's, in the candidates' descriptions."""
    mixes_zero_shot: ClassVar[bool] = False

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "both" if cls.mixes_zero_shot else "hidden"

    @classmethod
    def penalty_of(cls, candidate: str) -> float:
        """The penalty that a candidate's description names.

        Raises:
            ValueError: it names none.
        """
        return float(candidate.rpartition(f"{cls.symbol}=")[2])

    @property
    def candidates(self) -> int:  # type: ignore[override]
        return len(self.transforms) + len(self.penalties) - 1

    @abstractmethod
    def path(self, features_NH: Tensor, labels_N: Tensor, classes: int) -> Iterator[Head]:
        """The head for each of the penalties, in their order."""

    def solutions(self, data: HeadData) -> Iterator[Solution]:
        """The heads with what they are judged by: here each fold's path is followed in step with the whole's."""
        whole = self.path(data.features_NH, data.labels_N, data.classes)
        without = [self.path(*data.rest(fold), data.classes) for fold in range(data.folds)]
        for penalty, head, *heads in zip(self.penalties, whole, *without, strict=True):
            yield Solution(penalty=penalty, head=head, judged_MC=data.judged_logits(tuple(heads), head))

    def build(self, task: Task) -> LinearHeadClassifier:
        return self._empty(task, task.train.table.hidden.shape[1], len(task.classes))

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> LinearHeadClassifier:
        classes, width = tensors["linear.weight"].shape
        classifier = self._empty(frame, width, classes)
        classifier.load_state_dict({"transform": torch.tensor(0), **tensors})
        if not 0 <= int(classifier.transform) < len(TRANSFORMS):
            raise ValueError("unknown transform of the features")
        return classifier

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, LinearHeadClassifier)
        judged = Judged(task, refit=self.settings.refit)
        prompts_MC = None
        if self.mixes_zero_shot:
            prompts_MC = task.logit_scale * judged.images.table.embedding @ task.prompts_CD.T
        paths = {transform: self.solutions(_data(judged, transform, task)) for transform in self.transforms}
        losses = {}
        for transform, path in paths.items():
            losses[transform], candidate = self._candidate(classifier, transform, next(path), judged, prompts_MC)
            yield candidate
        better = min(losses, key=losses.__getitem__)
        for solution in paths.pop(better):
            yield self._candidate(classifier, better, solution, judged, prompts_MC)[1]

    def _candidate(
        self,
        classifier: LinearHeadClassifier,
        transform: Transform,
        solution: Solution,
        judged: Judged,
        prompts_MC: Tensor | None,
    ) -> tuple[float, Candidate]:
        """Set the classifier to a solution; the cross-entropy of its answers, and the candidate."""
        mixture = fit_mixture(solution.judged_MC, prompts_MC, judged.labels_M)
        classifier.set(solution.head, transform, mixture.scale, mixture.zero_shot_weight)
        logits_MC = mixture.scale * solution.judged_MC
        if prompts_MC is not None:
            logits_MC = logits_MC + mixture.zero_shot_weight * prompts_MC
        with torch.no_grad():
            fitted = judged.fitted
            train_loss = float(F.cross_entropy(classifier(fitted.features(classifier.reads)), fitted.labels_N))
        description = f"{transform}, {self.symbol}={solution.penalty:g}"
        loss = float(F.cross_entropy(logits_MC, judged.labels_M))
        return loss, judged.candidate(description, train_loss, logits_MC)

    def _empty(self, frame: ClassifierContext, width: int, classes: int) -> LinearHeadClassifier:
        if self.mixes_zero_shot:
            return PromptedHeadClassifier(frame, width, classes)
        return LinearHeadClassifier(width, classes)


def _data(judged: Judged, transform: Transform, task: Task) -> HeadData:
    return HeadData(
        features_NH=transformed(judged.fitted.table.hidden, transform),
        labels_N=judged.fitted.labels_N,
        classes=len(task.classes),
        fold_N=judged.fold_N,
        held_out_MH=transformed(task.val.table.hidden, transform),
    )
