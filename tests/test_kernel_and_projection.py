"""proker, clap and prolip: each against a direct computation, what is saved, new class names, and what they gain."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.errors import ConfigError
from clip_har.methods import METHODS, Candidate, Classifier, SolvedMethod, Task
from clip_har.methods.clap import ClapClassifier, ClapProblem
from clip_har.methods.proker import KernelClassifier, KernelRidge, kernel, landmark_indices
from clip_har.methods.prolip import ProjectionClassifier, ProjectionProblem, own_projection
from tasks import make_task, settings

NAMES = ("proker", "clap", "prolip")


def backbone_with(visual: nn.Module) -> Backbone:
    parts = SimpleNamespace(model=SimpleNamespace(visual=visual), info=SimpleNamespace(name="tiny"))
    return cast(Backbone, parts)


def with_a_projection(task: Task) -> Task:
    """A task whose embeddings are the projected features, as a vision transformer's are."""
    visual = nn.Module()
    hidden_NH, embedding_ND = task.train.table.hidden, task.train.table.embedding
    visual.proj = nn.Parameter(torch.linalg.lstsq(hidden_NH.double(), embedding_ND.double(), driver="gelsd")[0].float())
    return replace(task, load_backbone=lambda: backbone_with(visual))


def solved(name: str, task: Task, **changes: Any) -> tuple[SolvedMethod, list[Candidate], Classifier]:
    """The method, its candidates, and its classifier as the last leaves it."""
    method = METHODS[name](settings(**changes))
    assert isinstance(method, SolvedMethod)
    classifier = method.build(task)
    return method, list(method.solve(classifier, task)), classifier


def accuracy(classifier: Classifier, task: Task) -> float:
    return float((classifier.probabilities(task.val).argmax(dim=1) == task.val.labels_N).float().mean())


# --- proker ----------------------------------------------------------------------------------------------


def test_the_kernel_is_gaussian() -> None:
    task = make_task()
    one, other = task.train.table.embedding, task.val.table.embedding
    expected = torch.exp(-0.7 * torch.cdist(one.double(), other.double()).square() / 2).float()
    torch.testing.assert_close(kernel(one, other, 0.7), expected)


def kernel_problem(fold_N: Tensor | None = None) -> tuple[KernelRidge, Tensor, Tensor, Tensor]:
    """A problem, with its features, targets and weights."""
    task = make_task(per_class=12)
    compared_NZ = task.train.table.embedding
    targets_NC = F.one_hot(task.train.labels_N, 4).float() - compared_NZ @ task.prompts_CD.T
    weights_N = 0.5 + torch.arange(len(compared_NZ)).float() / len(compared_NZ)
    return KernelRidge(compared_NZ, compared_NZ, targets_NC, weights_N, 1.5), compared_NZ, targets_NC, weights_N


@pytest.mark.parametrize("penalty", [0.03, 1.0])
def test_proker_is_kernel_ridge_regression_of_the_residual(penalty: float) -> None:
    problem, compared_NZ, targets_NC, weights_N = kernel_problem()
    gram_NN = kernel(compared_NZ.double(), compared_NZ.double(), 1.5)
    theirs = SklearnKernelRidge(alpha=penalty, kernel="precomputed")
    theirs.fit(gram_NN.numpy(), targets_NC.double().numpy(), sample_weight=weights_N.double().numpy())
    coefficients_MC, _ = problem.solve(penalty, None)
    answers_NC = kernel(compared_NZ, compared_NZ, 1.5) @ coefficients_MC
    np.testing.assert_allclose(answers_NC.numpy(), theirs.predict(gram_NN.numpy()), atol=1e-3)


def test_prokers_out_of_fold_answers_are_those_of_fits_without_the_fold() -> None:
    problem, compared_NZ, targets_NC, weights_N = kernel_problem()
    fold_N = torch.arange(len(compared_NZ)) % 3
    fold_N[0] = -1
    gram_NN = kernel(compared_NZ.double(), compared_NZ.double(), 1.5).numpy()
    _, answers_NC = problem.solve(0.1, fold_N)
    assert answers_NC is not None
    for fold in range(3):
        own, rest = (fold_N == fold).numpy(), (fold_N != fold).numpy()
        theirs = SklearnKernelRidge(alpha=0.1, kernel="precomputed")
        theirs.fit(gram_NN[np.ix_(rest, rest)], targets_NC.double().numpy()[rest], weights_N.double().numpy()[rest])
        np.testing.assert_allclose(answers_NC.numpy()[own], theirs.predict(gram_NN[np.ix_(own, rest)]), atol=2e-3)


