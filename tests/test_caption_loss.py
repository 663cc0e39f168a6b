"""Losses within the batch in several forward passes: gradients and loss are those of one large batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.losses import CAPTION_LOSSES
from clip_har.methods import Batch, Classifier, GradientMethod, Task, create_method
from clip_har.methods.embedding_lora import EmbeddingLora, Lora
from clip_har.trainer import Engine, fit
from tasks import make_image_task, make_task, settings


def one_template(task: Task) -> Task:
    """Without the draws of templates, which differ between one pass and several."""
    captions_CTD = task.captions_CTD[:, :1]
    return dataclasses.replace(
        task, templates=task.templates[:1], captions_CTD=captions_CTD, prompts_CD=captions_CTD[:, 0]
    )


def passes(inputs: Tensor, labels_B: Tensor, size: int) -> list[Batch]:
    """A step in passes of `size` images."""
    shares_B = torch.full((len(labels_B),), 1 / len(labels_B))
    parts = zip(inputs.split(size), labels_B.split(size), shares_B.split(size), strict=True)
    return [Batch(inputs=i, labels_B=labels, weights_B=shares) for i, labels, shares in parts]


def gradients(
    method: GradientMethod, classifier: Classifier, task: Task, batches: list[Batch]
) -> tuple[float, list[Tensor]]:
    engine = Engine(method, classifier, task, device=torch.device("cpu"))
    loss = engine.accumulate(batches)
    return loss, [parameter.grad.clone() for parameter in engine.trained if parameter.grad is not None]


def shuffled(task: Task, count: int) -> Tensor:
    return torch.randperm(len(task.train), generator=torch.Generator().manual_seed(3))[:count]


@pytest.mark.parametrize("size", [16, 12])
@pytest.mark.parametrize("loss", CAPTION_LOSSES)
def test_passes_of_a_step_have_the_gradients_of_one_large_batch(loss: str, size: int) -> None:
    task = one_template(make_task())
    rows = shuffled(task, 32)
    inputs, labels_B = task.train.table.embedding[rows], task.train.labels_N[rows]
    method = Lora(settings(loss=loss, dropout=0.0))
    classifier = method.build(task)
    with torch.no_grad():
        for residual in (classifier.image, classifier.text):
            residual.lora_B.normal_(generator=torch.Generator().manual_seed(1))
    whole_loss, whole = gradients(method, classifier, task, passes(inputs, labels_B, 32))
    parts_loss, parts = gradients(method, classifier, task, passes(inputs, labels_B, size))
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    assert len(whole) == len(parts) == 5  # A and B on both sides, and the logit scale
    for one, other in zip(whole, parts, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_passes_through_the_encoders_have_the_gradients_of_one_large_batch(
    name: str, photos: Path, tiny_model: str
) -> None:
    task = one_template(make_image_task(tiny_model, photos, per_class=3))
    assert task.train.files is not None
    rows = shuffled(task, 8)
    (inputs,) = task.train.files.training_batches([rows.tolist()], augment="none", image_size=None, seed=0)
    labels_B = task.train.labels_N[rows]
    method = create_method(name, settings(loss="supcon", placement="attention", rank=2, dropout=0.0))
    assert isinstance(method, GradientMethod)
    classifier = method.build(task)
    with torch.no_grad():
        for key, parameter in classifier.named_parameters():
            if ".lora_B." in key and ".out_proj." not in key:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    whole_loss, whole = gradients(method, classifier, task, passes(inputs, labels_B, 8))
    parts_loss, parts = gradients(method, classifier, task, passes(inputs, labels_B, 4))
    assert parts_loss == pytest.approx(whole_loss, rel=1e-4)
    assert len(whole) == len(parts) > 5
    largest = max(one.abs().max().item() for one in whole)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4 * largest)


def test_both_rounds_draw_the_same_captions_and_the_same_dropout() -> None:
    """Against one graph through both passes, which a naive loss over all their embeddings is taken from."""
    task = make_task()
    rows = shuffled(task, 32)
    inputs, labels_B = task.train.table.embedding[rows], task.train.labels_N[rows]
    method = Lora(settings(loss="supcon", dropout=0.5))
    classifier = method.build(task).train()
    assert isinstance(classifier, EmbeddingLora)
    with torch.no_grad():
        for residual in (classifier.image, classifier.text):
            residual.lora_B.normal_(generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    images, captions = [], []
    for batch in passes(inputs, labels_B, 16):
        images.append(classifier.adapt_images(batch.inputs))
        templates_B = torch.randint(3, (16,))
        captions.append(classifier.adapt_text(task.captions_CTD[batch.labels_B, templates_B]))
    drawn = torch.get_rng_state()
    cosine_SS = classifier.scale() * torch.cat(images) @ torch.cat(captions).T
    positive_SS = F.one_hot(labels_B) @ F.one_hot(labels_B).T
    share_SS = positive_SS / positive_SS.sum(dim=1, keepdim=True)
    both = [-(share_SS * logits_SS.log_softmax(dim=1)).sum(dim=1).mean() for logits_SS in (cosine_SS, cosine_SS.T)]
    expected = (both[0] + both[1]) / 2
    trained = [parameter for group in method.parameter_groups(classifier) for parameter in group["params"]]
    naive = torch.autograd.grad(expected, trained)

    torch.manual_seed(5)
    loss, found = gradients(method, classifier, task, passes(inputs, labels_B, 16))
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(torch.get_rng_state(), drawn)
    for one, other in zip(naive, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


class WithBatchNorm(Lora):
    def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
        classifier.norm(batch.inputs)  # type: ignore[operator]
        return super().loss(classifier, batch, task)


def test_statistics_of_batch_norm_take_in_each_image_once() -> None:
    task = make_task()
    method = WithBatchNorm(settings(loss="supcon"))
    classifier = method.build(task)
    classifier.norm = torch.nn.BatchNorm1d(12)
    classifier.has_changing_buffers = True
    gradients(method, classifier, task, passes(task.train.table.embedding[:32], task.train.labels_N[:32], 16))
    assert int(classifier.norm.num_batches_tracked) == 2  # type: ignore[arg-type]


def test_accumulating_trains_as_one_large_batch_does() -> None:
    def final(**sizes: int) -> dict[str, Tensor]:
        method = Lora(settings(epochs=2, dropout=0.0, loss="supcon", **sizes))
        task = one_template(make_task())
        classifier = method.build(task)
        list(fit(method, classifier, task, method.settings))
        return classifier.state_dict()

    one, many = final(batch_size=48), final(batch_size=16, accumulate=3)
    for key, tensor in one.items():
        torch.testing.assert_close(many[key], tensor, rtol=1e-3, atol=1e-5)
