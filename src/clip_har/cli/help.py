"""How --help looks: flags in groups, paragraphs that fill the width, lists as they are written, none to empty them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve
from cyclopts import Parameter
from cyclopts.help import DefaultFormatter

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions


def _as_written(default: Any) -> str | None:
    """A default as one would write it: (0, 1) -> "0, 1". None is not shown."""
    if isinstance(default, (tuple, list)):
        return ", ".join(map(str, default)) or None
    return None if default is None else str(default)


FLAGS = Parameter(negative_iterable=(), show_default=_as_written)


class FilledFormatter(DefaultFormatter):
    """cyclopts' own, with the line breaks of the source taken out of the descriptions."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: Any) -> None:
        entries = [evolve(entry, description=_filled(entry.description)) for entry in panel.entries]
        super().__call__(console, options, evolve(panel, entries=entries))


def _filled(description: Any) -> Any:
    from rich.text import Text

    text = getattr(description, "primary_renderable", None)
    if isinstance(text, Text):
        description.primary_renderable = Text(" ".join(text.plain.split()))
    return description
