"""CLIP-Adapter, Tip-Adapter and Tip-Adapter-F against naive references, on made-up features."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.methods.base import Batch, Classifier, GradientMethod, Method, Task
from clip_har.methods.clip_adapter import REDUCTION, RESIDUAL_RATIO, ClipAdapter
from clip_har.methods.labelled_images import LabelledImages
from clip_har.methods.tip_adapter import BETAS, CacheClassifier, TipAdapter, TipAdapterF, held_out_loss, search
from tasks import Table, make_task, settings

METHODS: list[type[Method]] = [ClipAdapter, TipAdapter, TipAdapterF]


def step_through(method: GradientMethod, classifier: Classifier, task: Task, *, epochs: int) -> list[float]:
    """Plain AdamW over the whole training set; the loss before each step."""
    optimizer = torch.optim.AdamW(method.parameter_groups(classifier))
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = method.loss(classifier, Batch.of(task.train.table.embedding, task.train.labels_N), task)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def trained(method: Method, task: Task, *, epochs: int = 40) -> Classifier:
    classifier = method.build(task)
    if isinstance(method, TipAdapter):
        for _ in method.solve(classifier, task):
            if math.isclose(float(classifier.state_dict()["beta"]), 8.0):
                break
    else:
        assert isinstance(method, GradientMethod)
        step_through(method, classifier, task, epochs=epochs)
    return classifier


def zero_shot(task: Task, embedding_BD: Tensor) -> Tensor:
    return task.logit_scale * embedding_BD @ task.prompts_CD.T


def accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    return float((logits_NC.argmax(dim=1) == labels_N).float().mean())


def unbalanced_task() -> Task:
    """Class 0 has five times the training images of the others."""
    task = make_task()
    few = [i for i in range(len(task.train)) if task.train.labels_N[i] == 0 or i % 5 == 0]
    return dataclasses.replace(task, train=task.train.subset(few))


@pytest.mark.parametrize("kind", METHODS)
def test_a_restored_run_answers_exactly_as_the_trained_one(kind: type[Method]) -> None:
    task = make_task()
    method = kind(settings())
    classifier = trained(method, task)
    restored = method.restore(task, method.tensors(classifier))
    torch.testing.assert_close(restored.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)
    assert method.trainable_params(restored) == method.trainable_params(classifier)
    with pytest.raises((KeyError, RuntimeError)):
        method.restore(task, {})


@pytest.mark.parametrize("kind", METHODS)
def test_training_beats_zero_shot(kind: type[Method]) -> None:
    task = make_task(classes=8, width=32)
    task = dataclasses.replace(task, prompts_CD=F.normalize(task.prompts_CD + task.prompts_CD.roll(1, dims=0), dim=-1))
    classifier = trained(kind(settings(lr=0.01)), task)
    before = accuracy(zero_shot(task, task.val.table.embedding), task.val.labels_N)
    assert accuracy(classifier.probabilities(task.val), task.val.labels_N) >= before + 0.1


@pytest.mark.parametrize("kind", [ClipAdapter, TipAdapterF])
def test_every_trained_tensor_gets_a_gradient(kind: type[GradientMethod]) -> None:
    task = make_task()
    method = kind(settings())
    classifier = method.build(task)
    step_through(method, classifier, task, epochs=2)  # W1 has none before W2 has moved away from 0
    grouped = [parameter for group in method.parameter_groups(classifier) for parameter in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in classifier.parameters() if p.requires_grad}
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in grouped)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ClipAdapter, [0.17941, 0.17894, 0.17847]),
        (TipAdapterF, [0.047601, 0.046979, 0.046369]),
    ],
)
def test_golden_loss_trace(kind: type[GradientMethod], expected: list[float]) -> None:
    task = make_task()
    method = kind(settings())
    losses = step_through(method, method.build(task), task, epochs=3)
    assert losses == pytest.approx(expected, rel=1e-3)


# --- CLIP-Adapter -----------------------------------------------------------------------------------------


def test_clip_adapter_starts_as_the_zero_shot_model() -> None:
    task = make_task()
    embedding_BD = task.val.table.embedding
    torch.testing.assert_close(ClipAdapter(settings()).build(task)(embedding_BD), zero_shot(task, embedding_BD))


def test_clip_adapter_is_the_papers_formula() -> None:
    task = make_task()
    classifier = trained(ClipAdapter(settings()), task)
    weights = dict(classifier.named_parameters())
    for embedding_D, logits_C in zip(task.val.table.embedding, classifier(task.val.table.embedding), strict=True):
        adapted_D = weights["up.weight"] @ (weights["down.weight"] @ embedding_D).clamp(min=0)
        mixed_D = RESIDUAL_RATIO * adapted_D + (1 - RESIDUAL_RATIO) * embedding_D
        expected_C = torch.stack([F.cosine_similarity(mixed_D, prompt_D, dim=0) for prompt_D in task.prompts_CD])
        torch.testing.assert_close(logits_C, task.logit_scale * expected_C, rtol=1e-4, atol=1e-4)


def test_clip_adapter_counts_its_parameters_and_follows_the_seed() -> None:
    method = ClipAdapter(settings())
    classifier = method.build(make_task(width=12))
    assert method.trainable_params(classifier) == 2 * 12 * (12 // REDUCTION)
    same, other = method.build(make_task()), method.build(dataclasses.replace(make_task(), seed=1))
    first_weight = dict(classifier.named_parameters())["down.weight"]
    assert torch.equal(dict(same.named_parameters())["down.weight"], first_weight)
    assert not torch.equal(dict(other.named_parameters())["down.weight"], first_weight)


# --- Tip-Adapter ------------------------------------------------------------------------------------------


def test_tip_adapter_logits_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_har.methods.tip_adapter.CHUNK", 7)
    task = unbalanced_task()
    classifier = CacheClassifier.of_training_images(task, "embedding", train_keys=False)
    classifier.alpha.fill_(3.0)
    classifier.beta.fill_(5.5)
    classifier.temperature.fill_(2.0)
    sizes = [int((task.train.labels_N == label).sum()) for label in range(len(task.classes))]
    expected_BC = zero_shot(task, task.val.table.embedding)
    for row, embedding_D in enumerate(task.val.table.embedding):
        for key_D, label in zip(task.train.table.embedding, task.train.labels_N.tolist(), strict=True):
            affinity = math.exp(-5.5 * (1 - float(embedding_D @ key_D)))
            expected_BC[row, label] += 3.0 * affinity / sizes[label]
    torch.testing.assert_close(classifier(task.val.table.embedding), expected_BC / 2.0, rtol=1e-4, atol=1e-4)


def test_tip_adapter_trains_nothing_and_keeps_all_it_needs() -> None:
    task = make_task()
    method = TipAdapter(settings())
    classifier = trained(method, task)
    saved = method.tensors(classifier)
    assert method.trainable_params(classifier) == 0
    assert set(saved) == {"keys_ND", "values_NC", "alpha", "beta", "temperature"}
    assert torch.equal(saved["keys_ND"], F.normalize(task.train.table.embedding, dim=-1))


def test_tip_adapter_offers_one_candidate_per_beta() -> None:
    task = make_task()
    method = TipAdapter(settings())
    classifier = method.build(task)
    betas = []
    for candidate in method.solve(classifier, task):
        betas.append(float(classifier.beta))
        assert f"beta={betas[-1]:g}," in candidate.description
        assert math.isfinite(candidate.train_loss)
        assert torch.isfinite(classifier(task.val.table.embedding)).all()
    assert betas == list(BETAS)
    assert len(betas) == method.candidates


def test_a_class_with_more_images_weighs_no_more() -> None:
    """An image halfway between two classes, one of them with five times the images, is not drawn to the larger."""
    centres_2D = torch.eye(2)
    keys_ND = centres_2D[torch.tensor([0] * 50 + [1] * 10)]
    labels_N = keys_ND.argmax(dim=1)
    images = LabelledImages(table=Table(keys_ND, keys_ND), labels_N=labels_N)  # type: ignore[arg-type]
    task = dataclasses.replace(
        make_task(classes=2, width=2), train=images, prompts_CD=centres_2D, classes=("large", "small")
    )
    logits_2 = CacheClassifier.of_training_images(task, "embedding", train_keys=False)(torch.full((1, 2), 0.5**0.5))[0]
    torch.testing.assert_close(logits_2[0], logits_2[1])


def test_the_search_does_not_lose_to_zero_shot_on_validation() -> None:
    task = unbalanced_task()
    classifier = CacheClassifier.of_training_images(task, "embedding", train_keys=False)
    found, loss = search(classifier, task, beta=8.0)
    logits_NC = classifier(task.val.table.embedding)
    assert found == pytest.approx(accuracy(logits_NC, task.val.labels_N))  # validation has equally many of each class
    assert loss == pytest.approx(float(F.cross_entropy(logits_NC, task.val.labels_N, label_smoothing=1 / 41)), rel=1e-4)
    assert found >= accuracy(zero_shot(task, task.val.table.embedding), task.val.labels_N)


def test_the_training_loss_of_a_candidate_leaves_out_each_images_own_key() -> None:
    task = make_task(per_class=6)
    classifier = CacheClassifier.of_training_images(task, "embedding", train_keys=False)
    search(classifier, task, beta=64.0)
    losses = []
    for index in range(len(task.train)):
        without = CacheClassifier.of_training_images(task, "embedding", train_keys=False)
        without.load_state_dict(classifier.state_dict())
        without.values_NC[index] = 0.0
        logits_1C = without(task.train.table.embedding[index : index + 1])
        losses.append(float(F.cross_entropy(logits_1C, task.train.labels_N[index : index + 1])))
    assert held_out_loss(classifier, task) == pytest.approx(sum(losses) / len(losses), rel=1e-3)
    leaking = float(F.cross_entropy(classifier(task.train.table.embedding), task.train.labels_N))
    assert held_out_loss(classifier, task) > 1.5 * leaking


def test_augmented_views_are_averaged_into_the_keys() -> None:
    task = make_task()
    view_ND = F.normalize(task.train.table.embedding.flip(dims=[1]), dim=-1)
    train = dataclasses.replace(task.train, views=(Table(view_ND, view_ND),))  # type: ignore[arg-type]
    classifier = CacheClassifier.of_training_images(
        dataclasses.replace(task, train=train), "embedding", train_keys=False
    )
    torch.testing.assert_close(classifier.keys_ND.data, F.normalize(task.train.table.embedding + view_ND, dim=-1))


def test_tip_adapter_f_trains_its_keys_alone_from_a_softer_cache() -> None:
    task = make_task(per_class=5, width=12)
    method = TipAdapterF(settings())
    classifier = method.build(task)
    assert method.trainable_params(classifier) == len(task.train) * 12
    before = {key: tensor.clone() for key, tensor in method.tensors(classifier).items()}
    step_through(method, classifier, task, epochs=3)
    changed = {key for key, tensor in method.tensors(classifier).items() if not torch.equal(tensor, before[key])}
    assert changed == {"keys_ND"}
    assert before["beta"] in [beta / 4 for beta in BETAS]
