"""CLAP: a linear probe that starts from the prompts and is held to each as far as it is right already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.memory import one_thread
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, SolvedMethod, Task
from clip_har.methods.centred_features import AdaptsFeatures, CentredFeatures, split
from clip_har.methods.cross_validation import fit_mixture
from clip_har.methods.judged import Judged
from clip_har.methods.linear_heads import transformed

# Shapes: B images, N images that are fitted, M images that are judged, C classes, D embedding width, H width before the
# projection, Z either of the two.

STRENGTHS = (1.0, 0.1, 0.01, 0.001)
"""Factors on the penalty; 1 is the paper's, which are few images per class."""
MAX_ITERATIONS = 200


class ClapClassifier(Classifier):
    """scale x unit(p_c + d_c), with embeddings x and prompts p; d is what is learned, 0 at first."""

    def __init__(self, frame: ClassifierContext, width: int) -> None:
        super().__init__()
        self.prompts_CD: Tensor
        self.scale: Tensor
        self.differences_CZ = nn.Parameter(torch.zeros(len(frame.prompts_CD), width))
        self.register_buffer("prompts_CD", frame.prompts_CD, persistent=False)
        self.register_buffer("scale", torch.tensor(frame.logit_scale))

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of what it reads of B images: what the prompts and what the differences are multiplied by."""
        return inputs, inputs

    def cosines(self, embedding_BD: Tensor, compared_BZ: Tensor, differences_CZ: Tensor) -> Tensor:
        """Logits before scaling, [B, C]."""
        del compared_BZ
        return embedding_BD @ F.normalize(self.prompts_CD + differences_CZ, dim=-1).T

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.cosines(*self.parts(inputs), self.differences_CZ)


class PreProjectionClapClassifier(ClapClassifier):
    """scale (x p_c + z d_c), with z the centred features before the projection."""

    reads = "both"

    def __init__(self, frame: ClassifierContext, width: int) -> None:
        super().__init__(frame, width)
        self.centred = CentredFeatures(width)

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        embedding_BD, hidden_BH = split(inputs, self.prompts_CD.shape[1])
        return embedding_BD, self.centred(transformed(hidden_BH, "signed-sqrt"))

    def cosines(self, embedding_BD: Tensor, compared_BZ: Tensor, differences_CZ: Tensor) -> Tensor:
        return embedding_BD @ self.prompts_CD.T + compared_BZ @ differences_CZ.T


class ClapProblem:
    """The objective on some images, minimised by L-BFGS (Liu & Nocedal 1989, doi 10.1007/BF01589116)."""

    def __init__(self, classifier: ClapClassifier, inputs: Tensor, labels_N: Tensor, logit_scale: float) -> None:
        self._classifier = classifier
        self._parts = classifier.parts(inputs)
        self._labels_N = labels_N
        self._logit_scale = logit_scale
        self.solution_CZ = torch.zeros_like(classifier.differences_CZ)
        zero_shot_NC = (logit_scale * self._parts[0] @ classifier.prompts_CD.T).softmax(dim=1)
        one_hot_NC = F.one_hot(labels_N, zero_shot_NC.shape[1]).float()
        self.multipliers_C = (zero_shot_NC * one_hot_NC).sum(dim=0) / one_hot_NC.sum(dim=0).clamp(min=1)

    def objective(self, differences_CZ: Tensor, strength: float) -> Tensor:
        """Cross-entropy + strength mean_c lambda_c |d_c|^2, a scalar."""
        logits_NC = self._logit_scale * self._classifier.cosines(*self._parts, differences_CZ)
        penalty = (self.multipliers_C * differences_CZ.square().sum(dim=1)).mean()
        return F.cross_entropy(logits_NC, self._labels_N) + strength * penalty

    def solve(self, strength: float) -> Tensor:
        """The differences [C, Z] for a strength, sought from the last solution on."""
        from scipy.optimize import minimize  # slow to import, and predicting does not need it

        shape = self.solution_CZ.shape

        def loss_and_gradient(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            with torch.enable_grad():
                differences_CZ = torch.from_numpy(point).float().view(shape).requires_grad_()
                loss = self.objective(differences_CZ, strength)
                (gradient_CZ,) = torch.autograd.grad(loss, differences_CZ)
            return float(loss.detach()), gradient_CZ.double().flatten().numpy()

        with one_thread():
            found = minimize(
                loss_and_gradient,
                self.solution_CZ.double().flatten().numpy(),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": MAX_ITERATIONS, "ftol": 1e-6, "gtol": 1e-5},
            )
        self.solution_CZ = torch.from_numpy(found.x).float().view(shape)
        return self.solution_CZ


class Clap(AdaptsFeatures, SolvedMethod):
    """Silva-Rodriguez et al. 2024 (arXiv 2312.12730, "A Closer Look at the Few-Shot Adaptation of Large
    Vision-Language Models").

        min over w of  cross-entropy + strength mean_c lambda_c |w_c - p_c|^2,    w_c = p_c + d_c

    lambda_c is the mean probability that zero-shot gives class c on its own images: the first multiplier of their
    augmented Lagrangian, which they do not update either. So a prompt that is right already is kept, and one that is
    not may move. Three things differ from the paper: the probe reads features before the projection (--features), on
    which it starts at 0 next to the prompts' logits; weaker penalties than theirs compete; and a scale fitted by
    cross-entropy, which changes no answer, makes them probabilities.
    """

    name = "clap"
    source = "arXiv 2312.12730"
    answers_new_names = False
    refits = True
    chosen_by = "val_loss"
    candidates = len(STRENGTHS)

    def build(self, task: Task) -> ClapClassifier:
        if self.settings.features == "embedding":
            return ClapClassifier(task, task.prompts_CD.shape[1])
        images = task.train.joined(task.val) if self.settings.refit else task.train
        classifier = PreProjectionClapClassifier(task, images.table.hidden.shape[1])
        classifier.centred.fit(transformed(images.table.hidden, "signed-sqrt"))
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> ClapClassifier:
        kind = PreProjectionClapClassifier if "centred.mean_H" in tensors else ClapClassifier
        classifier = kind(frame, tensors["differences_CZ"].shape[1])
        classifier.load_state_dict(dict(tensors))
        return classifier

    @torch.no_grad()
    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, ClapClassifier)
        judged = Judged(task, refit=self.settings.refit)
        inputs, labels_N = judged.fitted.features(classifier.reads), judged.fitted.labels_N
        whole = ClapProblem(classifier, inputs, labels_N, task.logit_scale)
        without = [
            ClapProblem(classifier, inputs[judged.fold_N != fold], labels_N[judged.fold_N != fold], task.logit_scale)
            for fold in range(judged.folds)
        ]
        for strength in STRENGTHS:
            differences_CZ = whole.solve(strength)
            if judged.fold_N is None:
                parts = classifier.parts(judged.images.features(classifier.reads))
                cosines_MC = classifier.cosines(*parts, differences_CZ)
            else:
                cosines_NC = torch.zeros(len(labels_N), len(task.classes))
                for fold, problem in enumerate(without):
                    own_N = judged.fold_N == fold
                    cosines_NC[own_N] = classifier.cosines(*classifier.parts(inputs[own_N]), problem.solve(strength))
                cosines_MC = cosines_NC[judged.fold_N >= 0]
            scale = fit_mixture(cosines_MC, None, judged.labels_M).scale
            classifier.differences_CZ.copy_(differences_CZ)
            classifier.scale.fill_(scale)
            train_loss = float(F.cross_entropy(classifier(inputs), labels_N))
            yield judged.candidate(f"strength={strength:g}", train_loss, scale * cosines_MC)