def test_a_subset_of_landmarks_is_the_best_function_of_their_kernels() -> None:
    """Against the normal equations of coefficients a: |V^1/2 (R - K_NM a)|^2 + lambda a' K_MM a."""
    task = make_task(per_class=12)
    compared_NZ = task.train.table.embedding
    targets_NC = F.one_hot(task.train.labels_N, 4).float()
    weights_N = torch.ones(len(compared_NZ))
    landmarks_MZ = compared_NZ[::4]
    problem = KernelRidge(compared_NZ, landmarks_MZ, targets_NC, weights_N, 1.0)
    coefficients_MC, _ = problem.solve(0.1, None)
    cross_NM = kernel(compared_NZ.double(), landmarks_MZ.double(), 1.0)
    own_MM = kernel(landmarks_MZ.double(), landmarks_MZ.double(), 1.0)
    expected_MC = torch.linalg.solve(cross_NM.T @ cross_NM + 0.1 * own_MM, cross_NM.T @ targets_NC.double())
    torch.testing.assert_close(
        (cross_NM @ coefficients_MC.double()).float(), (cross_NM @ expected_MC).float(), rtol=0, atol=2e-3
    )


def test_landmarks_are_balanced() -> None:
    labels_N = torch.tensor([0] * 50 + [1] * 9 + [2] * 20)
    chosen_M = landmark_indices(labels_N, 0, 30)
    assert torch.bincount(labels_N[chosen_M]).tolist() in ([11, 9, 10], [10, 9, 11])
    assert len(chosen_M.unique()) == 30
    assert torch.equal(landmark_indices(labels_N, 0, 79), torch.arange(79))


def test_proker_reads_landmarks_through_its_forward_pass() -> None:
    task = make_task()
    _, _, classifier = solved("proker", task, features="embedding")
    assert isinstance(classifier, KernelClassifier)
    embedding_ND = task.val.table.embedding
    values_NM = kernel(embedding_ND, task.train.table.embedding, float(classifier.beta))
    expected_NC = embedding_ND @ task.prompts_CD.T + values_NM @ classifier.coefficients_MC
    torch.testing.assert_close(classifier(embedding_ND), classifier.scale * expected_NC)


# --- clap ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["embedding", "pre-projection"])
def test_clap_finds_where_the_gradient_of_its_objective_vanishes(features: str) -> None:
    task = make_task()
    classifier = METHODS["clap"](settings(features=features)).build(task)
    assert isinstance(classifier, ClapClassifier)
    inputs, labels_N = task.train.features(classifier.reads), task.train.labels_N
    problem = ClapProblem(classifier, inputs, labels_N, task.logit_scale)
    differences_CZ = problem.solve(1.0).clone().requires_grad_()
    zero_shot_NC = (20.0 * task.train.table.embedding @ task.prompts_CD.T).softmax(dim=1)
    own_C = torch.stack([zero_shot_NC[labels_N == k, k].mean() for k in range(4)])
    if features == "embedding":
        directions_CD = F.normalize(task.prompts_CD + differences_CZ, dim=-1)
        logits_NC = 20.0 * task.train.table.embedding @ directions_CD.T
    else:
        embedding_ND, centred_NH = classifier.parts(inputs)
        logits_NC = 20.0 * (embedding_ND @ task.prompts_CD.T + centred_NH @ differences_CZ.T)
    loss = F.cross_entropy(logits_NC, labels_N) + sum(own_C[k] * differences_CZ[k].square().sum() / 4 for k in range(4))
    (gradient_CZ,) = torch.autograd.grad(loss, differences_CZ)
    assert float(gradient_CZ.abs().max()) < 2e-3
    at_start = problem.objective(torch.zeros_like(differences_CZ), 1.0)
    assert float(loss.detach()) < 0.9 * float(at_start)


def test_a_class_that_zero_shot_knows_is_held_more_firmly() -> None:
    task = make_task()
    classifier = METHODS["clap"](settings(features="embedding")).build(task)
    assert isinstance(classifier, ClapClassifier)
    worse = replace(task, prompts_CD=torch.cat([-task.prompts_CD[:1], task.prompts_CD[1:]]))
    again = METHODS["clap"](settings(features="embedding")).build(worse)
    assert isinstance(again, ClapClassifier)
    inputs, labels_N = task.train.table.embedding, task.train.labels_N
    right = ClapProblem(classifier, inputs, labels_N, 20.0).multipliers_C
    wrong = ClapProblem(again, inputs, labels_N, 20.0).multipliers_C
    assert float(wrong[0]) < 0.1 < float(right[0])


def test_clap_with_a_strong_penalty_stays_zero_shot() -> None:
    task = make_task()
    classifier = METHODS["clap"](settings(features="embedding")).build(task)
    assert isinstance(classifier, ClapClassifier)
    problem = ClapProblem(classifier, task.train.table.embedding, task.train.labels_N, 20.0)
    assert float(problem.solve(1e5).norm()) < 1e-2 < float(problem.solve(0.1).norm())


# --- prolip ----------------------------------------------------------------------------------------------


