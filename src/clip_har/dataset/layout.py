"""Where a dataset's class folders are, and which files lie in them.

Whether a file is an image is decided in reading.py; here a name is all that is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_har.dataset.records import SplitName, first_names
from clip_har.errors import DataError
from clip_har.images import IMAGE_SUFFIXES, ImageAddress

SPLIT_FOLDERS: Mapping[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "validationset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testingset"), "test"),
}
"""Folder name, in lower case and without spaces, hyphens and underscores -> the split it means."""

LAYOUT_REMEDY = "Pass a directory with one subdirectory of images per class, optionally under train/ and test/."
# What archives, systems and tools leave behind; names that start with a dot are ignored too.
_FOREIGN_FOLDERS = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """An image to be, with its class. `split` is that of its folder or table, None where there are no splits."""

    path: ImageAddress
    name: str
    label: str
    split: SplitName | None
    sha256: str = ""
    listed: bool = False
    """Whether a table or an archive says that it is an image, so that its name need not."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a dataset's class folders are, and what is odd about that."""

    root: Path
    class_folders: Mapping[SplitName | None, Sequence[Path]]
    """Split -> its class folders; the one key None where the dataset has no splits."""
    warnings: tuple[str, ...]

    def splits(self) -> frozenset[SplitName]:
        """The splits that the folders have; empty for none."""
        return frozenset(split for split in self.class_folders if split is not None)

    def training_classes(self) -> dict[str, str]:
        """Class -> its folder relative to the root, of the folders that training images come from."""
        folders = self.class_folders.get("train", self.class_folders.get(None, ()))
        return {printable(folder.name): printable(folder.relative_to(self.root).as_posix()) for folder in folders}

    def files(self) -> list[FoundFile]:
        """All files under the class folders that are not hidden, sorted by name."""
        found = [
            FoundFile(
                path=path,
                name=printable(path.relative_to(self.root).as_posix()),
                label=printable(folder.name),
                split=split,
            )
            for split, folders in self.class_folders.items()
            for folder in folders
            for path in _walk(folder)
        ]
        return sorted(found, key=lambda file: file.name)


def find_layout(root: Path) -> Layout:
    """Find the class folders of a dataset, below train/, val/ and test/ or without these.

    Raises:
        DataError: there are none, or what is there can be read in more than one way.
    """
    if not root.exists():
        raise DataError(f"Dataset not found: {root}", remedy="Check --data.")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder", remedy=LAYOUT_REMEDY)
    root = unwrapped(root.resolve())
    split_folders = _split_folders(root)
    class_folders: dict[SplitName | None, Sequence[Path]] = {}
    for split, folder in split_folders.items():
        class_folders[split] = _class_folders(folder)
    if not split_folders:
        class_folders[None] = _subfolders(root)
    if not any(class_folders.values()):
        raise DataError(f"{root} contains no class folders", remedy=LAYOUT_REMEDY)
    warnings = _outside_warnings(root, split_folders)
    return Layout(root=root, class_folders=class_folders, warnings=warnings)


# Which folder means what


def unwrapped(root: Path) -> Path:
    """The folder in which the classes or splits are: an archive may be unpacked into a folder of its own."""
    while True:
        folders = _subfolders(root)
        if len(folders) != 1 or _split_of(folders[0]) is not None:
            return root
        inside = _subfolders(folders[0])
        has_splits = any(_split_of(folder) is not None for folder in inside)
        if not inside or (_loose_images(folders[0]) and not has_splits):
            return root
        root = folders[0]


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """Split -> its folder; empty where the folders in the root are classes."""
    folders = _subfolders(root)
    named = [(split, folder) for folder in folders if (split := _split_of(folder)) is not None]
    others = [folder for folder in folders if _split_of(folder) is None and holds_images(folder)]
    with_classes = {split for split, folder in named if _subfolders(folder)}
    if others and not with_classes:  # a class may be called "training"
        return {}
    if others and len(with_classes) == 1:
        name = next(folder.name for _, folder in named if _subfolders(folder))
        raise DataError(
            f"{root} has {name}/ with subfolders and also images in {others[0].name}/: "
            "either could contain the classes",
            remedy="Move one of the two elsewhere.",
        )
    found: dict[SplitName, Path] = {}
    for split, folder in named:
        if split in found:
            raise DataError(
                f"{root} has both {found[split].name}/ and {folder.name}/ for the {split} split",
                remedy="Keep one of them.",
            )
        found[split] = folder
    return found


def _class_folders(split_folder: Path) -> list[Path]:
    folders = _subfolders(split_folder)
    if len(folders) == 1 and _split_of(folders[0]) == _split_of(split_folder) and _subfolders(folders[0]):
        folders = _subfolders(folders[0])  # train/train/, from an archive of its own for each split
    if not folders:
        holds = "contains images but no class folders" if _loose_images(split_folder) else "contains no class folders"
        raise DataError(
            f"{split_folder} {holds}",
            remedy="Sort its images into one subfolder per class, or move it elsewhere.",
        )
    return folders


def _outside_warnings(root: Path, split_folders: Mapping[SplitName, Path]) -> tuple[str, ...]:
    """What is next to the class folders and is not read."""
    loose = [path for folder in (root, *split_folders.values()) for path in _loose_images(folder)]
    beside = [folder for folder in _subfolders(root) if split_folders and _split_of(folder) is None]
    warnings = []
    if loose:
        names = first_names(printable(path.relative_to(root).as_posix()) for path in loose)
        warnings.append(f"{len(loose)} images are in no class folder and were skipped: {names}")
    with_images = [f"{printable(folder.name)}/" for folder in beside if holds_images(folder)]
    if with_images:
        warnings.append(f"Images outside the splits were skipped: {first_names(with_images)}")
    return tuple(warnings)


def _split_of(folder: Path) -> SplitName | None:
    return SPLIT_FOLDERS.get(re.sub(r"[\s_-]+", "", folder.name.lower()))


# Looking into folders


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, less hidden and foreign ones and links that lead back up."""
    return sorted(
        path
        for path in _entries(folder)
        if not _is_ignored(path.name)
        and path.is_dir()
        and not (path.is_symlink() and folder.resolve().is_relative_to(path.resolve()))
    )


def _loose_images(folder: Path) -> list[Path]:
    """The files directly in a folder that their name says are images."""
    return sorted(path for path in _entries(folder) if _is_named_as_image(path) and path.is_file())


def holds_images(folder: Path) -> bool:
    """Whether some file in a folder or below it is named as an image."""
    return any(_is_named_as_image(path) for path in _walk(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _cannot_list(error) from error


def _walk(folder: Path) -> Iterator[Path]:
    """Files in a folder and below it, each folder once however many links lead to it."""
    seen = {str(parent) for parent in folder.resolve().parents}  # a link back up would bring in other classes
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_raise_cannot_list):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_ignored(name))
        yield from (Path(where, name) for name in names if not _is_ignored(name))


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN_FOLDERS


def _is_named_as_image(path: Path) -> bool:
    return not _is_ignored(path.name) and path.suffix.lower() in IMAGE_SUFFIXES


def _cannot_list(error: OSError) -> DataError:
    return DataError(f"Cannot list {error.filename}: {error.strerror}", remedy="Check its permissions.")


def _raise_cannot_list(error: OSError) -> None:
    raise _cannot_list(error) from error


def printable(name: str) -> str:
    r"""A name that can be written as UTF-8: bytes that are not appear as \udcXX."""
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8")
