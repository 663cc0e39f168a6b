"""Hard pairs: images that lie close to an image of a class they are confused with. Mining, batches and margins.

Computes only; when pairs are mined, and where they are kept, is decided by whoever trains.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.errors import RunError

# Shapes: N images of a split, B images of a batch, C classes, P pairs, D embedding width, Q and K rows of a block.

RIVALS = 3
"""Classes that a class is most confused with, whose images are searched; more where it is among another's three."""
_CONCENTRATION = 10.0
"""A pair whose cosine similarity is 0.1 higher is drawn e times as often."""
_LEAST_CONFUSION = 1e-3
"""Added to the confusion of any two classes, so that those never confused can be drawn too."""
_BLOCK_ROWS = 2048


class ConfusedClasses(NamedTuple):
    """How often images of one class are taken for another in validation."""

    label: str
    answer: str
    images: int
    """Validation images of class `label` that are answered with `answer`."""
    confusion: float
    """Mean of that share and of the mean probability of `answer`, over the class's validation images. In [0, 1]."""


class ImagePair(NamedTuple):
    """Two training images of different classes that look alike; each one's rival is the class of the other."""

    first: int
    second: int
    similarity: float
    """Cosine of the embeddings, to six decimals."""
    first_rival: str
    second_rival: str


@dataclass(frozen=True, kw_only=True)
class HardPairs:
    """What `mine` found."""

    classes: tuple[str, ...]
    confused: tuple[ConfusedClasses, ...]
    """Both directions of every two classes between which pairs were searched, the most confused first."""
    images: tuple[ImagePair, ...]
    """Each two images at most once, the hardest pair first."""

    @cached_property
    def rivals(self) -> Mapping[int, frozenset[int]]:
        """Image -> the classes it has to be told from."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        found: dict[int, frozenset[int]] = {}
        for pair in self.images:
            for image, rival in ((pair.first, pair.first_rival), (pair.second, pair.second_rival)):
                found[image] = found.get(image, frozenset()) | {numbers[rival]}
        return found

    def log_weights(self) -> Tensor:
        """Log of how much more often than others each pair should be drawn, up to a constant: float64 [P].

        exp(concentration * cosine) as in Robinson et al. 2021 (arXiv 2010.04592, q_beta in section 3), times the
        confusion of the two classes.
        """
        confusion = {(entry.label, entry.answer): entry.confusion for entry in self.confused}
        between_P = [
            confusion[pair.second_rival, pair.first_rival] + confusion[pair.first_rival, pair.second_rival]
            for pair in self.images
        ]
        similarity_P = torch.tensor([pair.similarity for pair in self.images], dtype=torch.float64)
        return _log_weights(similarity_P, torch.tensor(between_P, dtype=torch.float64))

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {
            "classes": list(self.classes),
            "confused": [list(entry) for entry in self.confused],
            "confused_columns": list(ConfusedClasses._fields),
            "images": [list(pair) for pair in self.images],
            "images_columns": list(ImagePair._fields),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HardPairs:
        """Read what `to_json` returned.

        Raises:
            RunError: something is missing or of the wrong kind.
        """
        try:
            pairs = cls(
                classes=tuple(values["classes"]),
                confused=tuple(ConfusedClasses(*entry) for entry in values["confused"]),
                images=tuple(ImagePair(*entry) for entry in values["images"]),
            )
            pairs.log_weights()
            _ = pairs.rivals
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"The list of hard-negative pairs is damaged ({error!r})",
                remedy="Start the run again without --resume.",
            ) from error
        return pairs


def mine(
    val_probabilities_NC: Tensor,
    val_labels_N: Tensor,
    train_embedding_ND: Tensor,
    train_labels_N: Tensor,
    *,
    classes: Sequence[str],
    hardest: float = 1.0,
) -> HardPairs:
    """Find the training images that are hardest to tell from an image of another class.

    Every image is paired with its nearest neighbour among the images of the classes that its own is confused with in
    validation; of a class that is confused with none, among all others.

    Args:
        val_probabilities_NC: the classifier's answers on the validation images; there may be none.
        val_labels_N: their classes.
        train_embedding_ND: of any length and float type.
        train_labels_N: class of each training image.
        classes: names of the C classes.
        hardest: share of the images whose pair is kept, by similarity and the classes' confusion. In [0, 1].

    Returns:
        Pairs of indices into the training images; none where there are not two classes with images.
    """
    counts_CC, confusion_CC = _confusion(val_probabilities_NC, val_labels_N)
    compared_CC = _compared(confusion_CC)
    embedding_ND = F.normalize(train_embedding_ND.detach().cpu().float(), dim=-1)
    labels_N = train_labels_N.detach().cpu()
    nearest_N, similarity_N = _nearest_rivals(embedding_ND, labels_N, compared_CC)
    similarity_N = similarity_N.double().round(decimals=6)
    first_P = (nearest_N >= 0).nonzero().flatten()
    labels_P2 = labels_N[torch.stack([first_P, nearest_N[first_P]], dim=1)]
    both_CC = confusion_CC + confusion_CC.T
    weights_P = _log_weights(similarity_N[first_P], both_CC[labels_P2[:, 0], labels_P2[:, 1]])
    kept_P = weights_P.argsort(descending=True, stable=True)[: round(hardest * len(first_P))]
    chosen = ((int(i), int(nearest_N[i]), float(similarity_N[i])) for i in first_P[kept_P])
    return HardPairs(
        classes=tuple(classes),
        confused=_confused_classes(counts_CC, confusion_CC, compared_CC, classes),
        images=_distinct(chosen, [classes[label] for label in labels_N.tolist()]),
    )


def _confusion(probabilities_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return counts [C, C] and confusion in [0, 1] [C, C] from label (row) to answer (column), diagonal zero."""
    probabilities_NC = probabilities_NC.detach().cpu().double()
    labels_N = labels_N.detach().cpu()
    n_classes = probabilities_NC.shape[1]
    answers_NC = F.one_hot(probabilities_NC.argmax(dim=1), n_classes).double()
    empty_CC = torch.zeros(n_classes, n_classes, dtype=torch.float64)
    counts_CC = empty_CC.index_add(0, labels_N, answers_NC).fill_diagonal_(0)
    soft_CC = empty_CC.index_add(0, labels_N, probabilities_NC).fill_diagonal_(0)
    images_C = labels_N.bincount(minlength=n_classes).clamp(min=1)
    return counts_CC, (counts_CC + soft_CC) / 2 / images_C[:, None]


