"""Adapters on features before the projection: centring, starting points, what is saved, and what it gains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from clip_har.config import OptimizerConfig, TrainConfig, resolve
from clip_har.methods import METHODS, Classifier, GradientMethod, LabelledImages, Method, SolvedMethod, Task
from clip_har.methods.centred_features import CentredFeatures
from clip_har.methods.embedding_lora import PRE_PROJECTION_LR, Lora, PreProjectionLora
from clip_har.methods.tip_adapter import CentredCacheClassifier
from clip_har.trainer import fit
from tasks import Table, given, make_task, settings

ADAPTERS = ("lora", "clip-adapter", "tip-adapter", "tip-adapter-f")


def task_with_a_blind_projection() -> Task:
    """A task whose embeddings carry little of the classes, but whose features before the projection tell them apart."""
    task = make_task(per_class=20, width=32)
    generator = torch.Generator().manual_seed(3)
    centres_CH = torch.randn(4, 20, generator=generator)

    def split(images: torch.Tensor, labels_N: torch.Tensor) -> Table:
        noise_NH = torch.randn(len(labels_N), 20, generator=generator)
        blurred_ND = images + torch.randn(images.shape, generator=generator)
        return Table(F.normalize(blurred_ND, dim=-1), 5 + centres_CH[labels_N] + 0.7 * noise_NH)

    def blurred(images: LabelledImages) -> LabelledImages:
        return replace(images, table=split(images.table.embedding, images.labels_N))  # type: ignore[arg-type]

    return replace(task, train=blurred(task.train), val=blurred(task.val))


def method_of(name: str, **changes: Any) -> Method:
    return METHODS[name](settings(features="pre-projection", **changes))


def trained(method: Method, task: Task) -> Classifier:
    classifier = method.build(task)
    best, best_loss = dict(method.tensors(classifier)), float("inf")
    for state in fit(method, classifier, task, method.settings):
        loss = float(F.nll_loss(classifier.probabilities(task.val).clamp(min=1e-9).log(), task.val.labels_N))
        if state.epoch_end and loss < best_loss:
            best_loss, best = loss, {key: tensor.clone() for key, tensor in method.tensors(classifier).items()}
    return method.restore(task, best)


def accuracy(classifier: Classifier, task: Task) -> float:
    return float((classifier.probabilities(task.val).argmax(dim=1) == task.val.labels_N).float().mean())


def test_centred_features_have_unit_length_and_no_common_direction() -> None:
    hidden_NH = 10 + torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    centred = CentredFeatures(30)
    centred.fit(hidden_NH)
    z_NH = centred(hidden_NH)
    torch.testing.assert_close(z_NH.norm(dim=1), torch.ones(200))
    assert float((F.normalize(hidden_NH, dim=1) @ F.normalize(hidden_NH, dim=1).T).mean()) > 0.98
    assert abs(float((z_NH @ z_NH.T).mean())) < 0.05


@pytest.mark.parametrize("name", ["lora", "clip-adapter"])
def test_training_starts_as_zero_shot(name: str) -> None:
    task = make_task()
    zero_shot = METHODS["zero-shot"](settings()).build(task).probabilities(task.val)
    torch.testing.assert_close(method_of(name).build(task).probabilities(task.val), zero_shot, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_adapters_answer_as_before(name: str) -> None:
    task, method = make_task(), method_of(name)
    classifier = method.build(task)
    if isinstance(method, SolvedMethod):
        next(iter(method.solve(classifier, task)))
    generator = torch.Generator().manual_seed(5)
    for parameter in classifier.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    again = method.restore(task, method.tensors(classifier))
    torch.testing.assert_close(again.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)
    assert again.reads == "both"


@pytest.mark.parametrize("name", ADAPTERS)
def test_they_find_what_the_projection_dropped(name: str) -> None:
    task = task_with_a_blind_projection()
    steps: dict[str, Any] = {"epochs": 40, "batch_size": 16, "lr": 1e-2}
    before = trained(METHODS[name](settings(features="embedding", **steps)), task)
    after = trained(method_of(name, **steps), task)
    assert accuracy(after, task) > 0.75
    assert accuracy(after, task) > accuracy(before, task) + 0.1


def test_parameters_of_lora_on_vit_b_32() -> None:
    task = make_task(width=512, hidden=768)
    method = method_of("lora", rank=16)
    assert method.trainable_params(method.build(task)) == 36_865


def test_lora_is_the_formula() -> None:
    task = make_task()
    classifier = Lora(settings(features="pre-projection", rank=3, alpha=5.0)).build(task).eval()
    assert isinstance(classifier, PreProjectionLora)
    generator = torch.Generator().manual_seed(2)
    for parameter in classifier.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    x_D, h_H = task.val.table.embedding[0], task.val.table.hidden[0]
    mean_H = F.normalize(task.train.table.hidden, dim=1).mean(dim=0)
    z_H = F.normalize(F.normalize(h_H, dim=0) - mean_H, dim=0)
    image_D = x_D + 5 / 3 * classifier.image.lora_B @ classifier.image.lora_A @ z_H
    text_CD = task.prompts_CD + 5 / 3 * task.prompts_CD @ classifier.text.lora_A.T @ classifier.text.lora_B.T
    expected_C = classifier.scale() * F.cosine_similarity(image_D[None], text_CD)
    both_X = torch.cat([x_D, h_H])[None]
    torch.testing.assert_close(classifier(both_X)[0], expected_C, rtol=1e-4, atol=1e-4)


class Heads(nn.Module):
    """What the PEFT adapter fits: a zero layer from the features before the projection, and an identity of prompts."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.image = nn.Linear(features, width, bias=False)
        self.text = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.centred = nn.Module()
        self.centred.register_buffer("mean_H", torch.zeros(features))
        nn.init.zeros_(self.image.weight)
        nn.init.eye_(self.text.weight)


