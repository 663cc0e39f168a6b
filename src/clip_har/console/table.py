"""A table for a terminal in which no cell can act on the terminal. What it says is in console and its findings."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from clip_har.shown_text import shown


class ShownTable(Table):
    """rich's table, with `shown_text.shown` over every title, header and cell."""

    def __init__(self, *headers: str, title: str = "", **settings: Any) -> None:
        super().__init__(*headers, title=Text(shown(title)) if title else None, title_justify="left", **settings)

    def add_column(self, header: RenderableType = "", *rest: Any, **settings: Any) -> None:
        super().add_column(Text(shown(header)) if isinstance(header, str) else header, *rest, **settings)

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        super().add_row(*map(_shown_cell, cells), **settings)


def _shown_cell(cell: RenderableType | None) -> RenderableType | None:
    if isinstance(cell, str):
        return shown(cell)
    if isinstance(cell, Text) and shown(cell.plain) != cell.plain:
        return Text(shown(cell.plain), style=cell.style)
    return cell
