"""Hard pairs against naive references: what is mined, how batches are composed of it, and the margins."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har import hard_pairs
from clip_har.errors import RunError
from clip_har.hard_pairs import ConfusedClasses, HardPairs, ImagePair, compose, margins, mine


def clusters(n_classes: int, per_class: int, *, seed: int = 0, width: int = 16) -> tuple[Tensor, Tensor]:
    """Embeddings around a centre per class, shuffled, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    centres_CD = torch.randn(n_classes, width, generator=generator)
    labels_N = torch.arange(n_classes).repeat_interleave(per_class)
    labels_N = labels_N[torch.randperm(len(labels_N), generator=generator)]
    noise_ND = torch.randn(len(labels_N), width, generator=generator)
    return centres_CD[labels_N] + noise_ND, labels_N


def answers(n_classes: int, count: int, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Probabilities of a mediocre classifier, and the true labels."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(n_classes, (count,), generator=generator)
    logits_NC = torch.randn(count, n_classes, generator=generator) * 2 + 2 * F.one_hot(labels_N, n_classes)
    return logits_NC.softmax(dim=1), labels_N


def names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def mined(n_classes: int = 6, per_class: int = 12, *, hardest: float = 1.0) -> tuple[HardPairs, Tensor, Tensor]:
    embedding_ND, labels_N = clusters(n_classes, per_class)
    found = mine(*answers(n_classes, 80), embedding_ND, labels_N, classes=names(n_classes), hardest=hardest)
    return found, embedding_ND, labels_N


# Confused classes


def test_confusion_counts_answers_and_probabilities() -> None:
    probabilities_NC, labels_N = answers(4, 60)
    embedding_ND, train_labels_N = clusters(4, 3)
    found = mine(probabilities_NC, labels_N, embedding_ND, train_labels_N, classes=names(4))
    assert len(found.confused) == 4 * 3  # with four classes all others are among the three rivals
    for entry in found.confused:
        label, answer = found.classes.index(entry.label), found.classes.index(entry.answer)
        own = [row for row, true in zip(probabilities_NC.tolist(), labels_N.tolist(), strict=True) if true == label]
        wrong = sum(max(range(4), key=row.__getitem__) == answer for row in own)
        assert entry.images == wrong
        assert entry.confusion == pytest.approx((wrong + sum(row[answer] for row in own)) / 2 / len(own))
    confusions = [entry.confusion for entry in found.confused]
    assert confusions == sorted(confusions, reverse=True)
    assert sum(entry.images for entry in found.confused) > 0


def test_confusion_has_a_direction() -> None:
    """All of class 1 is answered 0 and nothing the other way round."""
    probabilities_NC = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    found = mine(probabilities_NC, torch.tensor([0, 1, 2]), *clusters(3, 2), classes=names(3))
    assert found.confused[0] == ConfusedClasses("class 1", "class 0", 1, pytest.approx(0.95))  # type: ignore[arg-type]
    assert all(entry.images == 0 for entry in found.confused[1:])


def test_only_the_most_confused_classes_are_compared() -> None:
    n_classes = 8
    confusing_CC = torch.zeros(n_classes, n_classes)
    for label in range(n_classes):
        for distance, confusion in ((1, 0.2), (2, 0.1), (3, 0.01)):
            confusing_CC[label, (label + distance) % n_classes] = confusion
    confusing_CC += torch.diag(1 - confusing_CC.sum(dim=1))
    found = mine(confusing_CC, torch.arange(n_classes), *clusters(n_classes, 5), classes=names(n_classes))
    compared = {(entry.label, entry.answer) for entry in found.confused}
    # Each class is confused most with its two neighbours on the ring, then with the next two, alike; three count.
    ring = {(a, b) for a in range(n_classes) for b in range(n_classes) if (a - b) % n_classes in (1, 2, 6, 7)}
    assert compared <= {(f"class {a}", f"class {b}") for a, b in ring}
    assert {(f"class {a}", f"class {(a + 1) % n_classes}") for a in range(n_classes)} <= compared
    assert {(pair.second_rival, pair.first_rival) for pair in found.images} <= compared


# Nearest rivals


def naive_nearest(embedding_ND: Tensor, labels_N: Tensor, found: HardPairs) -> dict[int, tuple[int, float]]:
    compared = {(entry.label, entry.answer) for entry in found.confused}
    rows = embedding_ND.double().numpy()
    nearest = {}
    for i, row in enumerate(rows):
        rivals = [
            (float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)), j)
            for j, other in enumerate(rows)
            if (f"class {labels_N[i]}", f"class {labels_N[j]}") in compared
        ]
        if rivals:
            similarity, neighbour = max(rivals)
            nearest[i] = (neighbour, similarity)
    return nearest


