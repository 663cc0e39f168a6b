"""Zero-shot classification: the baseline that every other method is measured against."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clip_har.methods.base import Classifier, ClassifierContext, Method, Task


class ZeroShotClassifier(Classifier):
    """Softmax over the cosine similarity of an image and each class's prompts, times the logit scale."""

    def __init__(self, prompts_CD: Tensor, logit_scale: float) -> None:
        super().__init__()
        self.prompts_CD: Tensor
        self.register_buffer("prompts_CD", prompts_CD)
        self.logit_scale = logit_scale

    def forward(self, embedding_BD: Tensor) -> Tensor:
        return self.logit_scale * embedding_BD @ self.prompts_CD.T


class ZeroShot(Method):
    """Radford et al. 2021, arXiv 2103.00020, section 3.1, with prompt ensembling (section 3.1.4)."""

    name = "zero-shot"
    source = "arXiv 2103.00020"
    has_weights = False

    def build(self, task: Task) -> ZeroShotClassifier:
        return ZeroShotClassifier(task.prompts_CD, task.logit_scale)

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> ZeroShotClassifier:
        del tensors  # nothing is trained
        return ZeroShotClassifier(frame.prompts_CD, frame.logit_scale)
