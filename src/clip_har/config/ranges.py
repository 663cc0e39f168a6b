"""What a setting may be, declared on its field; checking.py reports every setting that is out of its range."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

Value = TypeVar("Value")

MAX_BATCH = MAX_EPOCHS = 1_000_000
MAX_WORKERS = 256
MAX_SEED = 2**32 - 1
"""The largest that scikit-learn takes."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Some values: how a message names them, and whether one is among them."""

    text: str
    """What follows "must be", such as "above 0"."""
    holds: Callable[[Any], bool]


def setting(default: Value, allowed: Range) -> Value:
    """A dataclass field with a default and a range; None is never checked."""
    return dataclasses.field(default=default, metadata={"range": allowed})


def range_of(item: dataclasses.Field[Any]) -> Range | None:
    """The range that a field declares."""
    return cast("Range | None", item.metadata.get("range"))


def within(interval: str) -> Range:
    """An interval such as "[0, 1)"."""
    low, high = map(float, interval[1:-1].split(","))
    above = operator.gt if interval[0] == "(" else operator.ge
    below = operator.lt if interval[-1] == ")" else operator.le
    return Range(f"in {interval}", lambda x: above(x, low) and below(x, high))


def from_to(low: int, high: int, unit: str = "") -> Range:
    """Numbers between two, both included."""
    return Range(f"from {low} to {high} {unit}".rstrip(), lambda x: low <= x <= high)


def at_least(low: int) -> Range:
    """Whole numbers from one on."""
    return Range(f"{low} or more" if low == 0 else f"at least {low}", lambda x: x >= low)


def each(allowed: Range) -> Range:
    """Sequences whose every element is in a range."""
    return Range(allowed.text, lambda xs: all(map(allowed.holds, xs)))


POSITIVE = Range("above 0", lambda x: 0 < x < math.inf)
NOT_NEGATIVE = Range("0 or more", lambda x: 0 <= x < math.inf)
SEED = from_to(0, MAX_SEED)
WORKERS = from_to(-1, MAX_WORKERS)
BATCH = from_to(1, MAX_BATCH)
BATCH_OR_AUTO = Range(f"auto or {BATCH.text}", lambda x: x == "auto" or BATCH.holds(x))
BETAS = Range("two numbers in [0, 1)", lambda x: len(x) == 2 and all(0 <= beta < 1 for beta in x))
SHOTS = Range("at least 1", lambda x: all(number >= 1 for number in (x if isinstance(x, tuple) else (x,))))
LAYERS = Range("all or last:K", lambda x: x == "all" or re.fullmatch(r"last:[1-9]\d*", x) is not None)
TOWERS = Range("image, text or both", lambda x: 0 < len(x) == len(set(x)) and set(x) <= {"image", "text"})
NOT_EMPTY = Range("at least one kind", lambda x: len(x) > 0)
