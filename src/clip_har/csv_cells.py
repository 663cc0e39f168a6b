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
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (header, *rows):
        cells = [safe_cell(value) for value in row]
        # Python before 3.13 does not quote a lone carriage return, which readers take for the end of the line.
        (quoting if any(isinstance(cell, str) and "\r" in cell for cell in cells) else writer).writerow(cells)
    return text.getvalue()
