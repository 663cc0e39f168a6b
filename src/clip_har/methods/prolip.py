"""ProLIP: of the whole model only the image encoder's last projection matrix is trained, on cached features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import Settings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.memory import one_thread
from clip_har.methods.base import Candidate, Classifier, ClassifierContext, SolvedMethod, Task
from clip_har.methods.labelled_images import InputKind
from clip_har.projection import projection_of

# Shapes: B images, N training images, C classes, D embedding width, H width before the projection.

MULTIPLES = (10.0, 1.0, 0.1)
"""Candidates for lambda, times the paper's 1 / images per class, from the one that stays nearest to the model on."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-4
"""Relative decrease of the objective below which an iteration is the last: going on gains nothing on validation."""


class ProjectionClassifier(Classifier):
    """s cos(h W + b, prompts), with features h before the projection and logit scale s."""

    reads = "hidden"

    def __init__(self, frame: ClassifierContext, weight_HD: Tensor, bias_D: Tensor) -> None:
        super().__init__()
        self.prompts_CD: Tensor
        self.bias_D: Tensor
        self.logit_scale = frame.logit_scale
        self.weight_HD = nn.Parameter(weight_HD.clone())
        self.register_buffer("bias_D", bias_D.clone())
        self.register_buffer("prompts_CD", frame.prompts_CD, persistent=False)

    def logits(self, hidden_BH: Tensor, weight_HD: Tensor) -> Tensor:
        """The answers with some projection, [B, C]."""
        embedding_BD = F.normalize(hidden_BH @ weight_HD + self.bias_D, dim=-1)
        return self.logit_scale * embedding_BD @ self.prompts_CD.T

    def forward(self, hidden_BH: Tensor) -> Tensor:
        return self.logits(hidden_BH, self.weight_HD)


def own_projection(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """The image encoder's last projection: weights [H, D] and bias [D], on the CPU.

    Raises:
        ConfigError: it has none.
    """
    projection = projection_of(cast(nn.Module, backbone.model.visual))
    if projection is None:
        raise ConfigError(
            f"prolip cannot train {backbone.info.name!r}: its image encoder does not end in a projection matrix",
            remedy="Use a model such as --model ViT-B/32, or --method lora.",
        )
    return projection


class ProjectionProblem:
    """Cross-entropy + lambda |W - W_0|^2, minimised by L-BFGS (Liu & Nocedal 1989, doi 10.1007/BF01589116).

    It is solved in coordinates V with W = W_0 + L^-T V, where L L' is about the objective's curvature, which takes
    fewer iterations than in W.
    """

    def __init__(self, classifier: ProjectionClassifier, hidden_NH: Tensor, labels_N: Tensor) -> None:
        self._classifier = classifier
        self._hidden_NH = hidden_NH
        self._labels_N = labels_N
        self._start_HD = classifier.weight_HD.detach().clone()
        self.solution_HD = self._start_HD
        prompts_CD = classifier.prompts_CD
        spread = (prompts_CD - prompts_CD.mean(dim=0)).square().sum() / len(prompts_CD) / min(prompts_CD.shape)
        length = (hidden_NH @ self._start_HD + classifier.bias_D).square().sum(dim=1).mean()
        unit = classifier.logit_scale**2 * spread / length.clamp(min=1e-12)
        self._curvature_HH = unit * hidden_NH.T @ hidden_NH / len(hidden_NH)

    def objective(self, weight_HD: Tensor, penalty: float) -> Tensor:
        """A scalar."""
        cross_entropy = F.cross_entropy(self._classifier.logits(self._hidden_NH, weight_HD), self._labels_N)
        return cross_entropy + penalty * (weight_HD - self._start_HD).square().sum()

    def solve(self, penalty: float) -> Tensor:
        """The projection [H, D] for a penalty, sought from the last solution on."""
        from scipy.optimize import minimize  # slow to import, and predicting does not need it

        curvature_HH = self._curvature_HH.clone()
        curvature_HH.diagonal().add_(2 * penalty)
        factor_HH = torch.linalg.cholesky(curvature_HH)

        def weight(point: npt.NDArray[np.float64]) -> Tensor:
            turned_HD = torch.from_numpy(point).float().view(self._start_HD.shape)
            moved_HD: Tensor = torch.linalg.solve_triangular(factor_HH.T, turned_HD, upper=True)
            return self._start_HD + moved_HD

        def loss_and_gradient(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            with torch.enable_grad():
                weight_HD = weight(point).requires_grad_()
                loss = self.objective(weight_HD, penalty)
                (gradient_HD,) = torch.autograd.grad(loss, weight_HD)
            turned_HD = torch.linalg.solve_triangular(factor_HH, gradient_HD, upper=False)
            return float(loss.detach()), turned_HD.double().flatten().numpy()

        start_HD = factor_HH.T @ (self.solution_HD - self._start_HD)
        with one_thread():
            found = minimize(
                loss_and_gradient,
                start_HD.double().flatten().numpy(),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": MAX_ITERATIONS, "ftol": TOLERANCE, "gtol": 1e-5},
            )
        self.solution_HD = weight(found.x)
        return self.solution_HD


class Prolip(SolvedMethod):
    """Fahes et al. 2024 (arXiv 2410.05270, "CLIP's Visual Embedding Projector is a Few-shot Cornucopia").

        min over W of  mean cross-entropy of s cos(h W + b, prompts) + lambda |W - W_0|_F^2

    with W_0 the model's own projection and lambda = 1 / images per class; multiples of it compete on validation. The
    paper takes gradient steps; here it is L-BFGS to a tolerance. The prompts are not changed, so other class names can
    be asked for.
    """

    name = "prolip"
    saves_buffers = True
    source = "arXiv 2410.05270"
    candidates = len(MULTIPLES)

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "hidden"

    @classmethod
    def works_inside(cls, config: TrainConfig | Settings) -> bool:
        del config
        return True

    def build(self, task: Task) -> ProjectionClassifier:
        return ProjectionClassifier(task, *own_projection(task.load_backbone()))

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> ProjectionClassifier:
        classifier = ProjectionClassifier(frame, tensors["weight_HD"], tensors["bias_D"])
        classifier.load_state_dict(dict(tensors))
        return classifier

    @torch.no_grad()
    def solve(self, classifier: Classifier, task: Task) -> Iterator[Candidate]:
        assert isinstance(classifier, ProjectionClassifier)
        hidden_NH, labels_N = task.train.table.hidden, task.train.labels_N
        problem = ProjectionProblem(classifier, hidden_NH, labels_N)
        shots = len(labels_N) / len(task.classes)
        for multiple in MULTIPLES:
            weight_HD = problem.solve(multiple / shots)
            classifier.weight_HD.copy_(weight_HD)
            train_loss = float(F.cross_entropy(classifier(hidden_NH), labels_N))
            yield Candidate(description=f"lambda={multiple / shots:.3g}", train_loss=train_loss)
