"""ProKeR: kernel ridge regression of what the zero-shot classifier leaves unexplained, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.methods.base import Candidate, Classifier, ClassifierContext, SolvedMethod, Task
from clip_har.methods.centred_features import AdaptsFeatures, CentredFeatures, split
from clip_har.methods.cross_validation import fit_mixture, fold_count
from clip_har.methods.judged import Judged
from clip_har.methods.labelled_images import InputKind, LabelledImages
from clip_har.methods.linear_heads import transformed

# Shapes: B images, N images that are fitted, M landmarks among them, C classes, D embedding width, Z width of what the
# kernel compares: D, or H before the projection.

BETAS = (1.0, 0.3, 3.0)
"""Candidates for beta, the kernel's sharpness."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates for lambda."""
LANDMARKS = 2000
"""Images, at most, that the kernel function is a sum over."""
JITTER = 1e-6
"""Added to the diagonal of the landmarks' kernel matrix: equal images would make it singular."""
CHUNK = 2048
"""Images whose kernel values to all landmarks are held in memory at once."""


class KernelClassifier(Classifier):
    """scale (x P' + k(z, landmarks) A), with embeddings x and prompts P; z is x, or features before the projection."""

    def __init__(self, frame: ClassifierContext, landmarks_MZ: Tensor, width: int | None) -> None:
        """Args:
        width: of the features before the projection, or None where the kernel compares embeddings.
        """
        super().__init__()
        self.landmarks_MZ: Tensor
        self.prompts_CD: Tensor
        self.beta: Tensor
        self.scale: Tensor
        self.coefficients_MC = nn.Parameter(torch.zeros(len(landmarks_MZ), len(frame.prompts_CD)))
        self.centred = None if width is None else CentredFeatures(width)
        if width is not None:
            self.reads: InputKind = "both"  # type: ignore[misc]
        self.register_buffer("prompts_CD", frame.prompts_CD, persistent=False)
        self.register_buffer("landmarks_MZ", landmarks_MZ.clone())
        self.register_buffer("beta", torch.tensor(BETAS[0]))
        self.register_buffer("scale", torch.tensor(frame.logit_scale))

    def parts(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of what it reads of B images: the zero-shot classifier's cosines [B, C], and z, of unit length [B, Z]."""
        if self.centred is None:
            return inputs @ self.prompts_CD.T, inputs
        embedding_BD, hidden_BH = split(inputs, self.prompts_CD.shape[1])
        return embedding_BD @ self.prompts_CD.T, self.centred(transformed(hidden_BH, "signed-sqrt"))

    def forward(self, inputs: Tensor) -> Tensor:
        zero_shot_BC, compared_BZ = self.parts(inputs)
        # a small batch is not split: an exported graph takes batches of any size
        chunks = [compared_BZ] if len(compared_BZ) <= CHUNK else compared_BZ.split(CHUNK)
        residual_BC = torch.cat([kernel(part, self.landmarks_MZ, self.beta) @ self.coefficients_MC for part in chunks])
        return self.scale * (zero_shot_BC + residual_BC)


def kernel(one_BZ: Tensor, other_MZ: Tensor, beta: Tensor | float) -> Tensor:
    """exp(-beta (1 - cosine)): [B, M]. Of unit-length rows it is the Gaussian kernel exp(-beta |a - b|^2 / 2)."""
    return torch.exp(beta * (one_BZ @ other_MZ.T - 1))


class KernelRidge:
    """Kernel ridge regression of targets [N, C] on the kernel's features, for one beta and any penalty.

    With the Cholesky factor L of the landmarks' kernel matrix, the rows of k(z, landmarks) L^-T have the kernel as
    their inner products: exactly where every image is a landmark, else nearly (Nystroem; Williams & Seeger 2001, "Using
    the Nystroem Method to Speed Up Kernel Machines"). Each class weighs alike, whatever its size.
    """

    def __init__(
        self, compared_NZ: Tensor, landmarks_MZ: Tensor, targets_NC: Tensor, weights_N: Tensor, beta: float
    ) -> None:
        wide_MZ = landmarks_MZ.double()
        gram_MM = kernel(wide_MZ, wide_MZ, beta)
        gram_MM.diagonal().add_(JITTER)
        self._factor_MM = torch.linalg.cholesky(gram_MM)
        chunks = [kernel(part.double(), wide_MZ, beta).T for part in compared_NZ.split(CHUNK)]
        parts = [torch.linalg.solve_triangular(self._factor_MM, part_MB, upper=False).float() for part_MB in chunks]
        self._targets_NC = targets_NC
        self._root_N = weights_N.sqrt()
        self._features_MN = torch.cat(parts, dim=1) * self._root_N
        self._second_MM = self._features_MN @ self._features_MN.T
        self._moments_MC = self._features_MN @ (targets_NC * self._root_N[:, None])

    def solve(self, penalty: float, fold_N: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The landmarks' coefficients [M, C], and in cross-validation what it answers without each image's fold [N, C].

        With residuals e and hat matrix A, the residuals of a fold f without it are (I - A_ff)^-1 e_f, as for `ridge`.
        """
        penalised_MM = self._second_MM.clone()
        penalised_MM.diagonal().add_(penalty)
        factor_MM = torch.linalg.cholesky(penalised_MM)
        weight_MC = torch.cholesky_solve(self._moments_MC, factor_MM)
        coefficients_MC = torch.linalg.solve_triangular(self._factor_MM.T, weight_MC.double(), upper=True).float()
        if fold_N is None:
            return coefficients_MC, None
        turned_MN = torch.linalg.solve_triangular(factor_MM, self._features_MN, upper=False)
        residual_NC = self._targets_NC * self._root_N[:, None] - self._features_MN.T @ weight_MC
        answers_NC = torch.zeros_like(self._targets_NC)
        for fold in range(fold_count(fold_N)):
            own_N = fold_N == fold
            turned_MF = turned_MN[:, own_N]
            remains_FF = torch.eye(turned_MF.shape[1]) - turned_MF.T @ turned_MF
            left_out_FC = torch.linalg.solve(remains_FF, residual_NC[own_N])
            answers_NC[own_N] = self._targets_NC[own_N] - left_out_FC / self._root_N[own_N, None]
        return coefficients_MC, answers_NC


def landmark_indices(labels_N: Tensor, seed: int, most: int) -> Tensor:
    """All images, or `most` of them drawn with the seed, as many of each class as there are."""
    if len(labels_N) <= most:
        return torch.arange(len(labels_N))
    order_N = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    one_hot_NC = F.one_hot(labels_N[order_N])
    rank_N = (one_hot_NC.cumsum(dim=0) * one_hot_NC).sum(dim=1)  # 1 for the first drawn of each class
    return order_N[rank_N.argsort(stable=True)[:most]].sort().values


class Proker(AdaptsFeatures, SolvedMethod):
    """Bendou et al. 2025 (arXiv 2501.11175, "ProKeR: A Kernel Perspective on Few-Shot Adaptation").

    The function nearest to the zero-shot classifier in the kernel's Hilbert space, which has a closed form:

        f(x) = f_zs(x) + k(x, S) (k(S, S) + lambda I)^-1 (Y - f_zs(S)),    k(a, b) = exp(-beta (1 - cos(a, b)))

    with training images S, their one-hot labels Y, and f_zs the cosines to the prompts. Three things differ from the
    paper: the kernel compares features before the projection (--features), after a signed square root and centred; each
    class weighs alike; and a scale on f, fitted by cross-entropy, changes no answer but makes them probabilities.
    """

    name = "proker"
    source = "arXiv 2501.11175"
    answers_new_names = False
    refits = True
    chosen_by = "val_loss"
    candidates = len(BETAS)

    def build(self, task: Task) -> KernelClassifier:
        images = task.train.joined(task.val) if self.settings.refit else task.train
        width = images.table.hidden.shape[1] if self.settings.features == "pre-projection" else None
        empty = KernelClassifier(task, images.table.embedding[:0], width)
        if empty.centred is not None:
            empty.centred.fit(transformed(images.table.hidden, "signed-sqrt"))
        chosen = images.subset(landmark_indices(images.labels_N, task.seed, LANDMARKS).tolist())
        _, landmarks_MZ = empty.parts(chosen.features(empty.reads))
        classifier = KernelClassifier(task, landmarks_MZ, width)
        if classifier.centred is not None and empty.centred is not None:
            classifier.centred.load_state_dict(empty.centred.state_dict())
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> KernelClassifier:
        width = len(tensors["centred.mean_H"]) if "centred.mean_H" in tensors else None
        classifier = KernelClassifier(frame, tensors["landmarks_MZ"], width)
        classifier.load_state_dict(dict(tensors))
        return classifier

    @torch.no_grad()
    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, KernelClassifier)
        judged = Judged(task, refit=self.settings.refit)
        for beta in BETAS:
            yield _best_of_penalties(classifier, judged, beta)


def _best_of_penalties(classifier: KernelClassifier, judged: Judged, beta: float) -> Candidate:
    """Set the classifier to the penalty of least cross-entropy with this beta."""
    fitted: LabelledImages = judged.fitted
    zero_shot_NC, compared_NZ = classifier.parts(fitted.features(classifier.reads))
    classes = zero_shot_NC.shape[1]
    weights_N = (len(fitted) / classes / torch.bincount(fitted.labels_N, minlength=classes))[fitted.labels_N]
    targets_NC = F.one_hot(fitted.labels_N, classes).float() - zero_shot_NC
    problem = KernelRidge(compared_NZ, classifier.landmarks_MZ, targets_NC, weights_N, beta)
    zero_shot_MC, compared_MZ = classifier.parts(judged.images.features(classifier.reads))
    found = []
    for penalty in PENALTIES:
        coefficients_MC, answers_NC = problem.solve(penalty, judged.fold_N)
        if answers_NC is None or judged.fold_N is None:
            logits_MC = zero_shot_MC + kernel(compared_MZ, classifier.landmarks_MZ, beta) @ coefficients_MC
        else:
            logits_MC = zero_shot_MC + answers_NC[judged.fold_N >= 0]
        scale = fit_mixture(logits_MC, None, judged.labels_M).scale
        loss = float(F.cross_entropy(scale * logits_MC, judged.labels_M))
        found.append((loss, penalty, scale, coefficients_MC, scale * logits_MC))
    _, penalty, scale, coefficients_MC, logits_MC = min(found, key=lambda item: item[0])
    classifier.coefficients_MC.copy_(coefficients_MC)
    classifier.beta.fill_(beta)
    classifier.scale.fill_(scale)
    train_loss = float(F.cross_entropy(classifier(fitted.features(classifier.reads)), fitted.labels_N))
    return judged.candidate(f"beta={beta:g}, lambda={penalty:g}", train_loss, logits_MC)
