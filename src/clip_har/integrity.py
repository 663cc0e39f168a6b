"""Noticing damage: SHA-256 of whole files, sealed JSON and sealed files. Knows nothing of what they mean.

A seal detects damage and careless edits. It is no signature: who can write a file can also seal it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from clip_har.files import write_atomically

SEAL_KEY = "sha256_of_the_rest"
"""The key of a sealed JSON object that holds the SHA-256 over all its other keys."""
SEAL_MARK = "#sha256 "
"""What the line of a sealed file begins with."""
_SEAL_MARK = f"\n{SEAL_MARK}".encode()
_SEAL_BYTES = len(_SEAL_MARK) + 64 + 1
_BLOCK_BYTES = 1 << 20


class DamagedError(Exception):
    """A file whose content is not what was written, or that carries no seal."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file in hex. A file is read once per process, until its size, time or inode changes.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _file_sha256(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _file_sha256(path: str, _size: int, _mtime_ns: int, _inode: int) -> str:
    with Path(path).open("rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: BinaryIO) -> str:
    """SHA-256 in hex of what is left of a stream, which is read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def json_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 in hex over a JSON object's content, whatever the order of its keys and its white space."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with its seal as the last key; an earlier seal is replaced."""
    rest = {key: value for key, value in content.items() if key != SEAL_KEY}
    return {**rest, SEAL_KEY: json_sha256(json.loads(json.dumps(rest)))}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether the JSON object carries a seal, whole or broken."""
    return SEAL_KEY in content


def seal_holds(content: Mapping[str, Any]) -> bool:
    """Whether the JSON object carries a seal that fits its content."""
    rest = {key: value for key, value in content.items() if key != SEAL_KEY}
    return bool(content.get(SEAL_KEY) == json_sha256(rest))


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, whole or not at all."""
    write_atomically(path, json.dumps(sealed(content)) + "\n")


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The JSON object that `write_sealed_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is damaged, or carries no seal.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(path) from error
    if not isinstance(content, dict) or not seal_holds(content):
        raise DamagedError(path)
    del content[SEAL_KEY]
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """Write bytes with a seal behind them, whole or not at all; numpy reads a .npy file sealed so as it is."""
    write_atomically(path, content + _SEAL_MARK + hashlib.sha256(content).hexdigest().encode() + b"\n")


def read_sealed(path: Path) -> bytes:
    """The bytes that `write_sealed` was given.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: they are damaged, or carry no seal.
    """
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(path) from error
    content, seal = whole[:-_SEAL_BYTES], whole[-_SEAL_BYTES:]
    if seal != _SEAL_MARK + hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise DamagedError(path)
    return content
