"""Any number of images, decoded in worker processes, with the SHA-256 of each file; no list of them is held.

Lists of a known length, without hashes, are in batches.py. torch is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.images.addresses import ImageAddress
from clip_har.images.batches import loaded
from clip_har.images.decoding import decode
from clip_har.images.formats import open_source
from clip_har.images.remote import Fetching, RemoteImage, fetching
from clip_har.integrity import stream_sha256

if TYPE_CHECKING:
    from torch import Tensor

Address: TypeAlias = ImageAddress | RemoteImage
_Item: TypeAlias = "tuple[str | None, Tensor | None, str | None]"


@dataclass(frozen=True, kw_only=True)
class HashedBatch:
    """Some consecutive images."""

    sha256: list[str | None]
    """SHA-256 in hex of each file's content; None where there is no content."""
    reasons: list[str | None]
    """Why each image cannot be read; None where it can."""
    images_BCHW: Tensor
    """What the transform makes of the readable ones, in order; B may be 0."""


def hashed_batches(
    batches: Iterable[Sequence[Address]],
    transform: Callable[[Image.Image], Tensor],
    *,
    batch_size: int,
    workers: int,
) -> Generator[HashedBatch, None, None]:
    """Read, hash and decode images, in order. Few batches are asked for ahead of what is yielded.

    Args:
        batches: the images, in batches of any size up to `batch_size`.
        transform: RGB image -> CHW tensor, the same shape for every image.
        workers: processes; 0 decodes in this one.

    Yields:
        One batch for each that is given.

    Raises:
        DataError: a worker was killed.
    """
    blank_CHW = transform(Image.new("RGB", (1, 1)))
    yield from loaded(
        _Hashed(transform),
        batch_sampler=batches,  # what it holds is passed on to the dataset as it is
        workers=workers,
        batch_bytes=batch_size * blank_CHW.nbytes,
        collate_fn=functools.partial(_collate, empty_BCHW=blank_CHW.new_empty((0, *blank_CHW.shape))),
    )


def hash_and_decode(addresses: Sequence[Address], transform: Callable[[Image.Image], Tensor]) -> HashedBatch:
    """The same for one batch, in this process."""
    blank_CHW = transform(Image.new("RGB", (1, 1)))
    read = _Hashed(transform)
    return _collate(read.__getitems__(addresses), empty_BCHW=blank_CHW.new_empty((0, *blank_CHW.shape)))


class _Hashed:
    """A dataset whose indices are the images' addresses."""

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self._transform = transform

    def __getitems__(self, addresses: Sequence[Address]) -> list[_Item]:
        """A batch, which torch asks for at once."""
        return [self[address] for address in fetching(addresses)]

    def __getitem__(self, address: Address | Fetching) -> _Item:
        sha256 = None
        try:
            with open_source(address) as stream:
                sha256 = _hash(stream)
                image = decode(
                    stream,
                    enough_pixels=getattr(self._transform, "enough_pixels", None),
                    enough_side=getattr(self._transform, "enough_side", None),
                )
        except UnreadableImageError as error:
            return sha256, None, error.reason
        return sha256, self._transform(image), None


def _hash(stream: BinaryIO) -> str:
    try:
        sha256 = stream_sha256(stream)
        stream.seek(0)
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    return sha256


def _collate(items: Sequence[_Item], *, empty_BCHW: Tensor) -> HashedBatch:
    import torch

    readable = [image_CHW for _, image_CHW, _ in items if image_CHW is not None]
    return HashedBatch(
        sha256=[sha256 for sha256, _, _ in items],
        reasons=[reason for _, _, reason in items],
        images_BCHW=torch.stack(readable) if readable else empty_BCHW,
    )
