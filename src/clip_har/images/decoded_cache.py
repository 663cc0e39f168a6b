"""Decoded images on disk, for trainings that see each of them in many epochs: memory-mapped uint8, by content hash.

Which images of which size are wanted is for the caller to say; views of them are made in augmentation.py.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_har.errors import ConfigError, UnreadableImageError
from clip_har.files import remove_stray_temporaries, temporary_name
from clip_har.images.addresses import ImageAddress
from clip_har.images.batches import decode_each
from clip_har.images.decoding import header_size
from clip_har.images.preprocessing import PIXELS_VERSION, image_pixels, resize_pixels
from clip_har.integrity import DamagedError, read_sealed_json, write_sealed_json
from clip_har.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 256_000_000
"""Size at which a shard is closed: what a killed run loses at most."""
SHARD_SECONDS = 60.0
"""A slow disk's shard is closed after this long, however full it is."""
_SPARE_BYTES = 500_000_000
"""Disk space that stays free for the run itself."""


@dataclass(frozen=True, kw_only=True)
class StoredPixels:
    """What is kept of an image: uint8 CHW, made smaller where it has more than enough pixels. Can be pickled."""

    enough_pixels: int

    def __call__(self, image: Image.Image) -> Tensor:
        width, height = stored_size(image.size, self.enough_pixels)
        return resize_pixels(image_pixels(image), (height, width), "bicubic").contiguous()


def stored_size(size: tuple[int, int], enough_pixels: int) -> tuple[int, int]:
    """Width and height at which an image is kept: its shape, with just enough pixels in all."""
    scale = math.sqrt(enough_pixels / (size[0] * size[1]))
    if scale >= 1:
        return size
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


class DecodedCache:
    """Images at one size, by content hash, in a folder that several runs may share.

    A shard is a .bin of pixels and a .json written last, sealed, with a checksum of the .bin. One that is cut off or
    altered does not count, and its images are decoded again.

    Args:
        folder: the cache folder; this cache makes a subfolder of its own in it.
        enough_pixels: width times height above which images are made smaller, as `PixelView.enough_pixels` says.
        verify: compare the pixels with their checksum.
        progress: told of damaged shards.
    """

    def __init__(self, folder: Path, enough_pixels: int, *, verify: bool = True, progress: Progress = SILENT) -> None:
        self._root, self.enough_pixels = folder, enough_pixels
        self._progress = progress
        self.folder = folder / "decoded" / f"{PIXELS_VERSION}-{enough_pixels}"
        self._places: dict[str, tuple[NDArray[np.uint8], int, int, int]] = {}
        for path in sorted(self.folder.glob("*.json")):
            self._open_shard(path, verify=verify)

    def __reduce__(self) -> tuple[Any, ...]:  # a worker that is spawned opens the files itself
        return _reopened, (self._root, self.enough_pixels)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._places

    def __len__(self) -> int:
        return len(self._places)

    def pixels(self, sha256: str) -> Tensor:
        """The image's stored pixels, uint8 [3, H, W].

        Raises:
            KeyError: it is not in the cache.
        """
        import torch

        shard, start, height, width = self._places[sha256]
        stored_HWC = shard[start : start + 3 * height * width].reshape(height, width, 3)
        return torch.from_numpy(np.array(stored_HWC)).permute(2, 0, 1)

    def fill(self, files: Mapping[str, ImageAddress], *, workers: int, progress: Progress = SILENT) -> None:
        """Decode what is missing; files that cannot be decoded stay missing.

        Args:
            files: content hash -> file.
            workers: processes that decode.

        Raises:
            ConfigError: the disk has no room for it; nothing has been written then.
        """
        missing = {sha256: path for sha256, path in files.items() if sha256 not in self}
        if not missing:
            progress.note(f"All {len(files):,} images are in the decoded cache")
            return
        self._require_room(missing, progress)
        remove_stray_temporaries(self.folder)
        hashes, paths = list(missing), list(missing.values())
        transform = StoredPixels(enough_pixels=self.enough_pixels)
        shown_as = progress.bar("Decoding images", total=len(paths), unit="images")
        with shown_as as bar, _writing(self.folder) as shards:
            for index, pixels_CHW, _ in decode_each(paths, transform, workers=workers):
                if pixels_CHW is not None:
                    shards.add(hashes[index], pixels_CHW.permute(1, 2, 0).contiguous().numpy())
                bar.advance(1)
        for path in shards.finished:
            self._open_shard(path, verify=False)

    def _require_room(self, missing: Mapping[str, ImageAddress], progress: Progress) -> None:
        needed = sum(_stored_bytes(path, self.enough_pixels) for path in missing.values())
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        said = f"{len(missing):,} images take about {needed / 1e9:.2f} GB in {self.folder}"
        if needed + _SPARE_BYTES > free:
            raise ConfigError(
                f"The decoded cache does not fit: {said}, where {free / 1e9:.2f} GB are free",
                remedy="Free some space, pass another folder with --cache, or train without --decoded-cache.",
            )
        progress.note(f"Decoded cache: {said}; {free / 1e9:.0f} GB are free")

    def _open_shard(self, path: Path, *, verify: bool) -> None:
        try:
            index = read_sealed_json(path)
            content = np.memmap(path.with_suffix(".bin"), dtype=np.uint8, mode="r")
            if len(content) != index["bytes"] or (verify and _checksum(content) != index["crc32"]):
                raise ValueError("damaged")
            for sha256, start, height, width in index["images"]:
                self._places[sha256] = (content, start, height, width)
        except (DamagedError, OSError, ValueError, KeyError, TypeError):
            self._progress.warn(f"Decoded images in {path} are damaged or have no checksum: they are decoded again")
            with suppress(OSError):
                path.unlink(missing_ok=True)
                path.with_suffix(".bin").unlink(missing_ok=True)


