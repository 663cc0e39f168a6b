"""Methods that compute weights from those of finished runs: their classifier is that of another method, the origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clip_har.config import Settings, SourceSettings, TrainConfig
from clip_har.methods.base import Classifier, ClassifierContext, Method, SolvedMethod
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.registry import create_method, method_class


class MixedWeights(SolvedMethod):
    """A method that mixes the weights of runs of one method, the origin; the result is a classifier of that method."""

    @classmethod
    @abstractmethod
    def origin_of(cls, config: TrainConfig | Settings) -> SourceSettings:
        """The run whose method is the origin.

        Raises:
            ValueError: the config does not name it yet.
        """

    def origin(self) -> Method:
        """The method whose weights these are."""
        source = self.origin_of(self.settings)
        return create_method(source.method, source.settings)

    @property
    def answers_new_names(self) -> bool:  # type: ignore[override]
        """As the origin."""
        return self.origin().answers_new_names

    @property
    def weights_file(self) -> str:  # type: ignore[override]
        return self.origin().weights_file

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        source = cls.origin_of(config)
        return method_class(source.method, source.settings).reads(source.settings)

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        return self.origin().extra_files(classifier, backbone_name)

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Classifier:
        return self.origin().restore(frame, tensors)

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        return self.origin().tensors(classifier)

    def model_state(self, classifier: Classifier) -> dict[str, Tensor] | None:
        return self.origin().model_state(classifier)

    def trainable_params(self, classifier: Classifier) -> int:
        del classifier  # its weights are no longer trained
        return self.origin_of(self.settings).trainable_params
