"""What a method is: it turns a task into a classifier, by gradient steps or by solving for it.

A new method is one file next to this one and one line in config/methods.py. Training loops are in trainer/.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import AugmentConfig, Defaults, OptimizerConfig, Settings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.methods.labelled_images import InputKind, LabelledImages, OutOfFold, over_files
from clip_har.progress import SILENT, Progress
from clip_har.prompts import class_phrase

# Shapes: B images of a batch, N of a split, C classes, T prompt templates, D embedding width, H width before the
# projection.

MAX_LOGIT_SCALE = 100.0
"""CLIP's own bound on the learned logit scale (arXiv 2103.00020, section 2.5)."""


@dataclass(frozen=True, kw_only=True)
class ClassifierContext:
    """What a classifier is set into: all that a finished run needs besides its own weights."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    prompts_CD: Tensor
    """Unit-length prompt embedding per class: the mean over the templates, renormalised."""
    logit_scale: float
    """The backbone's factor on cosine similarities."""
    load_backbone: Callable[[], Backbone]
    """A copy of the backbone in float32 that the caller may change."""
    logit_bias: float | None = None
    """What the backbone adds to the scaled similarities, if it was trained with the sigmoid loss."""
    phrases: tuple[str, ...] = ()
    """What stands for each class in the templates; empty: the words of its name."""

    @property
    def wordings(self) -> tuple[str, ...]:
        """What stands for each class in the templates."""
        return self.phrases or tuple(map(class_phrase, self.classes))


@dataclass(frozen=True, kw_only=True)
class Task(ClassifierContext):
    """All a method may learn from. The test split is not in it."""

    captions_CTD: Tensor
    """Unit-length embedding of each class's sentence under each of the T prompt templates."""
    train: LabelledImages
    val: LabelledImages
    seed: int
    source: Source | None = None
    """The run to start from, for methods that build on another."""
    members: tuple[Source, ...] = ()
    """The runs to combine, for methods that build on several."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished run that another method starts from."""

    method: Method
    tensors: Mapping[str, Tensor]
    answers: OutOfFold | None = None
    """Of a member: what it answers for images that it was not fitted on; the same images for all."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The images of one forward pass, on the device."""

    inputs: Tensor
    """What the classifier reads: features [B, D], [B, H] or [B, D + H], or preprocessed images [B, 3, H, W]."""
    labels_B: Tensor
    """Class indices, int64."""
    weights_B: Tensor
    """Each image's share in the optimizer step's loss: 1/B where one process takes the whole step in one pass. An image
    that only fills the batch has 0."""
    targets_BC: Tensor | None = None
    """Class shares in place of the labels, where images are mixed."""
    offsets_BC: Tensor | None = None
    """Added to the logits: the margins that hard images must win by."""

    @classmethod
    def of(cls, inputs: Tensor, labels_B: Tensor) -> Batch:
        """A whole step's batch of equal shares."""
        return cls(
            inputs=inputs,
            labels_B=labels_B,
            weights_B=torch.full_like(labels_B, 1 / len(labels_B), dtype=torch.float32),
        )


