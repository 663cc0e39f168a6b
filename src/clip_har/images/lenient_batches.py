"""Images to predict, as far as they can be read, in batches and in order; in worker processes where it is worth it.

What is learned from must be whole and is read by batches.py. torch is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.images.batches import loaded
from clip_har.images.decoding import decode_lenient, from_pillow
from clip_har.images.remote import Fetching, RemoteImage, fetching, location

if TYPE_CHECKING:
    from torch import Tensor

ImageInput: TypeAlias = str | os.PathLike[str] | RemoteImage | bytes | Image.Image | npt.NDArray[np.uint8]
"""An image to predict: the path or URL of a file, a file's bytes, a Pillow image, or RGB pixels (H x W x 3)."""
WORTH_A_PROCESS = 32
"""Images per worker from which starting it saves time."""
TOGETHER = 8192
"""Images that one set of workers reads: so many names, and no more, are held of an endless input."""


@dataclass(frozen=True, kw_only=True)
class ReadImage:
    """One image as far as it could be read."""

    image_CHW: Tensor | None = None
    """What the transform makes of it; None where it is unreadable."""
    reason: str | None = None
    """Why it is unreadable."""
    warning: str | None = None
    """What is missing of it, such as its lower half."""


def read_images(images: Sequence[ImageInput], transform: Callable[[Image.Image], Tensor]) -> list[ReadImage]:
    """Decode and transform images, of which remote ones are fetched a few at a time.

    Raises:
        TypeError: something is not an image input.
    """
    named = [location(image) if isinstance(image, str) else image for image in images]
    return [read_image(image, transform) for image in fetching(named)]


def read_image(image: ImageInput | Fetching, transform: Callable[[Image.Image], Tensor]) -> ReadImage:
    """Decode and transform one image.

    Raises:
        TypeError: it is not an image input.
    """
    try:
        if isinstance(image, np.ndarray):
            image = _picture(image)
        if isinstance(image, Image.Image):
            return ReadImage(image_CHW=transform(from_pillow(image)))
        if not isinstance(image, (str, os.PathLike, bytes, RemoteImage, Fetching)):
            raise TypeError(
                f"Cannot predict {type(image).__name__}: pass a path, the bytes of an image file, an array of RGB "
                "pixels, or a PIL.Image"
            )
        source = image if isinstance(image, bytes | RemoteImage | Fetching) else location(os.fspath(image))
        decoded = decode_lenient(source, enough_side=getattr(transform, "enough_side", None))
    except UnreadableImageError as error:
        return ReadImage(reason=error.reason)
    return ReadImage(image_CHW=transform(decoded.image), warning=decoded.warning)


def _picture(pixels_HWC: npt.NDArray[Any]) -> Image.Image:
    shape, kind = pixels_HWC.shape, pixels_HWC.dtype
    if pixels_HWC.ndim != 3 or shape[2] != 3 or 0 in shape or kind != np.uint8:
        raise TypeError(
            f"Cannot predict an array of shape {shape} and type {kind}: pass H x W x 3 pixels of type uint8"
        )
    return Image.fromarray(np.ascontiguousarray(pixels_HWC))


def read_batches(
    images: Iterable[ImageInput], transform: Callable[[Image.Image], Tensor], *, batch_size: int, workers: int
) -> Iterator[tuple[list[ImageInput], list[ReadImage]]]:
    """Read images in order, in batches.

    Args:
        transform: RGB image -> CHW tensor, the same shape for every image.
        workers: at most so many processes; fewer where there are few images, none for one batch.

    Raises:
        DataError: a worker was killed.
        TypeError: something is not an image input.
    """
    remaining = iter(images)
    first = True
    many = max(TOGETHER // batch_size, 1) * batch_size  # whole batches: how an image rounds depends on its batch
    while together := list(islice(remaining, many if not first and workers else batch_size)):
        first = False  # a first answer comes at once
        count = min(workers, len(together) // WORTH_A_PROCESS)
        batches = [together[start : start + batch_size] for start in range(0, len(together), batch_size)]
        yield from zip(batches, _read(batches, transform, count), strict=True)


def read_stream(
    images: Iterable[ImageInput], transform: Callable[[Image.Image], Tensor], *, batch_size: int, threads: int
) -> Iterator[tuple[list[ImageInput], list[ReadImage]]]:
    """The same in threads, for input of any length: one batch is read ahead, and no more than two are held.

    Raises:
        TypeError: something is not an image input.
    """
    remaining = iter(images)
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:

        def begin() -> tuple[list[ImageInput], list[Future[ReadImage]]]:
            batch = list(islice(remaining, max(1, batch_size)))
            return batch, [pool.submit(read_image, image, transform) for image in batch]

        batch, reading = begin()
        while batch:
            read = [future.result() for future in reading]
            following = begin()
            yield batch, read
            batch, reading = following


def _read(
    batches: Sequence[list[ImageInput]], transform: Callable[[Image.Image], Tensor], workers: int
) -> Iterator[list[ReadImage]]:
    if workers < 1:
        yield from (read_images(batch, transform) for batch in batches)
        return
    blank_CHW = transform(Image.new("RGB", (1, 1)))
    yield from loaded(
        _Batches(batches, transform),
        batch_size=None,
        workers=workers,
        batch_bytes=max(map(len, batches)) * blank_CHW.nbytes,
    )


class _Batches:
    """A map-style dataset whose items are whole batches."""

    def __init__(self, batches: Sequence[list[ImageInput]], transform: Callable[[Image.Image], Any]) -> None:
        self._batches = batches
        self._transform = transform

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[ReadImage]:
        return read_images(self._batches[index], self._transform)
