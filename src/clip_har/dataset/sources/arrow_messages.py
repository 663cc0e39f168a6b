"""What the messages of an Arrow file say of themselves, before pyarrow unpacks them.

pyarrow does not tell whether a message is compressed, so its metadata, a FlatBuffer, is looked into.
https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

from __future__ import annotations

import importlib
import struct
from typing import Any

_MAGIC = b"ARROW1\0\0"
"""Begins Arrow's file format; what follows is as in its stream format."""
_HEADER_TYPE, _HEADER = 1, 2
"""Fields of the table Message."""
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""What a Message's header can be."""
_DATA = 1
"""Field of the table DictionaryBatch: a RecordBatch."""
_COMPRESSION = 3
"""Field of the table RecordBatch."""


def is_compressed(whole: Any) -> bool:
    """Whether some batch of an Arrow file is compressed.

    Args:
        whole: the file as a pyarrow.Buffer. Only metadata is read.

    Raises:
        ValueError: it is no Arrow file.
    """
    ipc = importlib.import_module("pyarrow.ipc")
    start = len(_MAGIC) if whole.slice(0, len(_MAGIC)).to_pybytes() == _MAGIC else 0
    try:
        return any(
            _says_compressed(message.metadata.to_pybytes())
            for message in ipc.MessageReader.open_stream(whole.slice(start))
        )
    except struct.error as error:
        raise ValueError("its metadata is damaged") from error


def _says_compressed(metadata: bytes) -> bool:
    message = _followed(metadata, 0)
    kind_at = _field(metadata, message, _HEADER_TYPE)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False
    batch = _table(metadata, message, _HEADER)
    if kind == _DICTIONARY_BATCH:
        batch = _table(metadata, batch, _DATA)
    return _field(metadata, batch, _COMPRESSION) != 0


def _table(data: bytes, table: int, number: int) -> int:
    """Where the table begins that a field of another refers to."""
    place = _field(data, table, number)
    if not place:
        raise struct.error("a field is missing")
    return _followed(data, place)


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table is, 0 if it is not set."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    slot = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + slot)[0] if slot + 2 <= size else 0
    return table + int(offset) if offset else 0


def _followed(data: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", data, place)[0])