@pytest.mark.parametrize("block_rows", [3, 2048])
def test_every_image_gets_its_nearest_rival(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(hard_pairs, "_BLOCK_ROWS", block_rows)
    found, embedding_ND, labels_N = mined()
    expected = {
        (min(i, j), max(i, j)): similarity
        for i, (j, similarity) in naive_nearest(embedding_ND, labels_N, found).items()
    }
    assert {(pair.first, pair.second) for pair in found.images} == set(expected)
    assert len(found.images) == len(expected) > 36
    for pair in found.images:
        assert pair.similarity == pytest.approx(expected[pair.first, pair.second], abs=2e-6)
        assert pair.first_rival == f"class {labels_N[pair.second]}"
        assert pair.second_rival == f"class {labels_N[pair.first]}"
        assert pair.first_rival != pair.second_rival


def test_the_hardest_come_first_and_may_be_all_that_is_kept() -> None:
    found, _, _ = mined()
    confusion = {(entry.label, entry.answer): entry.confusion for entry in found.confused}
    hardness = []
    for pair in found.images:
        one, other = pair.second_rival, pair.first_rival
        hardness.append(10 * pair.similarity + math.log(confusion[one, other] + confusion[other, one] + 1e-3))
    assert hardness == sorted(hardness, reverse=True)
    assert found.log_weights().tolist() == pytest.approx(hardness)
    half, _, _ = mined(hardest=0.5)
    assert half.images == found.images[: len(half.images)]
    assert 18 <= len(half.images) <= 36
    assert mined(hardest=0.0)[0].images == ()


def test_half_precision_embeddings_are_taken() -> None:
    embedding_ND, labels_N = clusters(3, 8)
    found = mine(*answers(3, 20), embedding_ND.bfloat16(), labels_N, classes=names(3))
    exact = mine(*answers(3, 20), embedding_ND.bfloat16().float(), labels_N, classes=names(3))
    assert found == exact


# Where there is little to find


def test_perfect_validation_compares_all_classes() -> None:
    found = mine(torch.eye(5), torch.arange(5), *clusters(5, 4), classes=names(5))
    assert len(found.confused) == 5 * 4
    assert all(entry.images == 0 and entry.confusion == 0 for entry in found.confused)
    assert found.images
    assert found.log_weights().isfinite().all()


def test_no_validation_images_compare_all_classes() -> None:
    found = mine(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), *clusters(4, 3), classes=names(4))
    assert len(found.confused) == 4 * 3
    assert {image for pair in found.images for image in (pair.first, pair.second)} == set(range(12))


def test_two_classes_of_one_image() -> None:
    embedding_ND = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    found = mine(*answers(2, 5), embedding_ND, torch.tensor([1, 0]), classes=["a", "b"])
    assert found.images == (ImagePair(0, 1, 0.6, "a", "b"),)
    batches = compose(torch.tensor([1, 0]), found, 1.0, 64, torch.Generator())
    assert [batch.tolist() for batch in batches] == [[0, 1]]


@pytest.mark.parametrize("labels", [[0, 0, 0], []])
def test_one_class_with_images_gives_no_pairs(labels: list[int]) -> None:
    embedding_ND = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    found = mine(*answers(3, 9), embedding_ND, torch.tensor(labels, dtype=torch.int64), classes=names(3))
    assert found.images == ()
    order_N = torch.arange(len(labels))
    assert same(compose(order_N, found, 0.5, 2, torch.Generator()), order_N.split(2))
    assert margins(torch.tensor([0]), torch.tensor([0]), found, names(3), 1.0) is None


