"""Which form a dataset has, guessed from what lies there; the first that fits, in the order written here.

How each form is read is in the module of its name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clip_har.dataset.layout import LAYOUT_REMEDY, find_layout, holds_images, unwrapped
from clip_har.dataset.records import first_names
from clip_har.dataset.sources import packed_tables
from clip_har.dataset.sources.base import Source
from clip_har.dataset.sources.class_folders import read_class_folders
from clip_har.dataset.sources.class_names import is_described
from clip_har.dataset.sources.listed import find_tables, names_what_exists, read_listed, read_listed_folder
from clip_har.dataset.sources.locating import is_fetched, locate
from clip_har.dataset.sources.outside import with_outside_said
from clip_har.dataset.sources.packed_tables import PACKED_TABLES, find_packed_tables, read_packed_tables
from clip_har.dataset.sources.shards import find_shards, read_shards
from clip_har.dataset.sources.tables import TEXT_TABLES
from clip_har.errors import DataError

FORMS_REMEDY = (
    f"{LAYOUT_REMEDY} Tables of paths and classes (CSV, TSV, JSON lines, Parquet), Hugging Face datasets and "
    "WebDataset shards can be loaded directly."
)


def find_source(data: Path, *, fetched: bool | None = None) -> Source:
    """Find out which form a dataset has, and list its images.

    Args:
        data: a folder, a file, or the name of a dataset that was fetched.
        fetched: whether it came from `data fetch`, so that images outside its folder are refused; None looks it up.

    Raises:
        DataError: there is nothing, it has no known form, or what is there cannot be used.
    """
    root = locate(data)
    if not root.exists():
        raise DataError(f"Dataset not found: {root}", remedy="Check --data.")
    root = root.resolve()
    folder = root if root.is_dir() else root.parent
    source = _folder_source(root) if root.is_dir() else _file_source(root)
    return with_outside_said(source, folder, fetched=is_fetched(folder) if fetched is None else fetched)


def _file_source(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in TEXT_TABLES:
        return read_listed(path)
    if suffix in PACKED_TABLES:
        if suffix == ".arrow" or packed_tables.holds_images(path):
            return read_packed_tables(path, [path])
        return read_listed(path)
    if suffix == ".tar":
        return read_shards(path, [path])
    raise DataError(
        f"{path} is a file, not a folder, and not a table or archive of a supported format", remedy=FORMS_REMEDY
    )


def _folder_source(root: Path) -> Source:
    """Tables whose images are there say what they mean; else folders of images; else what holds images itself."""
    levels = _levels(root)
    tables = next((found for level in levels if (found := find_tables(level))), [])
    if tables and names_what_exists(tables[0]):
        return read_listed_folder(tables[0].parent, tables)
    if holds_images(root):
        return _class_folders(root, tables)
    described = next((level for level in levels if is_described(level)), levels[-1])
    if packed := find_packed_tables(described):
        # A Parquet file may also be a table of paths.
        holding = [path for path in packed if packed_tables.holds_images(path)]
        return read_packed_tables(described, holding) if holding else read_listed_folder(described, packed)
    if shards := find_shards(levels[-1]):
        return read_shards(levels[-1], shards)
    if tables:
        return read_listed_folder(tables[0].parent, tables)
    return read_class_folders(root)


def _levels(root: Path) -> list[Path]:
    """A folder, and the folders that an archive may have been unpacked into, down to the one that holds something."""
    inner = unwrapped(root)
    return [root, *(root / part for part in _steps(inner.relative_to(root)))]


def _steps(path: Path) -> list[Path]:
    return [Path(*path.parts[: count + 1]) for count in range(len(path.parts))]


def _class_folders(root: Path, tables: list[Path]) -> Source:
    """Folders of images; where they are no classes, a table that names images elsewhere is what is wrong."""
    if tables:
        try:
            classes = find_layout(root).training_classes()
        except DataError:
            classes = {}
        if len(classes) < 2:
            return read_listed_folder(tables[0].parent, tables)
    source = read_class_folders(root)
    if not tables:
        return source
    unread = first_names(table.name for table in tables)
    warning = f"{unread} lists images that do not exist and was not read; the classes are those of the folders"
    return replace(source, warnings=(*source.warnings, warning))
