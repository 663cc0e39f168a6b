"""CSV, TSV, JSON-lines and Parquet tables as rows of text, and which of their columns are meant.

What the rows say about images is in listed.py; Parquet files that hold the images themselves are in packed_tables.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip_har.csv_cells import true_cell
from clip_har.errors import DataError, first_line
from clip_har.images.parquet import SMALLER_ROW_GROUPS, TooLargeError, load_pyarrow, text_rows

TEXT_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
"""Suffixes of files that can list images."""

PATH_COLUMNS = ("filename", "file_name", "path", "file", "filepath", "file_path", "image_path", "image", "img", "name")
LABEL_COLUMNS = ("label", "labels", "class", "category", "action", "class_name", "label_name", "target")
SPLIT_COLUMNS = ("split", "subset", "partition")
"""Names by which columns are known, the likeliest first; case, spaces and hyphens do not matter."""

_LONGEST_CELL = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """The columns of a table that are meant, row by row."""

    path: Path
    columns: Mapping[str, str]
    """path, label and split -> what the table calls it; label and split only where there are such."""
    rows: Sequence[tuple[str, str | None, str | None]]
    """Path, label and split of each row; an empty cell is None."""


def read_table(path: Path) -> Table:
    """Read a table of image paths and labels.

    Raises:
        DataError: it cannot be read, or has no column of paths.
    """
    header, cells = _read(path)
    columns = guess_columns(header)
    if "path" not in columns:
        shown = ", ".join(column[:40] for column in header[:8]) or "none"
        raise DataError(
            f"{path} has no column of image paths (its columns are {shown})",
            remedy=mixed_separators(header) or "Name it filename, and the class column label.",
        )
    places = [header.index(columns[kind]) if kind in columns else None for kind in ("path", "label", "split")]
    rows = [tuple(_cell(row, place) for place in places) for row in cells]
    labels = {row[1] for row in rows if row[1] is not None}
    if labels and all(label.isdecimal() for label in labels):
        better = _names_column(header, cells, columns)
        if better is not None:
            columns["label"] = header[better]
            rows = [(row[0], _cell(cell, better), row[2]) for row, cell in zip(rows, cells, strict=True)]
    return Table(
        path=path, columns=columns, rows=[(row[0] or "", row[1], row[2]) for row in rows if any(x for x in row)]
    )


def mixed_separators(cells: Iterable[str]) -> str:
    """What to do where cells hold what other lines are separated by, or nothing."""
    inside = [separator for separator in (";", "\t") if any(separator in cell for cell in cells)]
    said = {";": "semicolons", "\t": "tabs"}
    return f"Some cells contain {said[inside[0]]}: separate all columns with one character." if inside else ""


def guess_columns(header: Sequence[str]) -> dict[str, str]:
    """Which columns hold path, label and split, by their names."""
    named = {column.strip().lower().replace(" ", "_").replace("-", "_"): column for column in reversed(header)}
    kinds = (("path", PATH_COLUMNS), ("label", LABEL_COLUMNS), ("split", SPLIT_COLUMNS))
    found = {kind: next((named[name] for name in names if name in named), None) for kind, names in kinds}
    return {kind: column for kind, column in found.items() if column is not None}


def header_of(path: Path) -> list[str]:
    """The names of a table's columns, from its beginning alone; empty where it is no table."""
    try:
        if path.suffix.lower() == ".parquet":
            return list(load_pyarrow(path, "pyarrow.parquet").read_schema(path).names)
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8-sig") as stream:
                return list(json.loads(stream.readline(_LONGEST_CELL)))
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader([stream.readline(_LONGEST_CELL)], delimiter=_delimiter(path)), [])
    except (OSError, ValueError, TypeError, RecursionError, csv.Error):
        return []


def has_rows(path: Path) -> bool:
    """Whether a text table has more than a header."""
    with path.open("rb") as stream:
        least = 1 if path.suffix.lower() in (".jsonl", ".ndjson") else 2
        return all(stream.readline(_LONGEST_CELL).strip() for _ in range(least))


def _names_column(header: Sequence[str], cells: Sequence[Sequence[Any]], columns: Mapping[str, str]) -> int | None:
    """Where labels are numbers, the column that has names for them."""
    for place, column in enumerate(header):
        if guess_columns([column]).get("label") is None or column == columns["label"]:
            continue
        values = {value for row in cells if (value := _cell(row, place)) is not None}
        if values and not all(value.isdecimal() for value in values):
            return place
    return None


def _cell(row: Sequence[Any], place: int | None) -> str | None:
    if place is None or place >= len(row) or row[place] is None:
        return None
    return str(row[place]).strip() or None


def _read(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    try:
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return _read_parquet(path)
        if suffix in (".jsonl", ".ndjson"):
            return _read_json_lines(path)
        return _read_csv(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", remedy="Save it as CSV UTF-8.") from error
    except TooLargeError as error:
        raise DataError(f"The table {path} is refused: {error}", remedy=SMALLER_ROW_GROUPS) from error
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        reason = first_line(error, longest=120)
        raise DataError(f"Cannot read the table {path}: {reason}", remedy="Fix the file.") from error


def _read_csv(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter=_delimiter(path))
        header = next(lines, [])
        return header, [[true_cell(cell) for cell in row] for row in lines if row]


def _delimiter(path: Path) -> str:
    """What separates the cells: by the suffix, else what separates the header's."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline(_LONGEST_CELL)
    return max(",;\t", key=header.count)


def _read_json_lines(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    objects = list(_json_objects(path))
    header = list(dict.fromkeys(key for item in objects for key in item))
    return header, [[item.get(key) for key in header] for item in objects]


def _json_objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not JSON") from error
            if not isinstance(item, dict):
                raise ValueError(f"line {number} is not an object")
            yield item


def _read_parquet(path: Path) -> tuple[list[str], list[Sequence[Any]]]:
    names = list(load_pyarrow(path, "pyarrow.parquet").read_schema(path).names)
    wanted = [name for name in names if guess_columns([name])]
    if not wanted:
        return names, []
    return wanted, [row for _, row in text_rows(path, wanted, row_bytes=1)]
