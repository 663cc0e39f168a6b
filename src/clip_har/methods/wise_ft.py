"""WiSE-FT: a trained run's weights, interpolated with the zero-shot ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clip_har.config import Settings, SourceSettings, TrainConfig
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, InterpolatedMethod, Method, Source, Task
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.registry import create_method, method_class

_DESCRIPTION = "alpha="


class WiseFt(InterpolatedMethod):
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

    @property
    def answers_new_names(self) -> bool:  # type: ignore[override]
        """As the run that it starts from."""
        return self.origin().answers_new_names

    purpose_of_source = "interpolates a trained run with the zero-shot weights"

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        source = _settings_of_source(config)
        return method_class(source.method, source.settings).reads(source.settings)

    @classmethod
    def works_inside(cls, config: TrainConfig | Settings) -> bool:
        return isinstance(config, Settings) and super().works_inside(config)  # before, the run is not known

    @property
    def weights_file(self) -> str:  # type: ignore[override]
        return self.origin().weights_file

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        return self.origin().extra_files(classifier, backbone_name)

    def build(self, task: Task) -> Classifier:
        """The trained end."""
        return self.origin().restore(task, _source(task).tensors)

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Classifier:
        return self.origin().restore(frame, tensors)

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        return self.origin().tensors(classifier)

    def model_state(self, classifier: Classifier) -> dict[str, Tensor] | None:
        return self.origin().model_state(classifier)

    def trainable_params(self, classifier: Classifier) -> int:
        del classifier  # its weights are no longer trained
        return _settings_of_source(self.settings).trainable_params

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

    def origin(self) -> Method:
        """The method whose weights these are."""
        source = _settings_of_source(self.settings)
        return create_method(source.method, source.settings)


def mixed(zero_shot: Mapping[str, Tensor], trained: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) of the zero-shot tensors and alpha of the trained ones, in these' types."""
    return {
        key: torch.lerp(zero_shot[key].float().cpu(), tensor.float(), alpha).to(tensor.dtype)
        for key, tensor in trained.items()
    }


def _settings_of_source(config: TrainConfig | Settings) -> SourceSettings:
    if not isinstance(config, Settings) or config.source is None:
        raise ValueError("no run to start from")
    return config.source


def _source(task: Task) -> Source:
    assert task.source is not None  # refused before, where it is missing
    return task.source