class Classifier(nn.Module, ABC):
    """What it `reads` of B images -> logits [B, C]."""

    reads: ClassVar[InputKind] = "embedding"
    """Unit-length embeddings [B, D], features before the projection [B, H], both side by side [B, D + H], or
    preprocessed images [B, 3, H, W]."""

    small: ClassVar[bool] = True
    """Whether a step is so little work that threads cost more than they give."""
    has_changing_buffers: bool = False
    """Whether training changes buffers of the state dict, such as batch norm's statistics."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor: ...

    def image_embeddings(self, images: LabelledImages) -> Tensor:
        """Unit-length embeddings [N, D] as the classifier sees the images now, to find neighbours by."""
        return images.table.embedding

    @property
    def device(self) -> torch.device:
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def checkpoint_activations(self) -> bool:
        """Recompute activations in the backward pass to save memory; False where there is nothing to gain."""
        return False

    def prepare(self) -> None:
        """Called once before a series of forward passes without training, to compute what they share."""

    @torch.no_grad()
    def probabilities(self, images: LabelledImages, *, chunk: int = 8192, progress: Progress = SILENT) -> Tensor:
        """Class probabilities of all images: float32 [N, C] on the CPU, rows sum to 1.

        Where several processes run, each answers for its share of image files and all get the whole.
        """
        was_training = self.training
        self.eval()
        self.prepare()
        if self.reads == "image":
            probabilities_NC = self._of_files(images, progress)
        else:
            parts = [self._answer(part) for part in images.features(self.reads).split(chunk)]
            probabilities_NC = torch.cat(parts)
        self.train(was_training)
        return probabilities_NC

    def _answer(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self(inputs.to(self.device))
        return logits.float().softmax(dim=-1).cpu()

    def _of_files(self, images: LabelledImages, progress: Progress) -> Tensor:
        return over_files(images, self._answer, progress)


class Method(ABC):
    """A way of adapting a backbone."""

    name: ClassVar[str]
    source: ClassVar[str]
    """The paper, or the place the method is known from."""

    has_weights: ClassVar[bool] = True
    """Whether a run saves anything trained; without it, the classifier is zero-shot."""
    saves_buffers: ClassVar[bool] = False
    """Whether the classifier's persistent buffers are saved with its parameters."""
    answers_new_names: ClassVar[bool] = True
    """Whether `restore` into a frame of other classes gives a classifier of those; a fixed head cannot be that."""
    fits_any_name: ClassVar[bool] = True
    """Whether it does so for every name; else `restore` may fail for long ones."""
    starts_from: ClassVar[str | None] = None
    """Method or preset of the run that a comparison starts it from; None where it starts from the model alone."""
    refits: ClassVar[bool] = False
    """Whether it can choose its settings first, and then be fitted on train and val together: by cross-validation on
    cached features, or by a training of its own on train alone."""
    refits_by_default: ClassVar[bool] = True
    """Whether it does so where --refit is not given."""
    combines: ClassVar[tuple[str, ...]] = ()
    """Methods whose runs it combines where none are named; empty for methods that combine nothing."""
    chooses_members: ClassVar[bool] = False
    """Whether it tries methods itself and combines those that are worth it."""
    cheaper_rival: ClassVar[str | None] = None
    """A method that costs less and was more accurate wherever the two were compared (docs/results.md)."""
    purpose_of_source: ClassVar[str] = ""
    """What it does with that run, as in "wise-ft mixes a trained run ...": for the message where there is none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def variant(cls, config: TrainConfig | Settings) -> type[Method]:
        """The class that does what the settings ask for, where a name stands for several."""
        del config
        return cls

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        """Settings that hold for this method where nothing is given."""
        del given, backbone
        return Defaults()

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        """What its classifier will read, known before it is built."""
        del config
        return "embedding"

    @classmethod
    def works_inside(cls, config: TrainConfig | Settings) -> bool:
        """Whether it trains or needs the backbone's own modules, so that several combined models will not do."""
        return cls.reads(config) == "image"

    @classmethod
    def takes_member(cls, method: type[Method]) -> bool:
        """Whether it can combine runs of a method; for methods that combine."""
        return method.has_weights and not method.combines

    @classmethod
    def check_together(cls, methods: Sequence[str]) -> None:
        """Refuse members' methods that cannot be combined with each other.

        Raises:
            ConfigError: naming two.
        """
        del methods

    @classmethod
    def without_effect(cls, given: TrainConfig) -> tuple[str, ...]:
        """The settings given that this method does not read, by name."""
        read = cls.settings_read()
        if cls.combines:  # all others are for its members
            names = ("start_from", "budget") if not cls.chooses_members else ("start_from", "members")
            refit = ("refit",) if given.refit and not cls.refits else ()
            return (*(name for name in names if getattr(given, name) is not None), *refit)
        groups = (given.lora, given.optimizer, given.augmentation)
        named = {item.name: getattr(group, item.name) for group in groups for item in dataclasses.fields(group)}
        named["start_from"] = given.start_from if cls.starts_from is None else None
        named["features"] = given.features
        named["members"] = given.members
        named["budget"] = given.budget
        named["refit"] = (given.refit or None) if not cls.refits else None
        return tuple(name for name, value in named.items() if value is not None and name not in read)

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        """The settings of LoRA, the optimizer and the augmentation that have an effect on it."""
        return frozenset()

    def shown_settings(self) -> dict[str, Any]:
        """Settings of its own that the report shows."""
        return {}

    @abstractmethod
    def build(self, task: Task) -> Classifier:
        """The classifier before any training."""

    @abstractmethod
    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Classifier:
        """The trained classifier again, from the tensors that `tensors` gave.

        Raises:
            KeyError, RuntimeError: they are not the tensors of such a classifier.
        """

    def state_key(self, key: str) -> str:
        """The classifier's own name of a tensor that `tensors` names `key`."""
        return key

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        """What a run saves of the classifier: everything trained, nothing that the backbone or prompts give."""
        named = classifier.state_dict().items() if self.saves_buffers else classifier.named_parameters()
        return {key: value.detach().cpu().contiguous() for key, value in named}

    def model_state(self, classifier: Classifier) -> dict[str, Tensor] | None:
        """The whole model as adapted, by the names of open_clip's state dict, for other methods to start from.

        None where no encoder was changed, or one does not end in embeddings any more.
        """
        del classifier
        return None

    def trainable_params(self, classifier: Classifier) -> int:
        """How many numbers the method adapts."""
        return sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)

    weights_file: ClassVar[str] = "classifier.safetensors"
    """Name of the file in the run folder that holds `tensors`."""

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        """JSON files that other tools need next to the weights: name -> content."""
        del classifier, backbone_name
        return {}

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The end of a straight line from the trained `tensors` at which the classifier is zero-shot, for wise-ft.

        Raises:
            ConfigError: this method's weights have no such end.
        """
        del frame, tensors
        raise ConfigError(
            f"wise-ft cannot interpolate a run of {self.name!r} with zero-shot weights",
            remedy="Pass a run of lora, full, two-tier or lp-ft.",
        )


OF_GRADIENT_METHODS = frozenset(
    item.name for group in (OptimizerConfig, AugmentConfig) for item in dataclasses.fields(group)
)
"""Settings that every method trained by AdamW reads, but for some that it may not have."""


class GradientMethod(Method):
    """A method that trainer.fit trains by AdamW."""

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        return OF_GRADIENT_METHODS

    @abstractmethod
    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        """Trainable parameters with their learning rates, in AdamW's form; "lr" is the peak."""

    def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
        """The batch's part of the step's loss, a scalar: the images' losses, each times its share.

        What is random in it draws from torch's global generator.
        """
        del task
        return weighted_cross_entropy(classifier(batch.inputs), batch)


