"""Parquet and Arrow files that hold the images themselves, as the Hugging Face hub and `datasets` write them.

Only labels and places are read here; an image is opened by its address, in images/addresses.py.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clip_har.dataset.layout import printable
from clip_har.dataset.records import SplitName
from clip_har.dataset.sources.arrow_messages import is_compressed
from clip_har.dataset.sources.base import Row, Source, source_of_rows, split_of_word, with_splits
from clip_har.dataset.sources.class_names import hub_features, is_image_feature, listed_names, names_of_feature
from clip_har.dataset.sources.tables import LABEL_COLUMNS, guess_columns
from clip_har.errors import DataError, first_line
from clip_har.images.addresses import ImageAddress, PackedImage, ParquetImage
from clip_har.images.parquet import (
    MIN_IMAGE_BYTES,
    SMALLER_ROW_GROUPS,
    TooLargeError,
    load_pyarrow,
    require_affordable_images,
    require_plausible_rows,
    text_rows,
    text_values,
)

PACKED_TABLES = frozenset({".parquet", ".arrow"})

IMAGE_COLUMNS = ("image", "img", "jpg", "picture", "photo", "bytes")
"""Names by which a column of images is known where nothing else tells."""


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The columns that matter, by name."""

    image: str
    label: str
    split: str | None
    names: tuple[str, ...] = field(default=())
    """Class names in the order of their numbers; empty where labels are text."""


def holds_images(path: Path) -> bool:
    """Whether a Parquet or Arrow file has a column of images.

    Raises:
        DataError: it cannot be read.
    """
    schema = _schema(path)
    return _image_column(schema, _features(schema)) is not None


def find_packed_tables(root: Path) -> list[Path]:
    """Parquet and Arrow files in a folder and the folders in it, less what `datasets` keeps for itself."""
    found = []
    for where, folders, names in os.walk(root, followlinks=True):
        depth = len(Path(where).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if depth < 2 and not name.startswith("."))
        found += [Path(where, name) for name in sorted(names) if Path(name).suffix.lower() in PACKED_TABLES]
    return [path for path in found if not path.name.startswith((".", "cache-"))]


def read_packed_tables(root: Path, files: Sequence[Path]) -> Source:
    """Read the labels of images in Parquet or Arrow files; the split is that of a column, else of the file's name.

    Args:
        root: the folder, or the one file.
        files: the files, of the same columns.

    Raises:
        DataError: a file cannot be read, or has no column of classes.
    """
    folder = root if root.is_dir() else root.parent
    pairs, warnings = with_splits(files, folder) if root.is_dir() else ([(root, None)], [])
    described = hub_features(folder)
    rows: list[Row] = []
    seen: dict[tuple[str, ...], Path] = {}
    columns = None
    for file, split in pairs:
        columns = _columns(file, described)
        seen.setdefault(columns.names, file)
        try:
            rows += _file_rows(file, columns, split, folder)
        except TooLargeError as error:
            raise DataError(f"{file} is refused: {error}", remedy=SMALLER_ROW_GROUPS) from error
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            reason = first_line(error, longest=120)
            raise DataError(f"Cannot read {file}: {reason}", remedy="Download the file again.") from error
    if len(seen) > 1:
        one, other, *_ = seen.values()
        raise DataError(f"{one} and {other} number their classes differently", remedy="Pass one of the two alone.")
    assert columns is not None
    kind = "/".join(sorted({file.suffix[1:].capitalize() for file, _ in pairs}))
    count = f"{len(pairs)} {kind} file{'s' if len(pairs) > 1 else ''}"
    form = f"a Hugging Face dataset, {count} (image: {columns.image}, label: {columns.label})"
    names = columns.names or listed_names(folder)
    return source_of_rows(root, form, rows, class_names=names, warnings=warnings)


def _columns(file: Path, described: Mapping[str, Any]) -> _Columns:
    schema = _schema(file)
    features = {**described, **_features(schema)}
    image = _image_column(schema, features)
    if image is None:
        raise DataError(f"{file} has no image column", remedy="Remove it, or pass the other files alone.")
    guessed = guess_columns([name for name in schema.names if name != image])
    labelled = [name for name in schema.names if names_of_feature(features.get(name))]
    known = [name for name in labelled if name.lower() in LABEL_COLUMNS]
    label = next(iter(known or labelled), guessed.get("label"))
    if label is None:
        raise DataError(
            f"{file} has no class column (its columns are {', '.join(schema.names)})",
            remedy="Name it label; use clip-har predict for images without classes.",
        )
    return _Columns(image=image, label=label, split=guessed.get("split"), names=names_of_feature(features.get(label)))


