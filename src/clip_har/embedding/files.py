"""One file of embeddings: Parquet, with a checksum over the whole file in its own metadata. Which there are: job.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_har.files import valid_utf8, write_atomically

DESCRIPTION_KEY = "clip_har"
_SEAL_KEY = "clip_har_sha256"
_SEAL_MARK = b"clip_har_sealed:"
_NO_SEAL = b"0" * 64


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """What a file says of some consecutive images."""

    paths: Sequence[str]
    sha256: Sequence[str | None]
    """SHA-256 in hex of each file's content; None where it has none."""
    reasons: Sequence[str | None]
    """Why each image cannot be read; None where it can, and has features."""
    features: dict[str, npt.NDArray[np.float32]]
    """"embedding" and "hidden", whichever are written: [readable images, width]."""
    widths: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """What identifies the content of a file."""

    job: str
    """The digest of what all files have in common, see `job.Job`."""
    names: str
    """SHA-256 over the names of its images."""
    rows: int
    unreadable: int


def write_shard(path: Path, rows: ShardRows, info: ShardInfo, *, dtype: str) -> None:
    """Write a file, whole or not at all. The same rows give the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, _sealed(_parquet(rows, info, dtype)))


def read_info(path: Path) -> ShardInfo | None:
    """What a file says of itself, if not a byte of it has changed since it was written; else None.

    Raises:
        FileNotFoundError: there is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = path.read_bytes()
    place = content.rfind(_SEAL_MARK) + len(_SEAL_MARK)
    digest = hashlib.sha256(content[:place])
    digest.update(_NO_SEAL)
    digest.update(content[place + len(_NO_SEAL) :])
    if digest.hexdigest().encode() != content[place : place + len(_NO_SEAL)]:
        return None
    metadata = pq.read_metadata(pa.BufferReader(content)).metadata
    try:
        return ShardInfo(**json.loads(metadata[DESCRIPTION_KEY.encode()]))
    except (KeyError, TypeError, ValueError):  # of another version of clip-har
        return None


def _parquet(rows: ShardRows, info: ShardInfo, dtype: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing = np.array([reason is not None for reason in rows.reasons], dtype=bool)
    columns: dict[str, Any] = {
        "path": pa.array([valid_utf8(name) for name in rows.paths], pa.string()),
        "sha256": pa.array(rows.sha256, pa.string()),
    }
    for kind, width in rows.widths.items():
        values = np.zeros((len(missing), width), dtype=dtype)
        values[~missing] = rows.features[kind]
        columns[kind] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width, mask=pa.array(missing))
    columns["error"] = pa.array([reason and valid_utf8(reason) for reason in rows.reasons], pa.string())
    metadata = {DESCRIPTION_KEY: json.dumps(vars(info)), _SEAL_KEY: (_SEAL_MARK + _NO_SEAL).decode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    # Bytes of one place of all numbers together compress: a fifth of the file. Not of float16, for older readers.
    split = [f"{kind}.list.element" for kind in rows.widths] if dtype == "float32" else False
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, use_byte_stream_split=split)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _sealed(content: bytes) -> bytes:
    """The file with the SHA-256 over all of it, computed with zeros in place of the checksum."""
    place = content.rfind(_SEAL_MARK + _NO_SEAL) + len(_SEAL_MARK)
    seal = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + seal + content[place + len(_NO_SEAL) :]