def test_peft_loads_the_adapter_without_us(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    task, method = make_task(), method_of("lora")
    classifier = method.build(task)
    generator = torch.Generator().manual_seed(4)
    for parameter in classifier.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    save_file(method.tensors(classifier), tmp_path / method.weights_file)
    for name, content in method.extra_files(classifier, "ViT-B/32").items():
        (tmp_path / name).write_text(json.dumps(content))
    heads = peft.PeftModel.from_pretrained(Heads(20, 12), tmp_path).eval().base_model.model
    centred_NH = F.normalize(task.val.table.hidden, dim=-1) - heads.centred.mean_H
    image_ND = F.normalize(task.val.table.embedding + heads.image(F.normalize(centred_NH, dim=-1)), dim=-1)
    text_CD = F.normalize(heads.text(task.prompts_CD), dim=-1)
    logits_NC = heads.logit_scale.exp().clamp(max=100) * image_ND @ text_CD.T
    torch.testing.assert_close(logits_NC.softmax(-1), classifier.probabilities(task.val))


def test_the_validation_images_have_no_part_in_the_mean() -> None:
    task = make_task()
    other = replace(task, val=replace(task.val, table=Table(task.val.table.embedding, 7 * task.val.table.hidden)))  # type: ignore[arg-type]
    one, two = (method_of("tip-adapter").build(given_task) for given_task in (task, other))
    assert isinstance(one, CentredCacheClassifier) and isinstance(two, CentredCacheClassifier)
    assert torch.equal(one.centred.mean_H, two.centred.mean_H)


@pytest.mark.parametrize(
    ("config", "features", "lr"),
    [
        (given(), "pre-projection", PRE_PROJECTION_LR),
        (given(features="embedding"), "embedding", 1e-3),
        (given(renormalise=False), "embedding", 1e-3),
        (given(features="pre-projection", lr=0.5), "pre-projection", 0.5),
    ],
)
def test_defaults_of_lora(config: TrainConfig, features: str, lr: float) -> None:
    resolved = resolve(config, Lora.defaults(config, None))  # type: ignore[arg-type]
    assert (resolved.features, resolved.optimizer.lr) == (features, lr)
    assert Lora.reads(config) == Lora.reads(resolved) == ("both" if features == "pre-projection" else "embedding")


def test_features_have_no_effect_on_methods_that_choose_their_own() -> None:
    asked = given(features="embedding")
    assert METHODS["linear-probe"].without_effect(asked) == ("features",)
    assert all("features" not in METHODS[name].without_effect(asked) for name in ADAPTERS)
    assert issubclass(METHODS["tip-adapter-f"], GradientMethod)
    assert OptimizerConfig().lr is None