# Batches


def same(batches: list[Tensor], expected: tuple[Tensor, ...]) -> bool:
    return len(batches) == len(expected) and all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))


def epoch(
    found: HardPairs, share: float, *, count: int = 72, batch_size: int = 16, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    order_N = torch.randperm(count, generator=generator)
    return compose(order_N, found, share, batch_size, generator), order_N


def pairs_at_front(batch: Tensor, found: HardPairs) -> int:
    known = {(pair.first, pair.second) for pair in found.images}
    members = list(zip(batch[0::2].tolist(), batch[1::2].tolist(), strict=False))
    count = 0
    while count < len(members) and members[count] in known:
        count += 1
    return count


def test_share_0_is_the_shuffled_order_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    order_N = torch.randperm(72)
    assert same(compose(order_N, mined()[0], 0.0, 10, generator), order_N.split(10))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 500])
def test_every_image_is_in_exactly_one_batch(share: float, batch_size: int) -> None:
    batches, order_N = epoch(mined()[0], share, batch_size=batch_size)
    assert [len(batch) for batch in batches] == [len(batch) for batch in order_N.split(batch_size)]
    assert sorted(torch.cat(batches).tolist()) == list(range(72))
    assert all(batch.dtype == torch.int64 for batch in batches)


@pytest.mark.parametrize("share", [0.125, 0.25, 0.375])
def test_each_batch_has_its_share_of_pairs(share: float) -> None:
    found = mined()[0]
    batches, order_N = epoch(found, share)
    assert [pairs_at_front(batch, found) for batch in batches] == [*[round(share * 8)] * 4, round(share * 4)]
    fronts = [batch[: 2 * pairs_at_front(batch, found)].tolist() for batch in batches]
    paired = {image for front in fronts for image in front}
    others = [image for batch, front in zip(batches, fronts, strict=True) for image in batch[len(front) :].tolist()]
    assert others == [image for image in order_N.tolist() if image not in paired]


def test_too_few_pairs_are_spread_over_all_batches() -> None:
    found = mined()[0]
    few = HardPairs(classes=found.classes, confused=found.confused, images=found.images[:6])
    batches, _ = epoch(few, 1.0, batch_size=12)
    counts = [pairs_at_front(batch, few) for batch in batches]
    disjoint = sum(counts)
    assert 2 <= disjoint <= 6
    assert max(counts) - min(counts) <= 1


def test_the_generator_decides() -> None:
    found = mined()[0]
    assert same(epoch(found, 0.5)[0], tuple(epoch(found, 0.5)[0]))
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    one, other = (compose(torch.arange(72), found, 0.25, 16, generator) for generator in generators)
    assert not same(one, tuple(other))


def test_harder_pairs_are_drawn_more_often() -> None:
    """Two pairs with cosines 0.2 apart share an image: drawn e**2 : 1."""
    found = HardPairs(
        classes=("a", "b"),
        confused=(ConfusedClasses("a", "b", 1, 0.2), ConfusedClasses("b", "a", 0, 0.1)),
        images=(ImagePair(0, 1, 0.9, "b", "a"), ImagePair(0, 2, 0.7, "b", "a")),
    )
    generator = torch.Generator().manual_seed(0)
    partners = Counter(int(compose(torch.arange(3), found, 1.0, 3, generator)[0][1]) for _ in range(600))
    assert partners[1] / 600 == pytest.approx(math.e**2 / (1 + math.e**2), abs=0.05)


def disjoint_pairs(count: int) -> HardPairs:
    return HardPairs(
        classes=("a", "b"),
        confused=(ConfusedClasses("a", "b", 1, 0.2), ConfusedClasses("b", "a", 0, 0.1)),
        images=tuple(ImagePair(2 * place, 2 * place + 1, 0.9, "b", "a") for place in range(count)),
    )


