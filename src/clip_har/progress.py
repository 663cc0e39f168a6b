"""What a long job tells the person who waits for it, as a small interface.

The command line draws it with rich; a library caller gets `Silent` unless it passes its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One job."""

    def advance(self, count: int = 1, **fields: str) -> None:
        """`count` more are done; `fields` are shown next to the bar (loss, learning rate, ...)."""


class Progress(Protocol):
    """Where notes, warnings and progress bars go."""

    def note(self, text: str) -> None:
        """One line about what is happening."""

    def warn(self, text: str) -> None:
        """One line about something the user should know and may have to act on."""

    def bar(self, description: str, *, total: int | None, unit: str) -> AbstractContextManager[Bar]:
        """A bar of `total` units ("images", "steps"), for the length of a with block; None is of unknown length."""


class Silent:
    """Says nothing; the default for library callers."""

    def note(self, text: str) -> None:
        del text

    def warn(self, text: str) -> None:
        del text

    @contextmanager
    def bar(self, description: str, *, total: int | None, unit: str) -> Iterator[Bar]:
        del description, total, unit
        yield _SilentBar()


class _SilentBar:
    def advance(self, count: int = 1, **fields: str) -> None:
        del count, fields


SILENT: Progress = Silent()
"""The default wherever a `Progress` is taken."""
