"""The training loop: its schedule, its trace, what stops it, and that continuing changes nothing."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from clip_har.errors import TrainingError
from clip_har.methods import Batch, Classifier, Task
from clip_har.methods.embedding_lora import EmbeddingLora, Lora
from clip_har.methods.linear_probe import LinearProbe
from clip_har.methods.zero_shot import ZeroShot
from clip_har.trainer import Engine, Snapshot, TrainState, fit, lr_factor
from tasks import make_task, settings

SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 32, "lr": 1e-2, "rank": 4, "alpha": 8.0}


def epoch_ends(method: Lora, classifier: Classifier, task: Task, **options: Any) -> list[TrainState]:
    return [s for s in fit(method, classifier, task, method.settings, **options) if s.epoch_end]


def test_a_golden_loss_trace() -> None:
    """Pinned so that a change of the recipe cannot pass unseen; measured with torch 2.15 on a CPU."""
    method = Lora(settings(**SHORT))
    task = make_task()
    losses = [state.loss for state in epoch_ends(method, method.build(task), task)]
    assert losses == pytest.approx([0.16842, 0.06864, 0.03171], rel=1e-3)


def test_training_lowers_the_loss_and_raises_accuracy() -> None:
    method = Lora(settings(epochs=10, batch_size=16))
    task = make_task()
    classifier = method.build(task)
    before = accuracy(classifier, task)
    states = epoch_ends(method, classifier, task)
    assert states[-1].loss < 0.6 * states[0].loss
    assert accuracy(classifier, task) > before


def accuracy(classifier: Classifier, task: Task) -> float:
    answers = classifier.probabilities(task.val).argmax(dim=1)
    return (answers == task.val.labels_N).double().mean().item()


def test_states_count_steps_epochs_and_rates() -> None:
    method = Lora(settings(**SHORT))
    task = make_task()  # 120 images: 4 batches of at most 32
    states = list(fit(method, method.build(task), task, method.settings))
    assert [state.step for state in states] == list(range(1, 13))
    assert [state.epoch for state in states if state.epoch_end] == [1, 2, 3]
    assert all(state.total_steps == 12 for state in states)
    assert states[0].lr == pytest.approx(1e-2)
    assert states[-1].lr == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 11 / 12)))


def test_the_epoch_loss_is_the_mean_over_images() -> None:
    method = Lora(settings(epochs=1, batch_size=32, lr=1e-12, dropout=0.0))  # 120 images: the last batch is short
    task = make_task()
    classifier = method.build(task)
    batch = Batch.of(task.train.table.embedding, task.train.labels_N)
    expected = method.loss(classifier.eval(), batch, task).item()
    (end,) = epoch_ends(method, classifier, task)
    assert end.loss == pytest.approx(expected, rel=1e-5)


VARIANTS = {
    "plain": SHORT,
    "averaged": {**SHORT, "ema": 0.9},
    "mixed up": {**SHORT, "mixup": 0.4},
    "accumulated": {**SHORT, "batch_size": 8, "accumulate": 4},
    "captions": {**SHORT, "loss": "supcon"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop_after", [1, 4, 6, 11])
def test_continuing_from_any_step_ends_bit_identical_to_never_stopping(variant: str, stop_after: int) -> None:
    method = Lora(settings(**VARIANTS[variant]))
    task = make_task()
    whole = method.build(task)
    last = list(fit(method, whole, task, method.settings))[-1]
    with last.kept_weights():
        kept = copy.deepcopy(whole.state_dict())

    stopped = method.build(task)
    snapshot: Snapshot | None = None
    for state in fit(method, stopped, task, method.settings):
        if state.step == stop_after:
            snapshot = state.snapshot()
            break
    assert snapshot is not None
    torch.manual_seed(999)  # whatever happened in between
    continued = method.build(task)
    rest = list(fit(method, continued, task, method.settings, resume=snapshot))
    assert [state.step for state in rest] == list(range(stop_after + 1, 13))
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[key]), key
    with rest[-1].kept_weights():  # with --ema, the averaged ones
        for key, tensor in kept.items():
            assert torch.equal(tensor, continued.state_dict()[key]), key


def test_a_snapshot_is_not_changed_by_the_steps_after_it() -> None:
    method = Lora(settings(**SHORT))
    task = make_task()
    states = fit(method, method.build(task), task, method.settings)
    snapshot = next(states).snapshot()
    kept = {key: tensor.clone() for key, tensor in snapshot.tensors.items()}
    list(states)
    assert all(torch.equal(snapshot.tensors[key], tensor) for key, tensor in kept.items())


def test_accumulated_batches_take_the_steps_of_one_large_batch() -> None:
    def final(**sizes: int) -> dict[str, Tensor]:
        method = Lora(settings(epochs=2, dropout=0.0, **sizes))
        task = make_task()
        classifier = method.build(task)
        list(fit(method, classifier, task, method.settings))
        return classifier.state_dict()

    one, many = final(batch_size=48), final(batch_size=16, accumulate=3)
    for key, tensor in one.items():
        torch.testing.assert_close(many[key], tensor, rtol=1e-4, atol=1e-6)


def test_the_moving_average_is_kept_beside_the_weights() -> None:
    method = Lora(settings(**SHORT, ema=0.5))
    task = make_task()
    classifier = method.build(task)
    mean = classifier.image.lora_A.detach().clone()
    for state in fit(method, classifier, task, method.settings):
        decay = min(0.5, (1 + state.step) / (10 + state.step))
        mean = decay * mean + (1 - decay) * classifier.image.lora_A.detach()
        trained = classifier.image.lora_A.detach().clone()
        with state.kept_weights():
            torch.testing.assert_close(classifier.image.lora_A.detach(), mean)
        assert torch.equal(classifier.image.lora_A, trained)


def test_warm_up_can_be_given_in_steps() -> None:
    method = Lora(settings(**SHORT | {"warmup_epochs": 2.0, "warmup_steps": 5}))
    task = make_task()
    rates = [state.lr for state in fit(method, method.build(task), task, method.settings)]
    assert rates[:5] == pytest.approx([1e-2 * (step + 1) / 5 for step in range(5)])


def test_half_precision_scales_the_loss_and_never_holds_half_weights() -> None:
    method = Lora(settings(**SHORT))
    task = make_task()
    classifier = method.build(task)
    engine = Engine(method, classifier, task, device=torch.device("cpu"), precision="bfloat16")
    losses = [state.loss for state in fit(method, classifier, task, method.settings, engine=engine)]
    assert all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    assert losses[-1] < losses[0]


def test_the_seed_decides_and_nothing_else() -> None:
    def final(seed: int, noise: int) -> Tensor:
        torch.manual_seed(noise)
        task = make_task()
        task = Task(**{**task.__dict__, "seed": seed})
        method = Lora(settings(**SHORT))
        classifier = method.build(task)
        for _ in fit(method, classifier, task, method.settings):
            pass
        return classifier.image.lora_B.detach()

    assert torch.equal(final(1, noise=0), final(1, noise=7))
    assert not torch.equal(final(1, noise=0), final(2, noise=0))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_the_step(poison: float) -> None:
    class Poisoned(Lora):
        calls = 0

        def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
            self.calls += 1
            loss = super().loss(classifier, batch, task)
            return loss * poison if self.calls == 3 else loss

    method = Poisoned(settings(**SHORT))
    task = make_task()
    classifier = method.build(task)
    before: dict[str, Tensor] = {}
    with pytest.raises(TrainingError, match=r"step 3 .*last finite loss \d"):
        for state in fit(method, classifier, task, method.settings):
            before = copy.deepcopy(state.classifier.state_dict())
    for key, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_a_non_finite_gradient_stops_before_the_step() -> None:
    class Steep(Lora):
        def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
            assert isinstance(classifier, EmbeddingLora)
            return (classifier.image.lora_A - classifier.image.lora_A.detach()).sqrt().sum()

    method = Steep(settings(**SHORT))
    task = make_task()
    classifier = method.build(task)
    before = copy.deepcopy(classifier.state_dict())
    with pytest.raises(TrainingError, match="not finite at step 1"):
        list(fit(method, classifier, task, method.settings))
    assert all(torch.equal(tensor, before[key]) for key, tensor in classifier.state_dict().items())


def test_clipping_bounds_the_first_update() -> None:
    """Adam divides by the gradient's size, so clipping shows in its moments: exp_avg = (1 - beta1) * clipped."""
    method = Lora(settings(epochs=1, batch_size=200, gradient_clip=0.01))
    task = make_task()
    (state,) = fit(method, method.build(task), task, method.settings)
    moments = [tensor for key, tensor in state.snapshot().tensors.items() if key.endswith("exp_avg")]
    assert moments
    norm = math.sqrt(sum((moment / (1 - 0.9)).square().sum().item() for moment in moments))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_schedule_warms_up_then_falls_to_zero() -> None:
    factors = [lr_factor(step, total=100, warmup=10) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] < 0.001
    assert lr_factor(0, total=1, warmup=0) == 1.0


def test_zero_shot_has_nothing_to_train() -> None:
    method = ZeroShot(settings())
    task = make_task()
    assert list(fit(method, method.build(task), task, method.settings)) == []


def test_a_solver_yields_its_candidates_and_continues_after_those_done() -> None:
    method = LinearProbe(settings())
    task = make_task(per_class=10)
    second = Snapshot(tensors={}, values={"epoch": 2})
    all_states = [(s.epoch, s.description) for s in fit(method, method.build(task), task, method.settings)]
    assert [epoch for epoch, _ in all_states] == list(range(1, method.candidates + 1))
    rest = [(s.epoch, s.description) for s in fit(method, method.build(task), task, method.settings, resume=second)]
    assert rest == all_states[2:]
