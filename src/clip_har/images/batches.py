"""Many image files, decoded and transformed in worker processes, as batches in the order of the files.

One image at a time is in decoding.py. torch is imported where it is used: it costs seconds.
"""

from __future__ import annotations

import functools
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from PIL import Image

from clip_har.errors import UnreadableImageError
from clip_har.images.addresses import ImageAddress
from clip_har.images.decoding import decode
from clip_har.images.workers import iterate, start_worker

if TYPE_CHECKING:
    from typing import TypeAlias

    from torch import Tensor
    from torch.utils.data import Dataset

    Item: TypeAlias = tuple[int, Tensor | None, str | None]  # index, image_CHW or else the reason


_IMAGES_TOGETHER, _LARGE_IMAGE_BYTES = 8, 1_000_000


@dataclass(frozen=True, kw_only=True)
class DecodedBatch:
    """Consecutive images of a list: the readable ones as a tensor, the others by reason."""

    indices: list[int]
    """Places in the list of paths, ascending, one for each row of the tensor."""

    images_BCHW: Tensor
    """What the transform makes, such as uint8 pixels; B may be 0."""

    unreadable: list[tuple[int, str]]
    """Place in the list of paths, and why that image could not be read."""


class DecodeDataset:
    """A map-style dataset for torch's DataLoader that reports an unreadable image instead of raising.

    Args:
        paths: image files.
        transform: what makes a tensor of an RGB image, and of its seed if there are seeds; must be picklable where
            workers are spawned. Where it has `enough_pixels` or `enough_side`, larger JPEGs may be decoded at a
            fraction of their size.
        seeds: one for each path.
    """

    def __init__(
        self, paths: Sequence[ImageAddress], transform: Callable[..., Tensor], seeds: Sequence[int] | None = None
    ) -> None:
        self.paths = paths
        self.transform = transform
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        """Return the index with either the tensor or the reason why there is none."""
        try:
            image = decode(
                self.paths[index],
                enough_pixels=getattr(self.transform, "enough_pixels", None),
                enough_side=getattr(self.transform, "enough_side", None),
            )
        except UnreadableImageError as error:
            return index, None, error.reason
        return index, self.transform(image, *self._seed(index)), None

    def blank(self) -> Tensor:
        """Return the tensor of a black image, which has the shape of all the others."""
        return self.transform(Image.new("RGB", (1, 1)), *(() if self.seeds is None else (0,)))

    def _seed(self, index: int) -> tuple[int, ...]:
        return () if self.seeds is None else (self.seeds[index],)


@overload
def decode_batches(
    paths: Sequence[ImageAddress], transform: Callable[[Image.Image], Tensor], *, batch_size: int, workers: int
) -> Iterator[DecodedBatch]: ...
@overload
def decode_batches(
    paths: Sequence[ImageAddress],
    transform: Callable[[Image.Image, int], Tensor],
    *,
    batch_size: int,
    workers: int,
    seeds: Sequence[int],
) -> Iterator[DecodedBatch]: ...
def decode_batches(
    paths: Sequence[ImageAddress],
    transform: Callable[..., Tensor],
    *,
    batch_size: int,
    workers: int,
    seeds: Sequence[int] | None = None,
) -> Iterator[DecodedBatch]:
    """Decode and transform a list of images, in order.

    Args:
        paths: image files.
        transform: RGB image -> CHW tensor, the same shape for every image; with seeds, (RGB image, seed) -> tensor.
        batch_size: paths per batch; the last batch may have fewer.
        workers: processes, each single-threaded (DataLoader sees to that); 0 decodes in this process. They
            end with the iteration, also when it is left early. Shared memory may allow for fewer.
        seeds: one for each path, for a transform such as `ViewTransform`.

    Yields:
        One batch for each `batch_size` paths.

    Raises:
        DataError: a worker was killed, most often because memory ran out.
    """
    sizes = [min(batch_size, len(paths) - start) for start in range(0, len(paths), batch_size)]
    return load_batches(DecodeDataset(paths, transform, seeds), sizes, workers=workers)


def decode_each(
    paths: Sequence[ImageAddress], transform: Callable[[Image.Image], Tensor], *, workers: int
) -> Iterator[Item]:
    """Decode and transform a list of images, in order, to tensors whose shapes may differ.

    Yields:
        The place in the list, and the tensor or else the reason why there is none.

    Raises:
        DataError: a worker was killed.
    """
    batches: Iterator[list[Item]] = loaded(
        DecodeDataset(paths, transform),
        batch_size=_IMAGES_TOGETHER,
        workers=min(workers, math.ceil(len(paths) / _IMAGES_TOGETHER)),
        batch_bytes=_IMAGES_TOGETHER * _LARGE_IMAGE_BYTES,
        collate_fn=list,
    )
    for items in batches:
        yield from items


def load_batches(dataset: DecodeDataset, sizes: Sequence[int], *, workers: int) -> Iterator[DecodedBatch]:
    """Load a dataset in order, in batches of the given sizes; see `decode_batches`."""
    blank_CHW = dataset.blank()
    ends = list(itertools.accumulate(sizes))
    yield from loaded(
        dataset,
        batch_sampler=[list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)],
        workers=min(workers, len(sizes)),
        batch_bytes=max(sizes, default=0) * blank_CHW.nbytes,
        collate_fn=functools.partial(_collate, empty_BCHW=blank_CHW.new_empty((0, *blank_CHW.shape))),
    )


def loaded(dataset: object, *, workers: int, batch_bytes: int, **batching: Any) -> Iterator[Any]:
    """Load the batches of a map-style dataset in order, in processes that end with the iteration.

    Args:
        workers: processes; 0 loads in this one. Shared memory may allow for fewer.
        batch_bytes: size of a batch.
        batching: what DataLoader is told of the batches.

    Raises:
        DataError: a worker was killed.
    """
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        cast("Dataset[Any]", dataset),
        num_workers=affordable_workers(workers, batch_bytes=batch_bytes),
        generator=torch.Generator(),  # else each iteration would draw from the global one
        worker_init_fn=start_worker,
        **batching,
    )
    yield from iterate(loader)


def affordable_workers(workers: int, *, batch_bytes: int) -> int:
    """Return how many workers have room for their batches in shared memory.

    Containers often have 64 MB of it, and a worker that needs more is killed with a bus error.
    """
    shared_memory = Path("/dev/shm")
    if workers == 0 or batch_bytes == 0 or not shared_memory.is_dir():
        return workers
    batches_per_worker = 3  # two prefetched, one with the consumer
    return min(workers, shutil.disk_usage(shared_memory).free // (batches_per_worker * batch_bytes))


def _collate(items: Sequence[Item], *, empty_BCHW: Tensor) -> DecodedBatch:
    import torch

    readable = [(index, image_CHW) for index, image_CHW, _ in items if image_CHW is not None]
    return DecodedBatch(
        indices=[index for index, _ in readable],
        images_BCHW=torch.stack([image_CHW for _, image_CHW in readable]) if readable else empty_BCHW,
        unreadable=[(index, reason) for index, _, reason in items if reason is not None],
    )
