"""Dealing groups of images out to parts, so that each part gets its share of every class.

Knows classes and counts only; what the parts are called, and which images form a group, is in groups.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Kind = tuple[tuple[str, int], ...]
"""What a group holds: class and images, sorted by class. Groups of one kind are interchangeable."""

SEARCH_LIMIT = 300_000
"""Exchanges that are weighed before the search for better ones ends."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Images that must stay together."""

    key: str
    """The smallest of their content hashes: it depends neither on names nor on what the group is called."""
    counts: Mapping[str, int]
    """Class -> images."""

    @property
    def size(self) -> int:
        """Images in it."""
        return sum(self.counts.values())

    @property
    def kind(self) -> Kind:
        """What it holds."""
        return tuple(sorted(self.counts.items()))


def deal(
    groups: Sequence[Group], shares: Sequence[float], *, seed: Sequence[int], guarded: Collection[int]
) -> list[int]:
    """Deal groups out to parts so that every part gets its share of each class as nearly as whole groups allow.

    Large groups first, each goes where it raises Pearson's chi-square, sum((have - want)^2 / want) over parts and
    classes, least; groups of one size come in an order drawn with the seed. For groups of one image this is
    Sainte-Laguë's apportionment. Then groups are moved and exchanged between parts while that lowers chi-square.

    scikit-learn's StratifiedGroupKFold (sklearn/model_selection/_split.py) is the same greedy idea with another
    criterion, the mean over classes of the standard deviation over folds. It makes equal shares only, so that a
    hold-out is one of its folds, and has no second step: `benchmarks/group_splits.py` measures both.

    Args:
        shares: of each part, above 0; they sum to 1.
        seed: seed of the order.
        guarded: parts that must not hold all groups of a class, where another part can take one.

    Returns:
        For each group, the index of its part.
    """
    table = _Table(groups, shares, frozenset(guarded))
    for index in _order(groups, seed):
        table.place(index)
    table.improve()
    return table.parts


def _order(groups: Sequence[Group], seed: Sequence[int]) -> list[int]:
    """Indices of the groups, large ones first, those of one size shuffled."""
    order = sorted(range(len(groups)), key=lambda index: groups[index].key)
    np.random.default_rng(list(seed)).shuffle(order)
    return sorted(order, key=lambda index: -groups[index].size)


class _Table:
    """Which groups each part has, while they are dealt."""

    def __init__(self, groups: Sequence[Group], shares: Sequence[float], guarded: frozenset[int]) -> None:
        self.parts = [-1] * len(groups)
        self._groups = groups
        self._shares = shares
        self._guarded = guarded
        self._totals = Counter[str]()
        self._holders = Counter[str]()  # class -> groups that hold some of it
        for group in groups:
            self._totals.update(group.counts)
            self._holders.update(group.counts.keys())
        self._unplaced = Counter(self._holders)
        self._size = sum(self._totals.values())
        self._have = [Counter[str]() for _ in shares]  # part -> class -> images
        self._held = [Counter[str]() for _ in shares]  # part -> class -> groups
        self._members: dict[tuple[Kind, int], list[int]] = defaultdict(list)

    def place(self, index: int) -> None:
        """Put a group where it fits best."""
        group = self._groups[index]
        every = range(len(self._shares))
        allowed = [part for part in every if part not in self._guarded or not self._exhausts_class(group, part)]

        def badness(part: int) -> tuple[float, float]:
            filled = self._have[part].total() / (self._shares[part] * self._size)
            return round(self._rise(group.counts, part), 9), filled

        self._unplaced.subtract(group.counts.keys())
        self._put(index, min(allowed or every, key=badness))

    def improve(self) -> None:
        """Move groups, and exchange them for others that share a class, while that lowers chi-square."""
        kinds_of: dict[str, list[Kind]] = defaultdict(list)
        for kind in sorted({group.kind for group in self._groups}):
            for label, _ in kind:
                kinds_of[label].append(kind)
        left = SEARCH_LIMIT
        changed = True
        while changed:
            changed = False
            for kind, part in sorted(self._members):
                partners = sorted({other for label, _ in kind for other in kinds_of[label] if other != kind})
                best: tuple[float, Kind | None, int] | None = None
                for rise, partner, other in self._exchanges(kind, part, partners):
                    left -= 1
                    if rise < (best[0] if best else -1e-9):
                        best = rise, partner, other
                if best is not None:
                    self._exchange(kind, part, best[1], best[2])
                    changed = True
                if left < 0:
                    return

    def _exchanges(self, kind: Kind, part: int, partners: Sequence[Kind]) -> Iterator[tuple[float, Kind | None, int]]:
        """What chi-square rises by for each way to take a group of a kind out of a part: alone, or for a partner."""
        if not self._members[kind, part]:
            return
        for other in range(len(self._shares)):
            if other == part:
                continue
            for partner in (None, *partners):
                if partner is not None and not self._members[partner, other]:
                    continue
                change = Counter(dict(kind))
                change.subtract(dict(partner or ()))
                if not self._may_change(kind, partner, part, other):
                    continue
                back = {label: -count for label, count in change.items()}
                yield self._rise(change, other) + self._rise(back, part), partner, other

    def _may_change(self, kind: Kind, partner: Kind | None, part: int, other: int) -> bool:
        """Whether the guarded parts still leave every class some group elsewhere."""
        going, coming = dict(kind).keys(), dict(partner or ()).keys()
        return all(
            where not in self._guarded
            or all(self._held[where][label] + 1 - (label in leaving) < self._holders[label] for label in entering)
            for where, entering, leaving in ((other, going, coming), (part, coming, going))
        )

    def _exchange(self, kind: Kind, part: int, partner: Kind | None, other: int) -> None:
        going = self._take(kind, part)
        coming = None if partner is None else self._take(partner, other)
        self._put(going, other)
        if coming is not None:
            self._put(coming, part)

    def _rise(self, counts: Mapping[str, int], part: int) -> float:
        """What chi-square rises by when so many images of each class come into a part."""
        have, share, totals = self._have[part], self._shares[part], self._totals
        return sum(
            count * (2 * (have[label] - share * totals[label]) + count) / (share * totals[label])
            for label, count in counts.items()
        )

    def _exhausts_class(self, group: Group, part: int) -> bool:
        """Whether placing the group makes this part the only one with some class, for good."""
        return any(
            self._unplaced[label] == 1 and self._held[part][label] == self._holders[label] - 1 for label in group.counts
        )

    def _put(self, index: int, part: int) -> None:
        group = self._groups[index]
        self.parts[index] = part
        self._have[part].update(group.counts)
        self._held[part].update(group.counts.keys())
        self._members[group.kind, part].append(index)

    def _take(self, kind: Kind, part: int) -> int:
        index = self._members[kind, part].pop()
        self._have[part].subtract(dict(kind))
        self._held[part].subtract(dict(kind).keys())
        return index
