"""The image files of a split, as batches for models that read pixels: evaluation frames and training views.

Files that are encoded once, and may be unreadable, go through `decode_batches` in batches.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clip_har.errors import DataError
from clip_har.images.addresses import ImageAddress
from clip_har.images.augmentation import PixelView, view_seed
from clip_har.images.batches import DecodeDataset, DecodedBatch, decode_batches, load_batches
from clip_har.images.corruptions import CorruptedTransform, Corruption
from clip_har.images.decoded_cache import DecodedCache
from clip_har.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from clip_har.config.converters import Augment
    from clip_har.images.batches import Item


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """N readable image files, and how a model wants them."""

    paths: tuple[ImageAddress, ...]
    preprocessing: Preprocessing
    workers: int = 0
    """Processes that decode; 0 decodes in this process."""
    corruption: Corruption | None = None
    """What is done to the images before an evaluation sees them."""
    seeds: tuple[int, ...] = ()
    """The corruption's seed for each file."""
    hashes: tuple[str, ...] = ()
    """Content hashes, one for each path, where `decoded` needs them."""
    decoded: DecodedCache | None = None
    """What augmented training views are made of, for the images that it has; the files otherwise."""

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> ImageFiles:
        """Some of the files, in the order given."""
        return replace(
            self,
            paths=tuple(self.paths[index] for index in indices),
            seeds=tuple(self.seeds[index] for index in indices) if self.seeds else (),
            hashes=tuple(self.hashes[index] for index in indices) if self.hashes else (),
        )

    def joined(self, other: ImageFiles, hashes: Sequence[str]) -> ImageFiles:
        """These files and then the others, without corruption.

        Args:
            hashes: content hashes of all of them.
        """
        kept = tuple(hashes) if self.decoded else ()
        return replace(self, paths=self.paths + other.paths, corruption=None, seeds=(), hashes=kept)

    def evaluation_batches(self, indices: Iterable[int], *, batch_size: int = 16) -> Iterator[tuple[list[int], Tensor]]:
        """Yield images as the model's own evaluation transform shows them, in the order of the indices.

        Yields:
            The indices of B images, and float32 [B, 3, H, W]; B is at most `batch_size`.

        Raises:
            DataError: a file cannot be decoded.
        """
        chosen = list(indices)
        paths = [self.paths[index] for index in chosen]
        workers = min(self.workers, math.ceil(len(paths) / batch_size))
        for batch in self._decoded(chosen, paths, batch_size, workers):
            _refuse_unreadable(batch, paths)
            yield [chosen[place] for place in batch.indices], self.preprocessing.normalise(batch.images_BCHW)

    def _decoded(
        self, chosen: Sequence[int], paths: Sequence[ImageAddress], batch_size: int, workers: int
    ) -> Iterator[DecodedBatch]:
        if self.corruption is None:
            return decode_batches(paths, self.preprocessing.pixel_transform(), batch_size=batch_size, workers=workers)
        transform = CorruptedTransform(preprocessing=self.preprocessing, corruption=self.corruption)
        seeds = [self.seeds[index] for index in chosen]
        return decode_batches(paths, transform, seeds=seeds, batch_size=batch_size, workers=workers)

    def training_batches(
        self, batches: Sequence[Sequence[int]], *, augment: Augment, image_size: int | None, seed: int
    ) -> Iterator[Tensor]:
        """Yield a view of every image, for each batch of indices one float32 tensor [B, 3, S, S].

        A view depends on the seed, the image's index and, where the batch has the image several times, on which of
        them it is; on nothing else. The remaining batches of an interrupted epoch are therefore what they would
        have been. Global random generators are neither read nor changed.

        Args:
            batches: indices into `paths`; an index may occur several times.
            augment: see `training_transform`.
            image_size: S in pixels; None is the model's own height and width.
            seed: another one for each epoch, or each image always shows the same view.

        Raises:
            DataError: a file cannot be decoded.
        """
        paths = [self.paths[index] for batch in batches for index in batch]
        view = PixelView(preprocessing=self.preprocessing, augment=augment, image_size=image_size)
        seeds = [view for batch in batches for view in _view_seeds(batch, seed)]
        dataset = DecodeDataset(paths, view, seeds)
        if self.decoded is not None and augment != "none":
            hashes = [self.hashes[index] for batch in batches for index in batch]
            dataset = CachedViews(self.decoded, hashes, paths, view, seeds)
        sizes = [len(batch) for batch in batches]
        for decoded in load_batches(dataset, sizes, workers=min(self.workers, len(sizes))):
            _refuse_unreadable(decoded, paths)
            yield self.preprocessing.normalise(decoded.images_BCHW)


class CachedViews(DecodeDataset):
    """Views of images from a decoded cache, and of the files that it does not have.

    Args:
        decoded: the cache.
        hashes: content hashes, one for each path.
        paths, view, seeds: as for `DecodeDataset`.
    """

    def __init__(
        self,
        decoded: DecodedCache,
        hashes: Sequence[str],
        paths: Sequence[ImageAddress],
        view: PixelView,
        seeds: Sequence[int],
    ) -> None:
        super().__init__(paths, view, seeds)
        self._decoded, self._hashes = decoded, hashes
        self._view, self._view_seeds = view, seeds

    def __getitem__(self, index: int) -> Item:
        sha256 = self._hashes[index]
        if sha256 not in self._decoded:
            return super().__getitem__(index)
        return index, self._view.of_pixels(self._decoded.pixels(sha256), self._view_seeds[index]), None


def _view_seeds(batch: Sequence[int], seed: int) -> Iterator[int]:
    """Yield the seed of each image's view; the same image twice has two."""
    seen: Counter[int] = Counter()
    for index in batch:
        yield view_seed(seed, int(index), seen[index])
        seen[index] += 1


def _refuse_unreadable(batch: DecodedBatch, paths: Sequence[ImageAddress]) -> None:
    if batch.unreadable:
        place, reason = batch.unreadable[0]
        raise DataError(
            f"{paths[place]} was readable before and no longer is: {reason}",
            remedy="Restore the file, or start a new run without it.",
        )
