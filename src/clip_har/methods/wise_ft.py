"""WiSE-FT: a trained run's weights, interpolated with the zero-shot ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from clip_har.config import Settings, SourceSettings, TrainConfig
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, InterpolatedMethod, Source, Task
from clip_har.methods.mixed_weights import MixedWeights

_DESCRIPTION = "alpha="


class WiseFt(MixedWeights, InterpolatedMethod):
    """theta(alpha) = (1 - alpha) theta_zero-shot + alpha theta_trained (Wortsman et al. 2021, arXiv 2109.01903, eq. 1).

    alpha is chosen by accuracy on validation among 0, 0.1, ... 1, so it is never below the better of its two ends
    there. Of a LoRA run the update is scaled, which is the same straight line; an lp-ft run's line begins at its probe.
    """

    name = "wise-ft"
    source = "arXiv 2109.01903"
    shares = tuple(step / 10 for step in range(11))
    candidates = len(shares)
    chosen_by = "val_accuracy"
    starts_from = "full"

    purpose_of_source = "interpolates a trained run with the zero-shot weights"

    @classmethod
    def origin_of(cls, config: TrainConfig | Settings) -> SourceSettings:
        if not isinstance(config, Settings) or config.source is None:
            raise ValueError("no run to start from")
        return config.source

    @classmethod
    def works_inside(cls, config: TrainConfig | Settings) -> bool:
        return isinstance(config, Settings) and super().works_inside(config)  # before, the run is not known

    def build(self, task: Task) -> Classifier:
        """The trained end."""
        return self.origin().restore(task, _source(task).tensors)

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        origin = self.origin()
        live = classifier.state_dict()
        for share, tensors in self.mixtures(task, _source(task).tensors):
            for key, tensor in tensors.items():
                live[origin.state_key(key)].copy_(tensor)
            yield Candidate(description=f"{_DESCRIPTION}{share:g}", train_loss=math.nan)

    def mixtures(
        self, frame: ClassifierContext, trained: Mapping[str, Tensor]
    ) -> Iterator[tuple[float, dict[str, Tensor]]]:
        zero_shot = self.origin().zero_shot_tensors(frame, trained)
        for share in self.shares:
            yield share, mixed(zero_shot, trained, share)

    def share_of(self, candidate: str) -> float:
        return float(candidate.removeprefix(_DESCRIPTION))


def mixed(zero_shot: Mapping[str, Tensor], trained: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) of the zero-shot tensors and alpha of the trained ones, in these' types."""
    return {
        key: torch.lerp(zero_shot[key].float().cpu(), tensor.float(), alpha).to(tensor.dtype)
        for key, tensor in trained.items()
    }


def _source(task: Task) -> Source:
    assert task.source is not None  # refused before, where it is missing
    return task.source