def test_prolip_starts_as_zero_shot_and_finds_a_minimum() -> None:
    task = with_a_projection(make_task(hidden=16))
    classifier = METHODS["prolip"](settings()).build(task)
    assert isinstance(classifier, ProjectionClassifier)
    zero_shot = METHODS["zero-shot"](settings()).build(task).probabilities(task.val)
    torch.testing.assert_close(classifier.probabilities(task.val), zero_shot, rtol=1e-3, atol=1e-4)
    start_HD = classifier.weight_HD.detach().clone()
    hidden_NH, labels_N = task.train.table.hidden, task.train.labels_N

    def objective(weight_HD: Tensor) -> Tensor:
        logits_NC = 20.0 * F.cosine_similarity((hidden_NH @ weight_HD)[:, None], task.prompts_CD[None], dim=-1)
        return F.cross_entropy(logits_NC, labels_N) + 0.5 * (weight_HD - start_HD).square().sum()

    problem = ProjectionProblem(classifier, hidden_NH, labels_N)
    torch.testing.assert_close(problem.objective(start_HD + 0.1, 0.5), objective(start_HD + 0.1))
    weight_HD = problem.solve(0.5).clone().requires_grad_()
    (gradient_HD,) = torch.autograd.grad(objective(weight_HD), weight_HD)
    (before_HD,) = torch.autograd.grad(objective(at_start := start_HD.clone().requires_grad_()), at_start)
    assert float(gradient_HD.norm()) < 0.1 * float(before_HD.norm())
    assert float(objective(weight_HD.detach())) < float(objective(start_HD))


def test_prolip_takes_the_own_projection_both_kinds_of_towers() -> None:
    transformer, timm = nn.Module(), nn.Module()
    transformer.proj = nn.Parameter(torch.randn(6, 3))
    timm.head = nn.Module()
    timm.head.proj = nn.Linear(6, 3)
    hidden_BH = torch.randn(5, 6)
    for visual, expected in ((transformer, hidden_BH @ transformer.proj), (timm, timm.head.proj(hidden_BH))):
        weight_HD, bias_D = own_projection(backbone_with(visual))
        torch.testing.assert_close(hidden_BH @ weight_HD + bias_D, expected)


def test_prolip_refuses_a_tower_without_a_projection() -> None:
    with pytest.raises(ConfigError, match="prolip cannot train 'tiny'") as caught:
        own_projection(backbone_with(nn.Identity()))
    assert "--method lora" in caught.value.remedy


def test_prolip_answers_other_class_names() -> None:
    task = with_a_projection(make_task(hidden=16))
    method, _, classifier = solved("prolip", task)
    assert method.answers_new_names
    swapped = replace(task, prompts_CD=task.prompts_CD.flip(0)[:3])
    again = method.restore(swapped, method.tensors(classifier))
    assert isinstance(again, ProjectionClassifier)
    logits_NC = classifier(task.val.table.hidden).flip(1)[:, :3]
    torch.testing.assert_close(again(task.val.table.hidden), logits_NC)


# --- all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["embedding", "pre-projection"])
@pytest.mark.parametrize("name", NAMES)
def test_saved_tensors_answer_as_before_and_better_than_zero_shot(name: str, features: str) -> None:
    task = with_a_projection(make_task(hidden=16))
    task = replace(task, prompts_CD=F.normalize(task.prompts_CD + 1.1 * task.prompts_CD.roll(1, 0), dim=-1))
    method, candidates, classifier = solved(name, task, features=features)
    assert len(candidates) == method.candidates
    assert len({candidate.description for candidate in candidates}) == len(candidates)
    assert all(candidate.out_of_fold is None for candidate in candidates)
    again = method.restore(task, method.tensors(classifier))
    torch.testing.assert_close(again.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)
    zero_shot = METHODS["zero-shot"](settings()).build(task)
    assert accuracy(classifier, task) > accuracy(zero_shot, task) + 0.2


@pytest.mark.parametrize("features", ["embedding", "pre-projection"])
@pytest.mark.parametrize("name", ["proker", "clap"])
def test_refit_learns_from_validation_images_and_answers_out_of_fold(
    name: str, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_har.methods.clap.STRENGTHS", (1.0,))
    task = make_task(per_class=12)
    other = replace(task, val=replace(task.val, labels_N=task.val.labels_N.flip(0)))
    found = {}
    for key, given_task in (("right", task), ("wrong", other)):
        method, candidates, _ = solved(name, given_task, refit=True, features=features)
        assert method.refits and not method.answers_new_names
        for candidate in candidates:
            assert candidate.out_of_fold is not None and len(candidate.out_of_fold.labels_N) == 4 * 22
            torch.testing.assert_close(candidate.out_of_fold.probabilities_NC.sum(dim=1), torch.ones(88))
        answers = candidates[0].out_of_fold
        assert answers is not None
        found[key] = float((answers.probabilities_NC.argmax(dim=1) == answers.labels_N).float().mean())
    assert found["right"] > found["wrong"] + 0.2