def _features(schema: Any) -> dict[str, Any]:
    """The features that the hub's libraries write into a file's own metadata."""
    try:
        return dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, ValueError, TypeError):
        return {}


def _image_column(schema: Any, features: Mapping[str, Any]) -> str | None:
    declared = [name for name in schema.names if is_image_feature(features.get(name))]
    structs = [field.name for field in schema if str(field.type).startswith("struct<bytes: ")]
    binary = [field.name for field in schema if str(field.type) in ("binary", "large_binary")]
    named = [name for name in binary if name.lower() in IMAGE_COLUMNS]
    usable = {*structs, *binary}
    return next((name for name in (*declared, *structs, *named) if name in usable), None)


def _schema(file: Path) -> Any:
    pyarrow = load_pyarrow(file)
    try:
        if file.suffix.lower() == ".parquet":
            return load_pyarrow(file, "pyarrow.parquet").read_schema(file)
        return _arrow_reader(pyarrow, pyarrow.memory_map(str(file))).schema
    except (OSError, ValueError) as error:
        reason = first_line(error, longest=120)
        raise DataError(f"Cannot read {file}: {reason}", remedy="Download the file again.") from error


def _arrow_reader(pyarrow: Any, source: Any) -> Any:
    """A reader of either of Arrow's two kinds of file; `datasets` writes streams."""
    try:
        return pyarrow.ipc.open_stream(source)
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(source)


def _file_rows(file: Path, columns: _Columns, split: SplitName | None, folder: Path) -> Iterator[Row]:
    read = _parquet_rows if file.suffix.lower() == ".parquet" else _arrow_rows
    base = printable(file.relative_to(folder).as_posix())
    for number, (address, label, word) in enumerate(read(file, columns)):
        own = split_of_word(word) if isinstance(word, str) else None
        if word is not None and own is None:
            raise DataError(
                f"{file} has in its column {columns.split} {word!r}, which is not a split",
                remedy="Name the splits train, val and test.",
            )
        yield Row(address=address, name=f"{base}/{number:06d}", label=label, split=own or split)


Packed = tuple[ImageAddress, "str | int | None", object]
"""Where an image is, its label, and its split's word."""


def _parquet_rows(file: Path, columns: _Columns) -> Iterator[Packed]:
    with load_pyarrow(file, "pyarrow.parquet").ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            require_affordable_images(opened, columns.image, group)
    wanted = [columns.label, *([columns.split] if columns.split else [])]
    before, row = -1, 0
    for group, (label, *words) in text_rows(file, wanted, row_bytes=MIN_IMAGE_BYTES):
        before, row = group, row + 1 if group == before else 0
        address = ParquetImage(file=file, column=columns.image, row_group=group, row=row)
        yield address, label, next(iter(words), None)


def _arrow_rows(file: Path, columns: _Columns) -> Iterator[Packed]:
    """Rows of an Arrow file, in which every image is some consecutive bytes of the file as it lies there."""
    pyarrow = load_pyarrow(file)
    whole = pyarrow.memory_map(str(file)).read_buffer()
    if is_compressed(whole):  # asked first: reading a batch unpacks it
        raise DataError(f"{file} is compressed, so its images cannot be read in place", remedy="Write it as Parquet.")
    reader = _arrow_reader(pyarrow, whole)
    by_number = hasattr(reader, "num_record_batches")
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if by_number else reader
    rows = 0
    for batch in batches:
        batch.validate(full=True)  # offsets that point elsewhere would be followed
        rows += batch.num_rows
        require_plausible_rows(rows, file, row_bytes=MIN_IMAGE_BYTES)
        images = batch.column(columns.image)
        labels = text_values(batch.column(columns.label))
        words = text_values(batch.column(columns.split)) if columns.split else [None] * len(labels)
        places = _places(images.field("bytes") if pyarrow.types.is_struct(images.type) else images, whole, file)
        for (start, length), label, word in zip(places, labels, words, strict=True):
            yield PackedImage(file=file, start=start, length=length), label, word


def _places(binary: Any, whole: Any, file: Path) -> Iterator[tuple[int, int]]:
    """Yield the first byte in the file, and the number of bytes, of each value of a binary array."""
    _, offsets, data = binary.buffers()
    if data is None:  # no value has any bytes
        yield from ((0, 0) for _ in range(len(binary)))
        return
    start = data.address - whole.address
    if not 0 <= start <= whole.size - data.size:
        raise DataError(f"{file} is compressed, so its images cannot be read in place", remedy="Write it as Parquet.")
    kind = np.int64 if str(binary.type) == "large_binary" else np.int32
    ends = np.frombuffer(offsets, dtype=kind)[binary.offset : binary.offset + len(binary) + 1]
    yield from ((start + int(first), int(last - first)) for first, last in itertools.pairwise(ends))
