"""Parquet files from strangers: what unpacking them takes is known before it is taken.

A few hundred kilobytes of Parquet can stand for gigabytes: pages are compressed, and a dictionary holds a repeated
value once. So sizes are read from the file's metadata, and values are read a few rows at a time up to a limit.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from clip_har.errors import DataError
from clip_har.wording import file_size

MAX_ROW_GROUP_BYTES = 1 << 30
"""Unpacked bytes of the images of one row group, which is read whole."""
MAX_TEXT_BYTES = 64 << 20
"""Unpacked bytes of one row group's labels or paths."""
MAX_RATIO = 200
"""Bytes unpacked per byte packed, of images above `_BOMB_BYTES`: photographs hardly shrink."""
MIN_IMAGE_BYTES = 16
"""Bytes of a file per image in it, on average: no image has fewer."""
SMALLER_ROW_GROUPS = "If you trust it, write it again with fewer rows in each row group (pyarrow: row_group_size)."

_BOMB_BYTES = 16 << 20
_FEW_ROWS = 100_000
_IMAGE_ROWS, _TEXT_ROWS = 16, 65_536


class TooLargeError(ValueError):
    """What a file holds is more than a limit."""


def load_pyarrow(file: Path, module: str = "pyarrow", *, writing: bool = False) -> Any:
    """pyarrow, or the module of it named, which Parquet and Arrow files need.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"Writing {file} requires the package pyarrow, which is not installed"
            if writing
            else f"Reading {file} requires the package pyarrow, which is not installed",
            remedy="pip install 'clip-har[parquet]'",
        ) from error


def image_values(file: Path, column: str, row_group: int) -> list[Any]:
    """The values of a column of images in one row group: bytes, or a dict with "bytes".

    Raises:
        TooLargeError: they are more than `MAX_ROW_GROUP_BYTES`, or shrank more than `MAX_RATIO` times.
        OSError, ValueError: the file cannot be read.
    """
    with _opened(file) as opened:
        require_affordable_images(opened, column, row_group)
        values: list[Any] = []
        read = 0
        for batch in _batches(opened, [column], row_group, _IMAGE_ROWS):
            read += batch.nbytes
            _require(read <= MAX_ROW_GROUP_BYTES, row_group, f"more than {file_size(MAX_ROW_GROUP_BYTES)} of images")
            values += batch.column(0).to_pylist()
        return values


def require_affordable_images(opened: Any, column: str, row_group: int) -> None:
    """Refuse a row group whose images unpack to too much, by the file's own metadata.

    Args:
        opened: a pyarrow.parquet.ParquetFile.

    Raises:
        TooLargeError: see `image_values`.
    """
    unpacked, packed = _stated(opened, [column], row_group)
    _require(unpacked <= MAX_ROW_GROUP_BYTES, row_group, f"{file_size(unpacked)} of images")
    grown = f"{unpacked // max(packed, 1):,} times the bytes that its images take in the file"
    _require(unpacked <= max(_BOMB_BYTES, MAX_RATIO * packed), row_group, grown)


def text_rows(file: Path, columns: Sequence[str], *, row_bytes: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the row group and the values of every row, of columns of text or numbers.

    Args:
        columns: their names, at least one.
        row_bytes: bytes of the file below which a row cannot be.

    Raises:
        TooLargeError: the values are more than `MAX_TEXT_BYTES` in a row group, or much more than the file in all, or
            the rows are more than fit the file.
        OSError, ValueError: the file cannot be read.
    """
    with _opened(file) as opened:
        require_plausible_rows(opened.metadata.num_rows, file, row_bytes)
        kinds = {name: _encodings(opened, name) for name in columns}
        metadata = opened.metadata
    repeated = [name for name in columns if kinds[name] == "dictionary"]
    rows_together = _IMAGE_ROWS if "other" in kinds.values() else _TEXT_ROWS
    with _opened(file, as_dictionary=repeated, metadata=metadata) as opened:
        limit = MAX_TEXT_BYTES + MAX_RATIO * file.stat().st_size
        in_all = 0
        for row_group in range(opened.num_row_groups):
            unpacked, _ = _stated(opened, columns, row_group)
            _require(unpacked <= MAX_TEXT_BYTES, row_group, f"{file_size(unpacked)} of text")
            in_all += unpacked
            made = 0
            for batch in _batches(opened, columns, row_group, rows_together):
                # A dictionary is as large as the file states.
                made += sum(batch.column(name).nbytes for name in columns if name not in repeated)
                _require(made <= MAX_TEXT_BYTES, row_group, f"more than {file_size(MAX_TEXT_BYTES)} of text")
                if in_all + made > limit:
                    raise TooLargeError(f"it unpacks to more than {file_size(limit)} of text")
                values = [text_values(batch.column(place)) for place in range(len(columns))]
                yield from ((row_group, row) for row in zip(*values, strict=True))
            in_all += made


