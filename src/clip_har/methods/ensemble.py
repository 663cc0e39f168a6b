"""Ensemble: the weighted mean of the calibrated answers of several finished runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Settings, SourceSettings, TrainConfig
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, Method, SolvedMethod, Source, Task
from clip_har.methods.cross_validation import fit_mixture
from clip_har.methods.labelled_images import InputKind, LabelledImages, OutOfFold
from clip_har.methods.registry import create_method, method_class
from clip_har.progress import SILENT, Progress

# Shapes: B images of a batch, N images that judge, K members, C classes.

Pooling = Literal["probabilities", "log-probabilities"]
POOLINGS: tuple[Pooling, ...] = ("probabilities", "log-probabilities")
"""The linear and the logarithmic opinion pool (Genest & Zidek 1986, doi 10.1214/ss/1177013825); saved as the index."""
ROUNDS = 50
SMALLEST = 1e-12
_PREFIX = "member_{}."


def pooled(log_probabilities_KBC: Tensor, weights_K: Tensor, pooling: Pooling) -> Tensor:
    """Log-probabilities of the mean answer, [B, C]."""
    if pooling == "log-probabilities":
        mean_BC: Tensor = torch.tensordot(weights_K, log_probabilities_KBC, dims=1)
        return mean_BC.log_softmax(dim=-1)
    mean_BC = torch.tensordot(weights_K, log_probabilities_KBC.exp(), dims=1)
    return mean_BC.clamp(min=SMALLEST).log()


def greedy_weights(log_probabilities_KNC: Tensor, labels_N: Tensor, pooling: Pooling, rounds: int = ROUNDS) -> Tensor:
    """Members' shares [K] by ensemble selection with replacement (Caruana et al. 2004, doi 10.1145/1015330.1015432).

    It starts with no member and adds, time and again, the one with which the mean's cross-entropy is lowest.
    """
    counts_K = torch.zeros(len(log_probabilities_KNC), dtype=torch.float64)
    best_counts_K, best_loss = counts_K, math.inf
    for _ in range(rounds):
        losses = []
        for member in range(len(counts_K)):
            tried_K = counts_K.clone()
            tried_K[member] += 1
            weights_K = (tried_K / tried_K.sum()).float()
            losses.append(float(F.nll_loss(pooled(log_probabilities_KNC, weights_K, pooling), labels_N)))
        chosen = min(range(len(losses)), key=losses.__getitem__)
        counts_K[chosen] += 1
        if losses[chosen] < best_loss:
            best_counts_K, best_loss = counts_K.clone(), losses[chosen]
    return (best_counts_K / best_counts_K.sum()).float()


class EnsembleClassifier(Classifier):
    """log of sum_k w_k p_k, or sum_k w_k log p_k, of the members' calibrated answers p_k.

    With members that read images, it reads images, and one more copy of the frozen image encoder answers for the
    others; for images whose features are cached, these are used.
    """

    small = False

    def __init__(self, frame: ClassifierContext, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.reads: InputKind = "image" if any(member.reads == "image" for member in members) else "both"  # type: ignore[misc]
        self.weights_K: Tensor
        self.sharpness_K: Tensor
        self.pooling: Tensor
        self.register_buffer("weights_K", torch.full((len(members),), 1 / len(members)))
        self.register_buffer("sharpness_K", torch.ones(len(members)))
        self.register_buffer("pooling", torch.tensor(0))
        self._width = frame.prompts_CD.shape[1]
        self._frame = frame
        self._frozen: tuple[Backbone, ...] = ()  # in a tuple, so that nn.Module does not look into it
        self.encode_frozen: Callable[[Tensor], Tensor] | None = None
        """Images -> features of the kind "both" for the other members, in place of a copy of the frozen encoder."""

    @property
    def visual(self) -> nn.Module:
        """The image encoder of the heaviest member that has one, to explain by."""
        towers = [index for index, member in enumerate(self._classifiers()) if member.reads == "image"]
        member = self.members[max(towers, key=lambda index: float(self.weights_K[index]))]
        return cast(nn.Module, getattr(member, "model", member).visual)

    def prepare(self) -> None:
        for member in self._classifiers():
            member.prepare()

    def forward(self, inputs: Tensor) -> Tensor:
        features = self._features(inputs) if self.reads == "image" else inputs
        logits = [
            member(inputs if member.reads == "image" else self._part(features, member.reads))
            for member in self._classifiers()
        ]
        return self._pooled(torch.stack([each.float().log_softmax(dim=-1) for each in logits]))

    @torch.no_grad()
    def probabilities(self, images: LabelledImages, *, chunk: int = 8192, progress: Progress = SILENT) -> Tensor:
        answers = [member.probabilities(images, chunk=chunk, progress=progress) for member in self._classifiers()]
        logs_KNC = torch.stack([answer.clamp(min=SMALLEST).log() for answer in answers])
        device = self.device
        return self._pooled(logs_KNC.to(device)).softmax(dim=-1).cpu()

    def _pooled(self, log_probabilities_KBC: Tensor) -> Tensor:
        calibrated_KBC = (self.sharpness_K[:, None, None] * log_probabilities_KBC).log_softmax(dim=-1)
        return pooled(calibrated_KBC, self.weights_K, POOLINGS[int(self.pooling)])

    def _classifiers(self) -> list[Classifier]:
        return list(self.members)  # type: ignore[arg-type]

    def _part(self, both_BX: Tensor, kind: InputKind) -> Tensor:
        if kind == "both":
            return both_BX
        return both_BX[:, : self._width] if kind == "embedding" else both_BX[:, self._width :]

    def _features(self, images_BCHW: Tensor) -> Tensor:
        if all(member.reads == "image" for member in self._classifiers()):
            return images_BCHW
        if self.encode_frozen is not None:
            return self.encode_frozen(images_BCHW)
        if not self._frozen:
            self._frozen = (self._frame.load_backbone(),)
        features = self._frozen[0].encode_images(images_BCHW.detach()).of_kind("both")
        return features.clone().to(images_BCHW.device)  # a copy that gradients of the other members may pass


class Ensemble(SolvedMethod):
    """The members' weights follow from their answers for images that none of them was fitted on.

    These are the validation images, and those of cross-validation where all members were fitted again on all images.
    Each member's answers are sharpened or softened first by temperature scaling (Guo et al. 2017, arXiv 1706.04599).
    """

    name = "ensemble"
    source = "doi 10.1145/1015330.1015432"
    answers_new_names = False
    refits = True
    combines = ("gda", "ridge", "proker")
    candidates = len(POOLINGS)
    chosen_by: ClassVar[str] = "val_loss"

    @classmethod
    def takes_member(cls, method: type[Method]) -> bool:
        return method.has_weights and not issubclass(method, Ensemble)

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        if not isinstance(config, Settings):
            return "both"
        kinds = {method_class(member.method, member.settings).reads(member.settings) for member in config.members}
        return "image" if "image" in kinds else "both"

    def shown_settings(self) -> dict[str, Any]:
        names = [member.settings.preset or member.method for member in self.settings.members]
        return {"members": ", ".join(names)}

    def members(self) -> list[Method]:
        """The members' methods."""
        return [create_method(member.method, member.settings) for member in self.settings.members]

    def build(self, task: Task) -> EnsembleClassifier:
        return EnsembleClassifier(task, [source.method.restore(task, source.tensors) for source in task.members])

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> EnsembleClassifier:
        methods = self.members()
        if not methods:
            raise ValueError("no members")
        parts = [
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            for prefix in (_PREFIX.format(number) for number in range(len(methods)))
        ]
        members = [method.restore(frame, part) for method, part in zip(methods, parts, strict=True)]
        classifier = EnsembleClassifier(frame, members)
        for name in ("weights_K", "sharpness_K", "pooling"):
            getattr(classifier, name).copy_(tensors[name])
        if not 0 <= int(classifier.pooling) < len(POOLINGS):
            raise ValueError("unknown pooling")
        return classifier

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        assert isinstance(classifier, EnsembleClassifier)
        found = {name: getattr(classifier, name).cpu().clone() for name in ("weights_K", "sharpness_K", "pooling")}
        for number, (method, member) in enumerate(zip(self.members(), classifier.members, strict=True)):
            assert isinstance(member, Classifier)
            found |= {_PREFIX.format(number) + key: value for key, value in method.tensors(member).items()}
        return found

    def trainable_params(self, classifier: Classifier) -> int:
        del classifier  # its weights are no longer trained
        return sum(member.trainable_params for member in self.settings.members)

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, EnsembleClassifier)
        answers = [_answers(source) for source in task.members]
        labels_N = answers[0].labels_N
        logs = [answer.probabilities_NC.clamp(min=SMALLEST).log() for answer in answers]
        sharpness_K = torch.tensor([fit_mixture(log_NC, None, labels_N).scale for log_NC in logs])
        calibrated_KNC = (sharpness_K[:, None, None] * torch.stack(logs)).log_softmax(dim=-1)
        classifier.sharpness_K.copy_(sharpness_K)
        for number, pooling in enumerate(POOLINGS):
            weights_K = greedy_weights(calibrated_KNC, labels_N, pooling)
            classifier.weights_K.copy_(weights_K)
            classifier.pooling.fill_(number)
            log_NC = pooled(calibrated_KNC, weights_K, pooling)
            yield Candidate(
                description=f"{pooling}: {_shares(self.settings.members, weights_K)}",
                train_loss=math.nan,
                out_of_fold=OutOfFold(
                    hashes=answers[0].hashes, labels_N=labels_N, probabilities_NC=log_NC.softmax(dim=-1)
                )
                if self.settings.refit
                else None,
            )


def _answers(source: Source) -> OutOfFold:
    assert source.answers is not None  # what collects the members asks each for them
    return source.answers


def _shares(members: Sequence[SourceSettings], weights_K: Tensor) -> str:
    """As in "gda 0.4, ridge 0.6"; members without weight are not named."""
    shares = zip(members, weights_K.tolist(), strict=True)
    return ", ".join(f"{member.settings.preset or member.method} {share:.2g}" for member, share in shares if share > 0)