def _reopened(folder: Path, enough_pixels: int) -> DecodedCache:
    return DecodedCache(folder, enough_pixels, verify=False)


def _stored_bytes(path: ImageAddress, enough_pixels: int) -> int:
    """What an image will take, told from its header."""
    try:
        width, height = stored_size(header_size(path), enough_pixels)
    except UnreadableImageError:
        return 0
    return 3 * width * height


def _checksum(content: NDArray[np.uint8]) -> int:
    value = 0
    for start in range(0, len(content), 1 << 24):
        value = zlib.crc32(content[start : start + (1 << 24)].data, value)
    return value


@contextmanager
def _writing(folder: Path) -> Iterator[_ShardWriter]:
    """Close the last shard however the writing ends, and keep what it holds; drop it where the disk is full."""
    writer = _ShardWriter(folder)
    try:
        yield writer
        writer.close()
    except OSError:
        writer.abandon()
        raise
    except BaseException:
        writer.close()
        raise


class _ShardWriter:
    """Appends images to a hidden file, which gets its name when it is whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.finished: list[Path] = []
        self._start()

    def _start(self) -> None:
        self._name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._temporary = self._folder / temporary_name(self._name)
        self._stream: Any = None
        self._images: list[tuple[str, int, int, int]] = []
        self._bytes, self._crc, self._since = 0, 0, time.monotonic()

    def add(self, sha256: str, pixels_HWC: NDArray[np.uint8]) -> None:
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream = self._temporary.open("xb")
        data = pixels_HWC.data.cast("B")
        self._stream.write(data)
        self._images.append((sha256, self._bytes, *pixels_HWC.shape[:2]))
        self._bytes += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._bytes >= SHARD_BYTES or time.monotonic() - self._since > SHARD_SECONDS:
            self.close()

    def close(self) -> None:
        """Give the shard its name, and begin another."""
        if self._stream is None:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        path = self._folder / f"{self._name}.json"
        with suppress(FileNotFoundError):  # another process deleted the cache: the images are read from their files
            self._temporary.replace(path.with_suffix(".bin"))
            write_sealed_json(path, {"bytes": self._bytes, "crc32": self._crc, "images": self._images})
            self.finished.append(path)
        self._start()

    def abandon(self) -> None:
        """Drop the shard that is not whole."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        self._temporary.unlink(missing_ok=True)
