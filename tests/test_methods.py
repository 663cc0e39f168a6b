"""The methods: sizes, starting points, gradients, saved forms, and what each must reach on easy features."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from clip_har.config import METHOD_NAMES
from clip_har.methods import METHODS, Batch, GradientMethod, SolvedMethod
from clip_har.methods.embedding_lora import EmbeddingLora, Lora
from tasks import make_task, settings


def test_the_dict_and_the_configuration_name_the_same_methods() -> None:
    assert set(METHODS) == set(METHOD_NAMES)
    assert all(METHODS[name].name == name for name in METHODS)


@pytest.mark.parametrize("name", ["zero-shot", "lora", "linear-probe", "gda", "ridge"])
def test_saved_tensors_restore_the_same_answers(name: str) -> None:
    task = make_task()
    method = METHODS[name](settings())
    classifier = method.build(task)
    generator = torch.Generator().manual_seed(5)
    for parameter in classifier.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    again = method.restore(task, method.tensors(classifier))
    torch.testing.assert_close(again.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)


def test_probabilities_sum_to_one_and_leave_the_mode_alone() -> None:
    task = make_task()
    classifier = Lora(settings()).build(task)
    classifier.train()
    probabilities_NC = classifier.probabilities(task.val, chunk=7)
    assert classifier.training
    assert probabilities_NC.shape == (40, 4)
    torch.testing.assert_close(probabilities_NC.sum(dim=1), torch.ones(40))


# --- lora -----------------------------------------------------------------------------------------------


def test_lora_trains_32769_parameters_on_vit_b_32() -> None:
    task = make_task(width=512)
    classifier = Lora(settings(rank=16)).build(task)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 32_769


def test_lora_starts_as_zero_shot() -> None:
    task = make_task()
    zero_shot = METHODS["zero-shot"](settings()).build(task).probabilities(task.val)
    lora = Lora(settings()).build(task).probabilities(task.val)
    torch.testing.assert_close(lora, zero_shot, rtol=1e-5, atol=1e-6)


def test_lora_initialises_a_narrowly_and_b_with_zeros() -> None:
    classifier = Lora(settings()).build(make_task(width=512))
    for side in (classifier.image, classifier.text):
        assert side.lora_A.std().item() == pytest.approx(0.01, rel=0.05)
        assert torch.equal(side.lora_B, torch.zeros_like(side.lora_B))
    assert not torch.equal(classifier.image.lora_A, classifier.text.lora_A)


def test_lora_is_the_formula() -> None:
    task = make_task()
    classifier = Lora(settings(rank=3, alpha=5.0)).build(task).eval()
    generator = torch.Generator().manual_seed(2)
    for parameter in classifier.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    x_D = task.val.table.embedding[0].numpy().astype(np.float64)
    a, b = (tensor.detach().numpy().astype(np.float64) for tensor in (classifier.image.lora_A, classifier.image.lora_B))
    image = x_D + (5.0 / 3) * (b @ (a @ x_D))
    a, b = (tensor.detach().numpy().astype(np.float64) for tensor in (classifier.text.lora_A, classifier.text.lora_B))
    expected = []
    for prompt_D in task.prompts_CD.numpy().astype(np.float64):
        text = prompt_D + (5.0 / 3) * (b @ (a @ prompt_D))
        cosine = image @ text / (np.linalg.norm(image) * np.linalg.norm(text))
        expected.append(min(100.0, math.exp(classifier.logit_scale.item())) * cosine)
    actual = classifier(task.val.table.embedding[:1])[0].detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("loss", ["cross-entropy", "supcon", "infonce"])
def test_every_trainable_tensor_of_lora_gets_a_gradient(loss: str) -> None:
    task = make_task()
    method = Lora(settings(loss=loss))
    classifier = method.build(task)
    classifier.image.lora_B.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    classifier.text.lora_B.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    method.loss(classifier, Batch.of(task.train.table.embedding, task.train.labels_N), task).backward()
    for name, parameter in classifier.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_lora_groups_hold_each_parameter_once_with_the_multipliers() -> None:
    method = Lora(settings(lr=2.0, vision_lr_multiplier=0.5, text_lr_multiplier=0.1, projection_lr_multiplier=3.0))
    classifier = method.build(make_task())
    groups = method.parameter_groups(classifier)
    assert [group["lr"] for group in groups] == [1.0, 0.2, 6.0]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.01, 0.0]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in classifier.parameters())


class Heads(nn.Module):
    """The base model that the PEFT adapter fits: an identity layer behind each tower, and the logit scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Linear(width, width, bias=False)
        self.text = nn.Linear(width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        for layer in (self.image, self.text):
            nn.init.eye_(layer.weight)


def test_peft_loads_the_lora_adapter_without_us(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    task = make_task()
    method = Lora(settings())
    classifier = method.build(task)
    generator = torch.Generator().manual_seed(4)
    for parameter in classifier.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    save_file(method.tensors(classifier), tmp_path / method.weights_file)
    for name, content in method.extra_files(classifier, "ViT-B/32").items():
        (tmp_path / name).write_text(json.dumps(content))
    heads = peft.PeftModel.from_pretrained(Heads(12), tmp_path).eval()
    image_ND = F.normalize(heads.base_model.model.image(task.val.table.embedding), dim=-1)
    text_CD = F.normalize(heads.base_model.model.text(task.prompts_CD), dim=-1)
    logits_NC = heads.base_model.model.logit_scale.exp() * image_ND @ text_CD.T
    torch.testing.assert_close(logits_NC.softmax(-1), classifier.probabilities(task.val))


def test_methods_say_how_they_are_trained() -> None:
    assert issubclass(METHODS["lora"], GradientMethod)
    assert issubclass(METHODS["linear-probe"], SolvedMethod)
    assert isinstance(Lora(settings()).build(make_task()), EmbeddingLora)
