"""Which of the files found are images, and the hash of their content.

Reads heads and hashes; whether the pixels can be decoded shows when they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from clip_har.dataset.layout import FoundFile
from clip_har.dataset.records import UnreadableImage
from clip_har.errors import UnreadableImageError
from clip_har.failures import is_exhausted
from clip_har.images import IMAGE_SUFFIXES, ImageAddress, decode, sniff
from clip_har.integrity import stream_sha256


def read_heads(files: Sequence[FoundFile]) -> tuple[list[FoundFile], list[UnreadableImage]]:
    """Hash the files whose content is an image; report those that only their name says are one.

    A file that neither content nor name says is an image, such as notes.txt, is not of the dataset.
    """
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(_read_head, files))
    images: list[FoundFile] = []
    unreadable: list[UnreadableImage] = []
    for file, outcome in zip(files, outcomes, strict=True):
        if isinstance(outcome, FoundFile):
            images.append(outcome)
        elif file.listed or (isinstance(file.path, Path) and file.path.suffix.lower() in IMAGE_SUFFIXES):
            unreadable.append(UnreadableImage(name=file.name, split=file.split or "train", reason=outcome))
    return images, unreadable


def _read_head(file: FoundFile) -> FoundFile | str:
    """The file with its hash, or the reason why it is not an image."""
    try:
        if sniff(file.path) is None:
            decode(file.path)  # says what it is instead, from the head alone
        return replace(file, sha256=content_hash(file.path))
    except UnreadableImageError as error:
        return error.reason
    except OSError as error:
        if is_exhausted(error):
            raise
        return f"cannot be read: {error.strerror or error}"


def content_hash(path: ImageAddress) -> str:
    """The SHA-256 of an image's bytes, as manifests and caches know it by; the file is read in pieces."""
    if not isinstance(path, Path):
        return hashlib.sha256(path.read()).hexdigest()
    with path.open("rb") as stream:
        return stream_sha256(stream)
