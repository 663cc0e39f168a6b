"""Tip-Adapter: the training images as a key-value cache next to the zero-shot classifier, as they are or fine-tuned."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Defaults, Features, OptimizerSettings, TrainConfig
from clip_har.memory import one_thread
from clip_har.methods.base import (
    Candidate,
    Classifier,
    ClassifierContext,
    GradientMethod,
    SolvedMethod,
    Task,
    decayed_groups,
)
from clip_har.methods.centred_features import AdaptsFeatures, CentredFeatures, adapter_inputs, split

# Shapes: B images, N keys (training images), C classes, D width of embeddings and of keys, which with features before
# the projection is theirs.

BETAS = tuple(2.0**k for k in range(10))
"""Candidates for beta, the sharpness: the paper's 1 to 7, and more, since many keys bear a closer look."""
ALPHA_RATIOS = tuple(2.0**k for k in range(-3, 11))
"""Candidates for alpha: the spread of the cache's logits as a multiple of that of the zero-shot logits, which does not
depend on the backbone, beta or the number of keys."""
TEMPERATURES = tuple(10.0 ** (k / 10) for k in range(-10, 51))
SOFTENING = 0.25
"""Beta of the fine-tuned form, as a share of the best without training."""
CHUNK = 1024
"""Images whose affinities to all keys are held in memory at once."""
LOSS_IMAGES = 2048
"""Training images, at most, on which a candidate's training loss is measured."""


