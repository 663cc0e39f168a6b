"""What a method is: it turns a task into a classifier, by gradient steps or by solving for it.

A new method is one file beside this one and one line in `METHODS`. Training loops are in trainer.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from clip_har.features import FeatureTable

# Shapes: B images of a batch, N of a split, C classes, T prompt templates, D embedding width, H width before the
# projection.


@dataclass(frozen=True, kw_only=True)
class LabelledFeatures:
    """One split: features and class indices (int64 [N]) in the same order."""

    table: FeatureTable
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, kw_only=True)
class Task:
    """All a method may learn from. The test split is not in it."""

    classes: tuple[str, ...]
    captions_CTD: Tensor
    """Unit-length embedding of each class's sentence under each of the T prompt templates."""
    prompts_CD: Tensor
    """Unit-length prompt embedding per class: the mean over the templates, renormalised."""
    logit_scale: float
    """The backbone's factor on cosine similarities."""
    train: LabelledFeatures
    val: LabelledFeatures
    seed: int


class Classifier(nn.Module, ABC):
    """Features of B images -> logits [B, C]."""

    reads: ClassVar[Literal["embedding", "hidden"]] = "embedding"
    """Which features `forward` takes: unit-length embeddings [B, D], or those before the projection [B, H]."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor: ...

    @torch.inference_mode()
    def probabilities(self, table: FeatureTable, *, chunk: int = 8192) -> Tensor:
        """Class probabilities of all images of a table: float32 [N, C], rows sum to 1."""
        was_training = self.training
        self.eval()
        features = table.embedding if self.reads == "embedding" else table.hidden
        device = next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))
        parts = [self(part.to(device)).float().softmax(dim=-1).cpu() for part in features.split(chunk)]
        self.train(was_training)
        return torch.cat(parts)


class Method(ABC):
    """A way of adapting a backbone. `settings` is the run's flat configuration."""

    name: ClassVar[str]
    source: ClassVar[str]
    """The paper, or the place the method is known from."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    @abstractmethod
    def build(self, task: Task) -> Classifier:
        """The classifier before any training."""

    @abstractmethod
    def restore(self, prompts_CD: Tensor, logit_scale: float, tensors: Mapping[str, Tensor]) -> Classifier:
        """The trained classifier again, from the tensors that `tensors` gave.

        Raises:
            KeyError, RuntimeError: they are not the tensors of such a classifier.
        """

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        """What a run saves of the classifier: everything trained, nothing that the backbone or prompts give."""
        return {key: value.detach().cpu().contiguous() for key, value in classifier.named_parameters()}

    weights_file: ClassVar[str] = "classifier.safetensors"
    """Name of the file in the run folder that holds `tensors`."""

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        """JSON files that other tools need beside the weights: name -> content."""
        del classifier, backbone_name
        return {}


class GradientMethod(Method):
    """A method that trainer.fit trains by AdamW."""

    @abstractmethod
    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        """Trainable parameters with their learning rates, in AdamW's form; "lr" is the peak."""

    @abstractmethod
    def loss(self, classifier: Classifier, features: Tensor, labels_B: Tensor, task: Task) -> Tensor:
        """The batch's mean loss, a scalar. What is random in it draws from torch's global generator."""


class SolvedMethod(Method):
    """A method with a solver of its own; each candidate it yields competes on the validation split."""

    candidates: ClassVar[int]
    """How many candidates `solve` yields."""

    @abstractmethod
    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        """Set `classifier` to one candidate after the other."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One solution of a `SolvedMethod`."""

    description: str
    """What distinguishes it, such as "C=0.1"."""
    train_loss: float
