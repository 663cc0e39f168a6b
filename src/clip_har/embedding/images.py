"""The images to embed, by name and place, as often as they are needed: what is in a tar shard is listed, too.

Files and folders are listed by images/listing.py.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from clip_har.dataset.sources.shards import images_of_shard
from clip_har.distributed import launched
from clip_har.errors import ConfigError
from clip_har.images.addresses import PackedImage
from clip_har.images.hashed_batches import Address
from clip_har.images.listing import ImageList
from clip_har.images.remote import RemoteImage, is_url, location
from clip_har.progress import SILENT, Progress

_TOLD_TOGETHER = 1000
_BLOCK_BYTES = 1 << 20


class NamedImages:
    """The images of a command in their order; a list on standard input is kept in a temporary file without a name.

    Args:
        given, standard_input, null: as for `ImageList`.
        leave_out: files and folders that are passed over where a folder holds them.
        offline: whether URLs are refused.
    """

    def __init__(
        self,
        given: Iterable[Path | RemoteImage],
        *,
        standard_input: BinaryIO | None = None,
        null: bool = False,
        leave_out: Sequence[Path] = (),
        offline: bool = False,
    ) -> None:
        given, self._offline = list(given), offline
        if offline and (remote := [image for image in given if isinstance(image, RemoteImage)]):
            raise _not_offline(remote[0].url)
        self._kept: BinaryIO | None = None
        if standard_input is not None:
            self._kept = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it ends with this object
            _copy(standard_input, self._kept)
        self._list = ImageList(given, standard_input=self._kept, null=null, leave_out=leave_out)

    def __iter__(self) -> Iterator[tuple[str, PackedImage | None]]:
        """Each image's name, and where it is in a tar shard; None for a file of its own.

        Raises:
            DataError: a tar shard cannot be read.
        """
        if self._kept is not None:
            self._kept.seek(0)
        for name in self._list.names():
            if self._offline and is_url(name):
                raise _not_offline(name)
            if name.lower().endswith(".tar") and Path(name).is_file():
                for member, packed in images_of_shard(Path(name)):
                    yield f"{name}/{member}", packed
            else:
                yield name, None

    def summary(self, progress: Progress = SILENT) -> tuple[int, str]:
        """How many there are, and the SHA-256 over their names in order. One pass over all."""
        digest, count = hashlib.sha256(), 0
        with progress.bar("Listing images", total=None, unit="images") as bar:
            names = (name for name, _ in self)
            while some := list(islice(names, _TOLD_TOGETHER)):
                digest.update(_joined(some))
                count += len(some)
                bar.advance(len(some))
        return count, digest.hexdigest()

    def in_shards(self, size: int, wanted: range) -> Iterator[tuple[int, list[tuple[str, Address]]]]:
        """The number and the images of each wanted shard of `size` images, in one pass over all."""
        images = iter(self)
        for number in range(wanted.stop):
            some = islice(images, size)
            if number in wanted:
                yield number, [(name, packed or location(name)) for name, packed in some]
            else:
                for _ in some:
                    pass


def _not_offline(url: str) -> ConfigError:
    return ConfigError(f"--offline does not allow {url}", remedy="Remove --offline, or download the images.")


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a list. The processes of torchrun have one standard input, of which each would read what others leave.

    Raises:
        ConfigError: they cannot all read it, because it is no file.
    """
    if not launched():
        shutil.copyfileobj(source, target)
        return
    if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
        raise ConfigError(
            "The processes of torchrun cannot all read a list from a pipe",
            remedy="Write it to a file: torchrun ... - < images.txt",
        )
    place = 0
    while block := os.pread(source.fileno(), _BLOCK_BYTES, place):  # leaves the place of the others as it is
        target.write(block)
        place += len(block)


def names_sha256(names: Sequence[str]) -> str:
    """SHA-256 in hex over names in their order."""
    return hashlib.sha256(_joined(names)).hexdigest()


def _joined(names: Iterable[str]) -> bytes:
    return b"".join(name.encode(errors="surrogateescape") + b"\0" for name in names)