class CacheClassifier(Classifier):
    """(s x P^T + alpha exp(-beta (1 - z K^T)) V) / temperature, with logit scale s (Zhang et al. 2022, section 3.1).

    z and the keys are the embeddings x, as in the paper, or centred features before the projection (--features).

    The paper's values V are one-hot labels, of equally many images per class. Here each is divided by its class's size,
    so that affinities are averaged, not summed, and a class with more images weighs no more. The temperature (Guo et
    al. 2017, arXiv 1706.04599) changes no answer; without it a large alpha makes every answer sound certain.
    """

    def __init__(self, frame: ClassifierContext, keys_ND: Tensor, values_NC: Tensor, *, train_keys: bool) -> None:
        super().__init__()
        self.prompts_CD: Tensor
        self.values_NC: Tensor
        self.alpha: Tensor
        self.beta: Tensor
        self.temperature: Tensor
        self.logit_scale = frame.logit_scale
        self.keys_ND = nn.Parameter(keys_ND.clone(), requires_grad=train_keys)
        self.register_buffer("prompts_CD", frame.prompts_CD, persistent=False)
        self.register_buffer("values_NC", values_NC.clone())
        for name in ("alpha", "beta", "temperature"):
            self.register_buffer(name, torch.tensor(1.0))

    @classmethod
    def of_training_images(cls, task: Task, features: Features, *, train_keys: bool) -> CacheClassifier:
        """A key per training image: its features, averaged with those of its augmented views as in the paper."""
        centred = None
        if features == "pre-projection":
            centred = CentredFeatures(task.train.table.hidden.shape[1])
            centred.fit(task.train.table.hidden)
        views = [adapter_inputs(table, centred) for table in (task.train.table, *task.train.views)]
        one_hot_NC = F.one_hot(task.train.labels_N, len(task.classes)).float()
        values_NC = one_hot_NC / one_hot_NC.sum(dim=0).clamp(min=1)
        keys_ND = F.normalize(torch.stack(views).mean(dim=0), dim=-1)
        classifier = cls if centred is None else CentredCacheClassifier
        cache = classifier(task, keys_ND, values_NC, train_keys=train_keys)
        if isinstance(cache, CentredCacheClassifier) and centred is not None:
            cache.centred.load_state_dict(centred.state_dict())
        return cache

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of what it reads of B images: their embeddings [B, D], and what is compared with the keys [B, D]."""
        return inputs, inputs

    def zero_shot_logits(self, embedding_BD: Tensor) -> Tensor:
        """s x P^T: [B, C]."""
        return self.logit_scale * embedding_BD @ self.prompts_CD.T

    def affinities(self, cosines: Tensor) -> Tensor:
        """exp(-beta (1 - cosine)), of any shape: 1 where an image equals the key, towards 0 where it differs."""
        return torch.exp(self.beta * (cosines - 1))

    def cache_logits(self, queries_BD: Tensor) -> Tensor:
        """exp(-beta (1 - z K^T)) V: [B, C]."""
        # a small batch is not split: an exported graph takes batches of any size
        chunks = [queries_BD] if len(queries_BD) <= CHUNK else queries_BD.split(CHUNK)
        parts = [self.affinities(part @ self.keys_ND.T) @ self.values_NC for part in chunks]
        return torch.cat(parts)

    def forward(self, inputs: Tensor) -> Tensor:
        embedding_BD, queries_BD = self.parts(inputs)
        logits_BC = self.zero_shot_logits(embedding_BD) + self.alpha * self.cache_logits(queries_BD)
        return logits_BC / self.temperature


class CentredCacheClassifier(CacheClassifier):
    """The same with keys of centred features before the projection."""

    reads = "both"

    def __init__(self, frame: ClassifierContext, keys_ND: Tensor, values_NC: Tensor, *, train_keys: bool) -> None:
        super().__init__(frame, keys_ND, values_NC, train_keys=train_keys)
        self.centred = CentredFeatures(keys_ND.shape[1])

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        embedding_BD, hidden_BH = split(inputs, self.prompts_CD.shape[1])
        return embedding_BD, self.centred(hidden_BH)


@torch.no_grad()
def search(classifier: CacheClassifier, task: Task, beta: float) -> tuple[float, float]:
    """Set beta, the alpha that is best on validation with it, and the temperature that fits both.

    Returns:
        Mean accuracy per class, ties among the alphas broken by the lower cross-entropy; and that cross-entropy.
    """
    classifier.beta.fill_(beta)
    embedding_ND, queries_ND = classifier.parts(task.val.features(classifier.reads).to(classifier.device))
    labels_N = task.val.labels_N.to(classifier.device)
    zero_shot_NC, cache_NC = classifier.zero_shot_logits(embedding_ND), classifier.cache_logits(queries_ND)
    unit = _spread(zero_shot_NC) / _spread(cache_NC).clamp(min=torch.finfo().tiny)
    scores = []
    with one_thread():  # thousands of small questions
        for ratio in ALPHA_RATIOS:
            logits_NC = zero_shot_NC + ratio * unit * cache_NC
            loss, temperature = _best_temperature(logits_NC, labels_N)
            scores.append((_class_accuracy(logits_NC, labels_N), -loss, float(ratio * unit), temperature))
    accuracy, negative_loss, alpha, temperature = max(scores)
    classifier.alpha.fill_(alpha)
    classifier.temperature.fill_(temperature)
    return accuracy, -negative_loss


@torch.no_grad()
def held_out_loss(classifier: CacheClassifier, task: Task) -> float:
    """Cross-entropy on training images, each without its own key, which would match it perfectly and give it away."""
    chosen_N = torch.arange(0, len(task.train), step=max(1, len(task.train) // LOSS_IMAGES))
    inputs = task.train.features(classifier.reads)[chosen_N].to(classifier.device)
    own_N = classifier.affinities((classifier.parts(inputs)[1] * classifier.keys_ND[chosen_N]).sum(dim=1))
    own_NC = classifier.alpha * own_N[:, None] * classifier.values_NC[chosen_N] / classifier.temperature
    labels_N = task.train.labels_N[chosen_N].to(classifier.device)
    return float(F.cross_entropy(classifier(inputs) - own_NC, labels_N))


class TipAdapter(AdaptsFeatures, SolvedMethod):
    """The training-free form: nothing is trained, alpha and beta are searched on validation."""

    name = "tip-adapter"
    cheaper_rival = "linear-probe"
    answers_new_names = False
    source = "arXiv 2207.09519"
    candidates = len(BETAS)

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        return super().settings_read() | {"augment", "views"}

    def build(self, task: Task) -> CacheClassifier:
        return CacheClassifier.of_training_images(task, self.settings.features, train_keys=False)

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> CacheClassifier:
        return _restored(frame, tensors, train_keys=False)

    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, CacheClassifier)
        for beta in BETAS:
            search(classifier, task, beta)
            description = f"beta={beta:g}, alpha={float(classifier.alpha):.3g}"
            yield Candidate(description=description, train_loss=held_out_loss(classifier, task))


class TipAdapterF(AdaptsFeatures, GradientMethod):
    """The fine-tuned form: the keys are trained from where the training images put them, N * D parameters.

    Alpha, beta and temperature are chosen before and stay: learned along, they overfit, a point less on validation.
    Beta is a quarter of what is best without training. So soft, many keys learn from each image, and its own key, which
    starts equal to it and gives its label away, is one voice among its class's. With beta as it was, validation lost 3
    points, and hiding the own key regained half of them.
    """

    name = "tip-adapter-f"
    cheaper_rival = "linear-probe"
    answers_new_names = False
    source = "arXiv 2207.09519"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        optimizer = OptimizerSettings(epochs=20, lr=1e-3)  # the paper's own
        return replace(super().defaults(given, backbone), optimizer=optimizer)

    def build(self, task: Task) -> CacheClassifier:
        classifier = CacheClassifier.of_training_images(task, self.settings.features, train_keys=True)
        scores = [(*search(classifier, task, beta), beta) for beta in BETAS]
        *_, sharpest = max(scores, key=lambda score: (score[0], -score[1]))
        search(classifier, task, sharpest * SOFTENING)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> CacheClassifier:
        return _restored(frame, tensors, train_keys=True)

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        optimizer = self.settings.optimizer
        lr = optimizer.lr * optimizer.vision_lr_multiplier
        return decayed_groups(dict(classifier.named_parameters()), lr=lr, weight_decay=optimizer.weight_decay)


def _restored(frame: ClassifierContext, tensors: Mapping[str, Tensor], *, train_keys: bool) -> CacheClassifier:
    kind = CentredCacheClassifier if "centred.mean_H" in tensors else CacheClassifier
    own = dict(tensors)
    classifier = kind(frame, own["keys_ND"], own["values_NC"], train_keys=train_keys)
    classifier.load_state_dict(own)
    return classifier


def _spread(logits_NC: Tensor) -> Tensor:
    """Standard deviation around each image's mean, a scalar."""
    return (logits_NC - logits_NC.mean(dim=1, keepdim=True)).std()


def _best_temperature(logits_NC: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """The lowest loss and its temperature. It is convex in 1 / temperature, so there is one minimum to bisect for."""

    def loss(index: int) -> float:
        return _smoothed_loss(logits_NC / TEMPERATURES[index], labels_N)

    steps = range(len(TEMPERATURES) - 1)
    best = bisect.bisect_left(steps, True, key=lambda index: loss(index) <= loss(index + 1))
    return loss(best), TEMPERATURES[best]


def _smoothed_loss(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Cross-entropy as if one more image were of no known class: no temperature is endlessly good where all are right.

    After Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.
    """
    return float(F.cross_entropy(logits_NC, labels_N, label_smoothing=1 / (len(labels_N) + 1)))


def _class_accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Accuracy per class, averaged over the classes that have images."""
    correct_N = (logits_NC.argmax(dim=1) == labels_N).float()
    one_hot_NC = F.one_hot(labels_N, logits_NC.shape[1]).float()
    present_C = one_hot_NC.sum(dim=0) > 0
    return float((correct_N @ one_hot_NC)[present_C].div(one_hot_NC.sum(dim=0)[present_C]).mean())