def _compared(confusion_CC: Tensor) -> Tensor:
    """Return which two classes' images are compared: symmetric, bool [C, C]."""
    n_classes = len(confusion_CC)
    both_CC = confusion_CC + confusion_CC.T
    ranked = both_CC.sort(dim=1, descending=True, stable=True)
    chosen_CC = torch.zeros(n_classes, n_classes, dtype=torch.bool)
    chosen_CC.scatter_(1, ranked.indices[:, :RIVALS], ranked.values[:, :RIVALS] > 0)
    chosen_CC[(both_CC == 0).all(dim=1)] = True
    return (chosen_CC | chosen_CC.T).fill_diagonal_(False)


def _nearest_rivals(embedding_ND: Tensor, labels_N: Tensor, compared_CC: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's nearest neighbour among the classes compared with its own (-1: none), and the cosine.

    Similarities are computed in blocks, each once for its rows and its columns, and never kept.
    """
    nearest_N = torch.full((len(labels_N),), -1)
    similarity_N = torch.full((len(labels_N),), float("-inf"))
    members = [(labels_N == label).nonzero().flatten() for label in range(len(compared_CC))]
    for one, other in compared_CC.triu().nonzero().tolist():
        blocks = itertools.product(members[one].split(_BLOCK_ROWS), members[other].split(_BLOCK_ROWS))
        for rows_Q, columns_K in blocks:
            if len(rows_Q) and len(columns_K):
                cosine_QK = embedding_ND[rows_Q] @ embedding_ND[columns_K].T
                _keep_nearer(nearest_N, similarity_N, rows_Q, columns_K, cosine_QK)
                _keep_nearer(nearest_N, similarity_N, columns_K, rows_Q, cosine_QK.T)
    return nearest_N, similarity_N


def _keep_nearer(nearest_N: Tensor, similarity_N: Tensor, rows_Q: Tensor, columns_K: Tensor, cosine_QK: Tensor) -> None:
    best = cosine_QK.max(dim=1)
    nearer_Q = best.values > similarity_N[rows_Q]
    similarity_N[rows_Q[nearer_Q]] = best.values[nearer_Q]
    nearest_N[rows_Q[nearer_Q]] = columns_K[best.indices[nearer_Q]]


def _log_weights(similarity_P: Tensor, confusion_P: Tensor) -> Tensor:
    return _CONCENTRATION * similarity_P + (confusion_P + _LEAST_CONFUSION).log()


def _confused_classes(
    counts_CC: Tensor, confusion_CC: Tensor, compared_CC: Tensor, classes: Sequence[str]
) -> tuple[ConfusedClasses, ...]:
    found = [
        ConfusedClasses(
            classes[label], classes[answer], int(counts_CC[label, answer]), float(confusion_CC[label, answer])
        )
        for label, answer in compared_CC.nonzero().tolist()
    ]
    return tuple(sorted(found, key=lambda entry: -entry.confusion))


def _distinct(chosen: Iterator[tuple[int, int, float]], names: Sequence[str]) -> tuple[ImagePair, ...]:
    """Make each two images a pair once, where both are each other's nearest."""
    pairs: dict[tuple[int, int], ImagePair] = {}
    for image, neighbour, similarity in chosen:
        first, second = min(image, neighbour), max(image, neighbour)
        pairs.setdefault((first, second), ImagePair(first, second, similarity, names[second], names[first]))
    return tuple(pairs.values())


def compose(
    order_N: Tensor, pairs: HardPairs, share: float, batch_size: int, generator: torch.Generator
) -> list[Tensor]:
    """Arrange an epoch's images in batches that hold hard pairs.

    Guaranteed: every entry of `order_N` is in exactly one batch, and the batches have the sizes of
    `order_N.split(batch_size)`, which is what share 0 gives. In a batch of B, round(share * B / 2) pairs come first (at
    most B // 2), both members side by side; the rest follows in the order of `order_N`. No image is in two pairs of an
    epoch. Where that leaves fewer pairs than wanted, all batches have fewer alike: an image that is the neighbour of
    many can be paired with one of them only, so that shares above 0.4 are seldom reached.

    Args:
        order_N: distinct image indices, shuffled.
        pairs: those with a member that is not in `order_N` are passed over.
        share: of each batch that hard pairs make up. In [0, 1].
        batch_size: images per batch; the last may have fewer.
        generator: draws which pairs, by `HardPairs.log_weights`, and their order. Not used at share 0.

    Returns:
        Batches of indices, int64.
    """
    sizes = [len(batch) for batch in order_N.split(batch_size)]
    wanted = [min(round(share * size / 2), size // 2) for size in sizes]
    if sum(wanted) == 0:
        return list(order_N.split(batch_size))
    drawn = _draw_disjoint(order_N, pairs, sum(wanted), generator)
    drawn = [drawn[place] for place in torch.randperm(len(drawn), generator=generator).tolist()]
    used = {image for pair in drawn for image in pair}
    others = iter([image for image in order_N.tolist() if image not in used])
    paired = iter(drawn)
    batches = []
    for size, n_pairs in zip(sizes, _spread(wanted, len(drawn)), strict=True):
        front = [image for pair in itertools.islice(paired, n_pairs) for image in pair]
        batches.append(torch.tensor(front + list(itertools.islice(others, size - len(front)))))
    return batches


def _draw_disjoint(order_N: Tensor, pairs: HardPairs, limit: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Draw up to `limit` pairs by weight, without replacement and without an image in common."""
    # The order of log weight + Gumbel noise is that of drawing without replacement (arXiv 1903.06059).
    uniform_P = torch.rand(len(pairs.images), generator=generator, dtype=torch.float64).clamp(min=1e-300)
    ranked_P = (pairs.log_weights() - (-uniform_P.log()).log()).argsort(descending=True)
    free = set(order_N.tolist())
    drawn: list[tuple[int, int]] = []
    for place in ranked_P.tolist():
        first, second = pairs.images[place].first, pairs.images[place].second
        if len(drawn) < limit and first in free and second in free:
            free -= {first, second}
            drawn.append((first, second))
    return drawn


def _spread(wanted: Sequence[int], available: int) -> list[int]:
    """Cut down the numbers wanted in proportion, so that their sum is what is available."""
    up_to = [total * available // max(1, sum(wanted)) for total in itertools.accumulate(wanted)]
    return [upper - lower for lower, upper in itertools.pairwise([0, *up_to])]


def margins(
    labels_B: Tensor, indices_B: Tensor, pairs: HardPairs, classes: Sequence[str], margin: float
) -> Tensor | None:
    """Return what is added to the logits so that hard images must beat their rivals by a margin.

    The additive margin of AM-Softmax (Wang et al. 2018, arXiv 1801.05599), where it is subtracted from the true
    class and so holds against all classes; raising one rival makes it hold against that class alone.

    Args:
        labels_B: classes of the images; the offset has their device.
        indices_B: which training images they are.
        pairs: an image in several pairs has several rivals.
        classes: names of the C classes, as they were mined.
        margin: in units of the logits: a cosine margin times the logit scale.

    Returns:
        float32 [B, C], or None where no image of the batch has a rival.
    """
    assert tuple(classes) == pairs.classes, "pairs were mined for other classes"
    labels = labels_B.tolist()
    places = [
        (row, rival)
        for row, index in enumerate(indices_B.tolist())
        for rival in pairs.rivals.get(index, ())
        if rival != labels[row]
    ]
    if not places or margin == 0:
        return None
    offsets_BC = torch.zeros(len(labels), len(classes))
    rows, rivals = zip(*places, strict=True)
    offsets_BC[list(rows), list(rivals)] = margin
    return offsets_BC.to(labels_B.device)
