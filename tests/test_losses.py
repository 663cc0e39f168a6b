"""Each loss against a naive reference that loops over images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.losses import infonce, supcon
from clip_har.methods import METHODS, Batch
from clip_har.methods.sigmoid_loss import start_bias, weighted_sigmoid_loss
from clip_har.trainer import fit
from tasks import make_task, settings

SCALE = torch.tensor(7.0)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Ten images, a differently worded caption for each, and their classes; some classes repeat."""
    generator = torch.Generator().manual_seed(3)
    image_BD = F.normalize(torch.randn(10, 6, generator=generator), dim=-1)
    caption_BD = F.normalize(torch.randn(10, 6, generator=generator), dim=-1)
    return image_BD, caption_BD, torch.tensor([0, 1, 2, 3, 0, 0, 1, 2, 2, 2])


def log_softmax(row: list[float], index: int) -> float:
    top = max(row)
    return row[index] - top - math.log(sum(math.exp(value - top) for value in row))


def test_infonce_counts_captions_of_the_same_class_as_negatives(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    image_BD, caption_BD, labels_B = batch
    logits = (7.0 * image_BD @ caption_BD.T).tolist()
    size = len(logits)
    rows = sum(log_softmax(logits[i], i) for i in range(size))
    columns = sum(log_softmax([logits[j][i] for j in range(size)], i) for i in range(size))
    actual = infonce(image_BD, caption_BD, labels_B, SCALE)
    assert actual.item() == pytest.approx(-(rows + columns) / (2 * size), rel=1e-5)


def test_supcon_averages_over_all_captions_of_the_same_class(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    image_BD, caption_BD, labels_B = batch
    logits = (7.0 * image_BD @ caption_BD.T).tolist()
    size, labels = len(logits), labels_B.tolist()
    total = 0.0
    for i in range(size):
        positives = [j for j in range(size) if labels[j] == labels[i]]
        column = [logits[j][i] for j in range(size)]
        total -= sum(log_softmax(logits[i], j) for j in positives) / len(positives)
        total -= sum(log_softmax(column, j) for j in positives) / len(positives)
    actual = supcon(image_BD, caption_BD, labels_B, SCALE)
    assert actual.item() == pytest.approx(total / (2 * size), rel=1e-5)
    assert actual.item() != pytest.approx(infonce(image_BD, caption_BD, labels_B, SCALE).item(), rel=1e-3)


def test_supcon_is_infonce_when_every_image_has_a_class_of_its_own(
    batch: tuple[Tensor, Tensor, Tensor],
) -> None:
    image_BD, caption_BD, _ = batch
    labels_B = torch.arange(10).flip(0)
    torch.testing.assert_close(
        supcon(image_BD, caption_BD, labels_B, SCALE), infonce(image_BD, caption_BD, labels_B, SCALE)
    )


def test_only_infonce_pulls_an_image_towards_one_wording_of_its_class_and_off_another() -> None:
    """The false negative: the image sits midway between two captions of its class, which is as right as can be."""
    caption_BD = torch.eye(3)
    image_BD = F.normalize(torch.tensor([[1.0, 1.0, 0.0]]).repeat(3, 1), dim=-1).requires_grad_()
    labels_B = torch.tensor([0, 0, 1])

    def pull(loss: Callable[..., Tensor]) -> float:
        (gradient,) = torch.autograd.grad(loss(image_BD, caption_BD, labels_B, SCALE), image_BD)
        return abs(float(gradient[0, 0] - gradient[0, 1]))

    assert pull(infonce) > 0.1
    assert pull(supcon) == pytest.approx(0.0, abs=1e-6)


# --- sigmoid ---------------------------------------------------------------------------------------------


def test_the_sigmoid_loss_asks_about_every_class_of_every_image() -> None:
    logits_BC = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    batch = Batch(inputs=torch.zeros(2, 1), labels_B=torch.tensor([2, 1]), weights_B=torch.tensor([0.25, 0.75]))
    expected = 0.0
    for row, label, weight in zip(logits_BC.tolist(), (2, 1), (0.25, 0.75), strict=True):
        signs = [1.0 if index == label else -1.0 for index in range(3)]
        expected -= weight * sum(
            math.log(1 / (1 + math.exp(-sign * (z - 0.7)))) for sign, z in zip(signs, row, strict=True)
        )
    assert float(weighted_sigmoid_loss(logits_BC, -0.7, batch)) == pytest.approx(expected, rel=1e-5)
    mixed = dataclasses.replace(batch, targets_BC=torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]))
    assert float(weighted_sigmoid_loss(logits_BC, -0.7, mixed)) != pytest.approx(expected, rel=1e-3)


def test_the_sigmoid_loss_starts_with_the_models_bias_or_near_the_softmax() -> None:
    task = make_task()
    logits_NC = task.logit_scale * task.train.table.embedding @ task.prompts_CD.T
    bias = start_bias(task)
    assert float((logits_NC + bias).exp().sum(dim=1).log().mean()) == pytest.approx(0.0, abs=1e-4)
    assert start_bias(dataclasses.replace(task, logit_bias=-10.0)) == -10.0


@pytest.mark.parametrize("features", ["embedding", "pre-projection"])
def test_lora_learns_by_the_sigmoid_loss(features: str) -> None:
    task = make_task(hidden=16)
    method = METHODS["lora"](settings(method="lora", loss="sigmoid", features=features, epochs=15, batch_size=16))
    classifier = method.build(task)
    losses = [state.loss for state in fit(method, classifier, task, method.settings) if state.epoch_end]
    assert losses[-1] < 0.5 * losses[0]
