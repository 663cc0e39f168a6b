"""Mixup and label smoothing: inputs and labels are mixed in the same shares, and the loss is that of the labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clip_har.methods import Batch
from clip_har.methods.base import weighted_cross_entropy
from clip_har.trainer.batches import Epoch, mixed, smoothed
from tasks import make_task, settings


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
def test_the_labels_are_mixed_in_the_shares_of_the_inputs(shape: tuple[int, ...]) -> None:
    """Inputs that are their own one-hot labels, doubled: what mixes them must mix the labels in the same way."""
    labels_B = torch.arange(6)
    one_hot_BC = F.one_hot(labels_B, 6).float()
    torch.manual_seed(0)
    for _ in range(5):
        mixed_inputs, targets_BC = mixed(2 * one_hot_BC.reshape(6, *shape), labels_B, 6, 0.8)
        torch.testing.assert_close(targets_BC, mixed_inputs.reshape(6, 6) / 2)
        torch.testing.assert_close(targets_BC.sum(dim=1), torch.ones(6))
        assert (targets_BC.count_nonzero(dim=1) == 2).sum() >= 2


def test_the_batches_of_an_epoch_have_mixed_labels() -> None:
    task = make_task()
    torch.manual_seed(0)
    batches = Epoch(
        task.train,
        "embedding",
        batch_size=16,
        accumulate=1,
        settings=settings(mixup=0.8).augmentation,
        seed=0,
        number=0,
        classes=task.classes,
        pairs=None,
        logit_scale=20.0,
    ).batches(torch.device("cpu"))
    two_classes = 0
    for (batch,) in batches:
        assert batch.targets_BC is not None
        own_B = batch.targets_BC.gather(1, batch.labels_B[:, None])
        assert (own_B > 0).all()
        two_classes += int((batch.targets_BC.count_nonzero(dim=1) == 2).sum())
    assert two_classes > 60


@pytest.mark.parametrize("mixup", [0.0, 0.8])
def test_labels_are_smoothed_before_or_without_mixing(mixup: float) -> None:
    task = make_task()
    classes = len(task.classes)

    def targets(label_smoothing: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        epoch = Epoch(
            task.train,
            "embedding",
            batch_size=16,
            accumulate=1,
            settings=settings(mixup=mixup, label_smoothing=label_smoothing).augmentation,
            seed=0,
            number=0,
            classes=task.classes,
            pairs=None,
            logit_scale=20.0,
        )
        return [
            F.one_hot(batch.labels_B, classes).float() if batch.targets_BC is None else batch.targets_BC
            for (batch,) in epoch.batches(torch.device("cpu"))
        ]

    for sharp_BC, smooth_BC in zip(targets(0.0), targets(0.2), strict=True):
        torch.testing.assert_close(smooth_BC, 0.8 * sharp_BC + 0.2 / classes)


def test_the_loss_of_smoothed_labels_is_torchs() -> None:
    torch.manual_seed(0)
    labels_B, logits_BC = torch.tensor([0, 1, 2]), torch.randn(3, 4)
    batch = Batch(
        inputs=torch.zeros(3, 1),
        labels_B=labels_B,
        weights_B=torch.full((3,), 1 / 3),
        targets_BC=smoothed(labels_B, None, 4, 0.1),
    )
    expected = F.cross_entropy(logits_BC, labels_B, label_smoothing=0.1)
    torch.testing.assert_close(weighted_cross_entropy(logits_BC, batch), expected)


def test_the_loss_is_that_of_the_mixed_labels() -> None:
    torch.manual_seed(0)
    labels_B, other_B = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    logits_BC = torch.randn(3, 4)
    targets_BC = 0.7 * F.one_hot(labels_B, 4) + 0.3 * F.one_hot(other_B, 4)
    batch = Batch(inputs=torch.zeros(3, 1), labels_B=labels_B, weights_B=torch.full((3,), 1 / 3), targets_BC=targets_BC)
    log_BC = logits_BC.log_softmax(dim=1)
    rows = range(3)
    expected = -sum(0.7 * log_BC[i, labels_B[i]] + 0.3 * log_BC[i, other_B[i]] for i in rows) / 3
    torch.testing.assert_close(weighted_cross_entropy(logits_BC, batch), torch.as_tensor(expected))