def weighted_cross_entropy(logits_BC: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy over the classes, with the batch's shares, margins and mixed labels: a scalar."""
    logits_BC = logits_BC.float()
    if batch.offsets_BC is not None:
        logits_BC = logits_BC + batch.offsets_BC
    targets = batch.labels_B if batch.targets_BC is None else batch.targets_BC
    return (F.cross_entropy(logits_BC, targets, reduction="none") * batch.weights_B).sum()


def decayed_groups(named: Mapping[str, nn.Parameter], *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups for some parameters: biases, norms and scales (fewer than two axes) are not decayed."""
    trained = [parameter for parameter in named.values() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "lr": lr, "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class SolvedMethod(Method):
    """A method with a solver of its own; each candidate it yields competes on the validation split."""

    candidates: ClassVar[int]
    """How many candidates `solve` yields."""
    chosen_by: ClassVar[str] = "val_macro_f1"
    """The validation figure by which the candidate is chosen; of a loss the lowest, else the highest."""

    @abstractmethod
    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        """Set `classifier` to one candidate after the other."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One solution of a `SolvedMethod`."""

    description: str
    """What distinguishes it, such as "C=0.1"."""
    train_loss: float
    out_of_fold: OutOfFold | None = None
    """Where cross-validation judges the candidate, in place of the validation split."""


class InterpolatedMethod(SolvedMethod):
    """A method whose candidates lie on the straight line from the zero-shot weights to a trained run's."""

    shares: ClassVar[tuple[float, ...]]
    """The candidates' shares of the trained weights, in [0, 1]."""

    @abstractmethod
    def mixtures(
        self, frame: ClassifierContext, trained: Mapping[str, Tensor]
    ) -> Iterator[tuple[float, dict[str, Tensor]]]:
        """Each share with the tensors there, as `restore` takes them."""

    @abstractmethod
    def share_of(self, candidate: str) -> float:
        """The share that a candidate's description names."""
