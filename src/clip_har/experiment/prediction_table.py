"""Rows of predictions, written as JSON lines, as one Parquet file. They are read in parts, so memory does not grow."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from clip_har.files import valid_utf8

PART = 8192
"""Rows of a row group."""
_TEXTS = ("image", "label", "possible", "warning", "error")


def write_parquet(rows: Path, columns: Sequence[str], target: Path) -> None:
    """Write the rows of a file into a Parquet file, in their order.

    Args:
        rows: JSON lines, as `JsonRows` writes them.
        columns: see `prediction_rows.columns`.
        target: replaced if it exists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, _kind_of(name))()) for name in columns])
    with rows.open("rb") as stream, target.open("wb") as written:
        with pq.ParquetWriter(written, schema) as writer:
            while part := [json.loads(line) for line in islice(stream, PART)]:
                values = {name: [_value(said, name) for said in part] for name in columns}
                writer.write_table(pa.table(values, schema=schema))
        written.flush()
        os.fsync(written.fileno())


def _kind_of(column: str) -> str:
    if column in ("unsure", "unknown"):
        return "bool_"
    return "string" if column in _TEXTS or column.startswith("label_") else "float64"


def _value(said: dict[str, Any], column: str) -> str | float | bool | None:
    """The cell of a column; names that are not UTF-8 have a replacement character, which Parquet's text requires."""
    value = said.get(column)
    if column in ("unsure", "unknown"):
        return bool(value)
    if column == "possible":
        value = "|".join(value) if value else None
    elif (rank := column.rpartition("_")[2]).isdecimal():
        name, top = column.rpartition("_")[0], said.get("top", ())
        value = top[int(rank) - 1][name] if int(rank) <= len(top) else None
    return valid_utf8(value) if isinstance(value, str) else value