def require_plausible_rows(rows: int, file: Path, row_bytes: int) -> None:
    """Refuse a file that states more rows than its bytes can hold.

    Raises:
        TooLargeError: it does.
    """
    size = file.stat().st_size
    if rows > max(_FEW_ROWS, size // row_bytes):
        raise TooLargeError(f"it states {rows:,} rows in {size:,} bytes")


def text_values(column: Any) -> list[Any]:
    """The values of an Arrow array of text or numbers; a value that a dictionary repeats is made once.

    Raises:
        TooLargeError: the text is more than `MAX_TEXT_BYTES`.
        ValueError: the array is of another type.
    """
    types = importlib.import_module("pyarrow").types
    if types.is_dictionary(column.type):
        words = text_values(column.dictionary)
        return [None if place is None else words[place] for place in column.indices.to_pylist()]
    if types.is_string(column.type) or types.is_large_string(column.type):
        compute = importlib.import_module("pyarrow.compute")
        size = compute.sum(compute.binary_length(column)).as_py() or 0
        if size > MAX_TEXT_BYTES:
            raise TooLargeError(f"{file_size(size)} of text in {len(column):,} rows")
    elif not (types.is_primitive(column.type) or types.is_null(column.type)):
        raise ValueError(f"a column of type {column.type} is neither text nor numbers")
    values: list[Any] = column.to_pylist()
    return values


def _opened(file: Path, *, as_dictionary: Sequence[str] = (), metadata: Any = None) -> Any:
    """The file opened; of the columns named, text is read as its dictionary and the places in it.

    Args:
        metadata: the file's, where it was read before.
    """
    parquet = load_pyarrow(file, "pyarrow.parquet")
    return parquet.ParquetFile(file, read_dictionary=list(as_dictionary) or None, metadata=metadata)


def _encodings(opened: Any, column: str) -> Literal["fixed", "dictionary", "other"]:
    """What a column's values can be read as: of fixed size, as a dictionary and places in it, or only as they are."""
    metadata = opened.metadata
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(place) for group in groups for place in range(group.num_columns))
    own = [chunk for chunk in chunks if chunk.path_in_schema == column]
    if not own or any("DELTA" in encoding for chunk in own for encoding in chunk.encodings):
        return "other"
    texts = {chunk.physical_type == "BYTE_ARRAY" for chunk in own}
    return "dictionary" if texts == {True} else "fixed" if texts == {False} else "other"


def _batches(opened: Any, columns: Sequence[str], row_group: int, rows: int) -> Iterator[Any]:
    # Threads of pyarrow's own would not survive the fork of a worker process.
    batches: Iterator[Any] = opened.iter_batches(
        batch_size=rows, row_groups=[row_group], columns=list(columns), use_threads=False
    )
    return batches


def _stated(opened: Any, columns: Sequence[str], row_group: int) -> tuple[int, int]:
    """The bytes of some columns in a row group, unpacked and packed, as the file states them."""
    group = opened.metadata.row_group(row_group)
    chunks = [group.column(place) for place in range(group.num_columns)]
    names = tuple(f"{name}." for name in columns)  # a column of structs has a chunk for each field
    wanted = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(names)]
    return sum(chunk.total_uncompressed_size for chunk in wanted), sum(chunk.total_compressed_size for chunk in wanted)


def _require(affordable: bool, row_group: int, what: str) -> None:
    if not affordable:
        raise TooLargeError(f"row group {row_group} unpacks to {what}")