@pytest.mark.parametrize("batch_size", [1, 6, 7])
def test_share_1_fills_the_batches_with_pairs(batch_size: int) -> None:
    found = disjoint_pairs(21)
    batches, order_N = epoch(found, 1.0, count=42, batch_size=batch_size)
    assert [len(batch) for batch in batches] == [len(batch) for batch in order_N.split(batch_size)]
    assert [pairs_at_front(batch, found) for batch in batches] == [len(batch) // 2 for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(42))


def test_pairs_outside_the_order_are_passed_over() -> None:
    found = mined()[0]
    order_N = torch.arange(0, 72, 2)
    batches = compose(order_N, found, 1.0, 16, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == order_N.tolist()


def test_global_generators_stay_as_they_are() -> None:
    before = torch.get_rng_state()
    epoch(mined()[0], 0.5)
    assert torch.equal(torch.get_rng_state(), before)


# Margins


def test_margins_raise_every_rival_of_a_hard_image() -> None:
    found, _, labels_N = mined(hardest=0.4)
    indices_B = torch.arange(72)
    offsets_BC = margins(labels_N, indices_B, found, found.classes, 2.5)
    assert offsets_BC is not None
    expected_BC = torch.zeros(72, 6)
    for pair in found.images:
        expected_BC[pair.first, int(labels_N[pair.second])] = 2.5
        expected_BC[pair.second, int(labels_N[pair.first])] = 2.5
    assert torch.equal(offsets_BC, expected_BC)
    assert 0 < (expected_BC > 0).any(dim=1).sum() < 72
    assert (offsets_BC.gather(1, labels_N[:, None]) == 0).all()
    shuffled_B = torch.randperm(72, generator=torch.Generator().manual_seed(0))[:9]
    part_BC = margins(labels_N[shuffled_B], shuffled_B, found, found.classes, 2.5)
    assert part_BC is not None
    assert torch.equal(part_BC, expected_BC[shuffled_B])


def test_an_image_in_several_pairs_has_several_rivals() -> None:
    found = HardPairs(
        classes=("a", "b", "c"), confused=(), images=(ImagePair(0, 1, 0.9, "b", "a"), ImagePair(0, 2, 0.8, "c", "a"))
    )
    offsets_BC = margins(torch.tensor([2, 0]), torch.tensor([2, 0]), found, found.classes, 0.5)
    assert offsets_BC is not None
    assert offsets_BC.tolist() == [[0.5, 0.0, 0.0], [0.0, 0.5, 0.5]]


def test_a_margin_makes_the_loss_of_hard_images_larger() -> None:
    found, _, labels_N = mined(hardest=0.4)
    offsets_BC = margins(labels_N, torch.arange(72), found, found.classes, 1.0)
    assert offsets_BC is not None
    logits_BC = torch.randn(72, 6, generator=torch.Generator().manual_seed(0))
    plain_B = F.cross_entropy(logits_BC, labels_N, reduction="none")
    raised_B = F.cross_entropy(logits_BC + offsets_BC, labels_N, reduction="none")
    hard_B = (offsets_BC > 0).any(dim=1)
    assert (raised_B > plain_B)[hard_B].all()
    assert torch.equal(raised_B[~hard_B], plain_B[~hard_B])


def test_no_hard_image_or_no_margin_gives_none() -> None:
    found, _, labels_N = mined()
    assert margins(labels_N, torch.arange(72), found, found.classes, 0.0) is None
    assert margins(torch.tensor([0, 1]), torch.tensor([900, 901]), found, found.classes, 1.0) is None
    with pytest.raises(AssertionError, match="other classes"):
        margins(labels_N, torch.arange(72), found, names(5), 1.0)


# JSON


def test_pairs_survive_json() -> None:
    found = mined()[0]
    assert HardPairs.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "damage",
    [
        {"images": [[0, 1]]},
        {"images": [[0, 1, 0.5, "class 0", "nobody"]]},
        {"confused": []},
        {"classes": ["class 0"]},
        {"classes": None},
    ],
)
def test_damaged_json_is_said_to_be_so(damage: dict[str, object]) -> None:
    values = mined()[0].to_json()
    with pytest.raises(RunError, match="damaged"):
        HardPairs.from_json({**values, **damage})
    with pytest.raises(RunError, match="damaged"):
        HardPairs.from_json({key: value for key, value in values.items() if key not in damage})
