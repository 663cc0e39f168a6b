"""`predict --sort-into`: each image linked into the folder of its class. Nothing is overwritten, and nothing twice."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from clip_har.errors import ConfigError
from clip_har.experiment.prediction_rows import KnownRow
from clip_har.files import folder_name, temporary_name
from clip_har.wording import UNKNOWN, UNSURE

_LONGEST = 200
"""Bytes of a name: file systems take 255, and some is added."""


class SortedImages:
    """The folder with one folder per class in it.

    An image that is there already stays. Of several images of one name the first keeps it and each other one gets
    eight digits that follow from its path, so the same images have the same names each time.

    Args:
        folder: made if it is missing.
        classes: those that can be predicted.
        copies: copy the images, in place of a hard link or, across disks, a symbolic one.
    """

    def __init__(self, folder: Path, classes: Sequence[str], *, copies: bool = False) -> None:
        self.missing = 0
        """Images that were gone before they could be linked."""
        *names, self._unsure, self._unknown = folder_names((*classes, UNSURE, UNKNOWN))
        self._of_class = dict(zip(classes, names, strict=True))
        self._folder, self._copies = folder, copies
        _make(folder)

    def place(self, row: KnownRow) -> None:
        """Link the image of a row; one that could not be read is left where it is."""
        if row.unreadable:
            return
        name = self._unknown if row.unknown else self._unsure if row.unsure else self._of_class[row.label or ""]
        source = Path(row.image).resolve()  # a link to a link would break with the first
        target_folder = self._folder / name
        try:
            _make(target_folder)
            for target in _candidates(target_folder, Path(row.image).name, source):
                if self._is_there(source, target):
                    return
                with suppress(FileExistsError):  # another image's
                    self._put(source, target)
                    return
        except FileNotFoundError:
            if source.exists():
                raise
            self.missing += 1

    def _is_there(self, source: Path, target: Path) -> bool:
        with suppress(FileNotFoundError):
            return source.samefile(target) or (self._copies and filecmp.cmp(source, target, shallow=False))
        return False

    def _put(self, source: Path, target: Path) -> None:
        if not self._copies:
            try:
                os.link(source, target)
            except (FileExistsError, FileNotFoundError):
                raise
            except OSError:  # another disk, a disk without hard links, or a file of another user
                target.symlink_to(source)
            return
        partial = target.with_name(temporary_name(target.name[:100]))
        try:
            shutil.copy2(source, partial)
            try:
                os.link(partial, target)  # unlike a rename, it replaces nothing
            except FileExistsError:
                raise
            except OSError:
                if target.exists():
                    raise FileExistsError(target) from None
                partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"--sort-into needs the directory {folder}, which is a file", remedy="Pass another directory."
        ) from error


def folder_names(texts: Sequence[str]) -> list[str]:
    """A name for the folder of each text, different also where upper and lower case are the same."""
    names: dict[str, str] = {}
    for text in texts:
        name = _cut(folder_name(text)) or "_"
        numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
        free = next(each for each in numbered if each.casefold() not in names)
        names[free.casefold()] = free
    return list(names.values())


def _candidates(folder: Path, name: str, source: Path) -> Iterator[Path]:
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    digits = hashlib.sha256(os.fsencode(source)).hexdigest()[:8]
    yield folder / f"{_cut(stem)}-{digits}{suffix}"
    for number in count(2):
        yield folder / f"{_cut(stem)}-{digits}-{number}{suffix}"


def _cut(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_LONGEST]).strip(" ")
