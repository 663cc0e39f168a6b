"""Model soup: the mean of the weights of several finished runs that share an architecture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.config import Settings, SourceSettings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, Method, Source, Task
from clip_har.methods.ensemble import SMALLEST
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.mixed_weights import MixedWeights

AVERAGED = ("full", "two-tier", "lp-ft")
"""Methods whose runs can be averaged. Two runs of LoRA cannot: the mean of A and of B is not the mean of B A."""


class Soup(MixedWeights):
    """theta = (theta_1 + ... + theta_k) / k of the k best members (Wortsman et al. 2022, arXiv 2203.05482).

    Runs that were fine-tuned from the same pretrained weights mostly lie in one basin of the loss, so that their mean
    is a model too, and errs less. Members are sorted by their cross-entropy on validation; the candidates are the means
    of the best one, the best two and so on. The paper's greedy soup tries the members in the same order, and may skip
    some. Unlike an ensemble, a soup costs one encoder pass for each image.
    """

    name = "soup"
    source = "arXiv 2203.05482"
    combines = ("full", "two-tier")
    chosen_by = "val_loss"

    @property
    def candidates(self) -> int:  # type: ignore[override]
        return len(self.settings.members)

    @classmethod
    def takes_member(cls, method: type[Method]) -> bool:
        return method.name in AVERAGED

    @classmethod
    def check_together(cls, methods: Sequence[str]) -> None:
        """Those with a head of their own cannot be averaged with those without."""
        for name in methods:
            if (name == "lp-ft") != (methods[0] == "lp-ft"):
                raise _cannot_be_averaged(methods[0], name)

    @classmethod
    def origin_of(cls, config: TrainConfig | Settings) -> SourceSettings:
        if not isinstance(config, Settings) or not config.members:
            raise ValueError("no members")
        return config.members[0]

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        return super().reads(config) if isinstance(config, Settings) else "image"

    def shown_settings(self) -> dict[str, Any]:
        return {"members": ", ".join(member.settings.preset or member.method for member in self.settings.members)}

    def build(self, task: Task) -> Classifier:
        require_one_architecture(task.members)
        return self.origin().restore(task, task.members[0].tensors)

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.origin().zero_shot_tensors(frame, tensors)

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        origin, live = self.origin(), classifier.state_dict()
        order = sorted(range(len(task.members)), key=lambda number: _loss(task.members[number]))
        for count in range(1, len(order) + 1):
            chosen = [task.members[number].tensors for number in order[:count]]
            for key, tensor in mean_tensors(chosen).items():
                live[origin.state_key(key)].copy_(tensor)
            yield Candidate(description=self._named(order[:count]), train_loss=math.nan)

    def _named(self, order: Sequence[int]) -> str:
        members = [self.settings.members[number] for number in order]
        return "mean of " + ", ".join(f"{each.method} (seed {each.settings.seed})" for each in members)


def mean_tensors(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors of the same names and shapes, computed in float32, in the first one's types."""
    return {
        key: torch.stack([each[key].float() for each in members]).mean(dim=0).to(tensor.dtype)
        for key, tensor in members[0].items()
    }


def require_one_architecture(members: Sequence[Source]) -> None:
    """Refuse members whose weights cannot be averaged.

    Raises:
        ConfigError: tensors of other names or shapes.
    """
    shapes = [{key: tensor.shape for key, tensor in member.tensors.items()} for member in members]
    for member, shape in zip(members, shapes, strict=True):
        if shape != shapes[0]:
            raise _cannot_be_averaged(members[0].method.name, member.method.name)


def _cannot_be_averaged(first: str, other: str) -> ConfigError:
    return ConfigError(
        f"The weights of runs of {first} and {other} cannot be averaged",
        remedy=f"Pass runs of {', '.join(AVERAGED[:-1])} or of {AVERAGED[-1]} from the same pretrained model.",
    )


def _loss(member: Source) -> float:
    """Cross-entropy on the images that judge the members."""
    assert member.answers is not None
    log_NC = member.answers.probabilities_NC.clamp(min=SMALLEST).log()
    return float(F.nll_loss(log_NC, member.answers.labels_N))
