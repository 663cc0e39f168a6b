"""A fetched dataset of any form -> class folders under train/ and test/, by hard links where the disk has them.

Which image has which class was read by dataset/sources/.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clip_har.dataset.layout import FoundFile
from clip_har.errors import DataError, UnreadableImageError
from clip_har.files import folder_name, write_atomically
from clip_har.images import IMAGE_SUFFIXES, ImageAddress, sniff
from clip_har.progress import SILENT, Progress

UNLABELLED = ".unlabelled"
"""Folder of images without labels. It is hidden, and so no class."""

_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "HEIF": ".heic",
}


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """What is in the folder now."""

    labelled: int
    """Images in class folders."""
    unlabelled: int
    """Images in .unlabelled/."""
    copied: int
    """Files that had to be copied because the disk has no hard links."""


def arrange(
    files: Sequence[FoundFile], unlabelled: Sequence[FoundFile | Path], folder: Path, *, progress: Progress = SILENT
) -> Arranged:
    """Put every image where its class and split say; what is there already stays.

    Args:
        files: images with their classes; those without a split are training images.
        unlabelled: images for prediction only.
        folder: the dataset's folder.

    Raises:
        DataError: an image cannot be read out of the file that holds it.
        OSError: writing failed, as on a full disk.
    """
    copied = 0
    taken: set[Path] = set()
    with progress.bar("arranging", total=len(files) + len(unlabelled), unit="images") as bar:
        for file in files:
            target = folder / (file.split or "train") / _folder_name(file.label) / _file_name(file)
            copied += _place(file.path, _free(target, taken))
            bar.advance()
        for item in unlabelled:
            address, name = (item, item.name) if isinstance(item, Path) else (item.path, _file_name(item))
            copied += _place(address, _free(folder / UNLABELLED / name, taken))
            bar.advance()
    return Arranged(labelled=len(files), unlabelled=len(unlabelled), copied=copied)


def unlisted_images(folder: Path, listed: Sequence[FoundFile]) -> list[Path]:
    """Images that lie in a folder and that nothing gives a class, sorted."""
    known = {file.path for file in listed}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path not in known and not path.name.startswith(".")
        if "__MACOSX" not in path.parts
    )


def _free(target: Path, taken: set[Path]) -> Path:
    """The path, or one like it where another image has it: files of one name may come from several folders."""
    free, number = target, 1
    while free in taken:
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
    taken.add(free)
    return free


def _place(address: ImageAddress, target: Path) -> int:
    """Put one image into its place; returns 1 if a second copy of it had to be made."""
    if target.exists():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(address, Path):
        try:
            write_atomically(target, address.read())
        except UnreadableImageError as error:
            raise DataError(
                f"{address}: {error.reason}", remedy="Run the command again to download it again."
            ) from error
        return 0
    try:
        os.link(address, target)
        return 0
    except OSError:
        partial = target.with_name(f".{target.name}.part")
        try:
            shutil.copyfile(address, partial)
            partial.replace(target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        return 1


def _folder_name(label: str) -> str:
    """The class as a folder's name, from whatever a table called it."""
    name = folder_name(label)
    if not name:
        raise DataError(f"Invalid class name {label!r}", remedy="Download the archive from the dataset's own page.")
    return name


def _file_name(file: FoundFile) -> str:
    """The image's own name, or for one inside a larger file the names of both, with the suffix of its format."""
    if isinstance(file.path, Path):
        return file.path.name
    try:
        kind = sniff(file.path)
    except UnreadableImageError:
        kind = None
    stem, _, row = file.name.replace(".parquet", "").rpartition("/")
    return f"{stem.rpartition('/')[2]}-{row}{_SUFFIXES.get(kind or '', '.jpg')}"
