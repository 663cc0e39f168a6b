"""Cells of CSV files that a spreadsheet shows and never runs, and the way back to what they say.

A text that begins like a formula gets an apostrophe in front: https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUOTED = re.compile(r"''*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")


def safe_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula. Numbers, and texts that are numbers, stay as they are."""
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def true_cell(text: str) -> str:
    """The text that `safe_cell` was given."""
    return text[1:] if _QUOTED.match(text) else text


def csv_text(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    r"""A table as CSV, with "\n" at the end of every line and no cell that a spreadsheet would run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe_cell, header))
    writer.writerows(map(safe_cell, row) for row in rows)
    return text.getvalue()
