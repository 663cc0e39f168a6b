"""Images that a table lists by path and class; Kaggle's flat form of HAR is such a table with a habit of its own.

Reading the table's file is in tables.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clip_har.dataset.layout import printable
from clip_har.dataset.records import SplitName, first_names
from clip_har.dataset.sources.base import Row, Source, source_of_rows, split_of_word, with_splits
from clip_har.dataset.sources.class_names import listed_names
from clip_har.dataset.sources.tables import (
    TEXT_TABLES,
    Table,
    guess_columns,
    has_rows,
    header_of,
    mixed_separators,
    read_table,
)
from clip_har.errors import DataError
from clip_har.images.addresses import ImageAddress, file_of, parse_address

KAGGLE_TRAINING, KAGGLE_TESTING = "training_set.csv", "testing_set.csv"
"""What Kaggle's flat form calls its tables, in lower case."""
_SAMPLE = 50


def read_listed(path: Path) -> Source:
    """Read one table of paths and classes; paths are relative to the table's folder.

    Raises:
        DataError: the table cannot be read, has no classes, or names files that do not exist.
    """
    path = path.resolve()
    table = read_table(path)
    _require_labels(table)
    rows = _rows(table, path.parent, _splits(table))
    return source_of_rows(path, _said(table), rows, class_names=listed_names(path.parent))


def read_listed_folder(root: Path, tables: Sequence[Path]) -> Source:
    """Read a folder with one table, or one table for each split (train.csv, test.csv).

    Raises:
        DataError: as for `read_listed`; or there are several tables and they are not of different splits.
    """
    if len(tables) == 1 and _is_kaggle(tables[0]):
        return _read_kaggle(root, tables[0])
    if len(tables) == 1:
        return replace(read_listed(tables[0]), root=root)
    pairs, warnings = with_splits(tables, root)
    splits = [split for _, split in pairs]
    if None in splits or len(set(splits)) < len(splits):
        names = first_names(table.name for table in tables)
        raise DataError(f"{root} has several tables of images: {names}", remedy="Pass one of them with --data.")
    rows: list[Row] = []
    for file, split in pairs:
        table = read_table(file)
        rows += _rows(table, root, [split] * len(table.rows))
    names = ", ".join(file.name for file, _ in pairs)
    form = f"tables of paths and classes ({names})"
    return source_of_rows(root, form, rows, class_names=listed_names(root), warnings=warnings)


def find_tables(root: Path) -> list[Path]:
    """The tables in a folder that name images and their classes, of Kaggle's flat form only the training table."""
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in TEXT_TABLES and path.is_file())
    files = [path for path in files if has_rows(path)]
    kaggle = [path for path in files if _is_kaggle(path)]
    return kaggle[:1] or [path for path in files if {"path", "label"} <= guess_columns(header_of(path)).keys()]


def names_what_exists(table: Path) -> bool:
    """Whether the images that a table names first are there."""
    try:
        sample = [name for name, _, _ in read_table(table).rows[:_SAMPLE]]
    except DataError:
        return False
    base = _base(table.parent, sample, None)
    return bool(sample) and all(_find(base, name) is not None for name in sample)


def _is_kaggle(path: Path) -> bool:
    return path.name.lower() == KAGGLE_TRAINING


def _read_kaggle(root: Path, training: Path) -> Source:
    """Training_set.csv over train/, and a test/ whose Testing_set.csv usually names files only."""
    table = read_table(training)
    _require_labels(table)
    rows = _rows(table, root, _splits(table))
    warnings = []
    testing = next((path for path in root.iterdir() if path.name.lower() == KAGGLE_TESTING), None)
    if testing is not None:
        held_out = read_table(testing)
        if "label" in held_out.columns:
            rows = [row if row.split else replace(row, split="train") for row in rows]
            rows += _rows(held_out, root, ["test"] * len(held_out.rows))
        else:
            warnings.append(
                f"{testing.name} gives its {len(held_out.rows):,} images no classes: test/ is only for clip-har "
                "predict, never for evaluation; the test split is created from the labelled images"
            )
    form = f"Kaggle's flat format ({training.name} with the columns {', '.join(table.columns.values())})"
    return source_of_rows(root, form, rows, class_names=listed_names(root), warnings=warnings)


def _said(table: Table) -> str:
    columns = ", ".join(f"{kind}: {column}" for kind, column in table.columns.items())
    return f"a table of paths and classes, {table.path.name} ({columns})"


def _require_labels(table: Table) -> None:
    if "label" not in table.columns:
        raise DataError(
            f"{table.path} has no class column (path column: {table.columns['path']})",
            remedy="Name it label; use clip-har predict for images without classes.",
        )


def _splits(table: Table) -> list[SplitName | None]:
    """The split of each row, where there is a column of splits."""
    words = {word for _, _, word in table.rows if word is not None}
    known = {word: split_of_word(word) for word in words}
    strange = sorted(word for word, split in known.items() if split is None)
    if strange:
        raise DataError(
            f"{table.path} has in its column {table.columns['split']} {first_names(map(repr, strange))}, "
            "which is not a split",
            remedy="Name the splits train, val and test, or leave the cell empty.",
        )
    return [known.get(word) if word is not None else None for _, _, word in table.rows]


def _rows(table: Table, folder: Path, splits: Sequence[SplitName | None]) -> list[Row]:
    bases: dict[SplitName | None, Path] = {}
    for split in set(splits):
        names = [row[0] for row, own in zip(table.rows, splits, strict=True) if own == split]
        bases[split] = _base(folder, names[:_SAMPLE], split)
    found: list[Row] = []
    missing: list[str] = []
    for (name, label, _), split in zip(table.rows, splits, strict=True):
        address = _find(bases[split], name) if name else None
        if address is None:
            missing.append(name or "(no name)")
            continue
        found.append(Row(address=address, name=_name(address, folder), label=label, split=split))
    if missing:
        raise DataError(
            f"{table.path} lists {len(missing):,} files of {len(table.rows):,} that do not exist: "
            f"{first_names(missing)} (looked for in {bases[splits[0]]})",
            remedy=mixed_separators(missing)
            or "Move the images to the listed paths (relative to the table's folder), or remove those lines.",
        )
    return found


def _base(folder: Path, names: Sequence[str], split: SplitName | None) -> Path:
    """The folder that the names are relative to: the one in which most of the first ones are."""
    return max(_bases(folder, split), key=lambda base: sum(_find(base, name) is not None for name in names))


def _bases(folder: Path, split: SplitName | None) -> Iterator[Path]:
    yield folder
    known: Mapping[str, Path] = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    for name in (split or "train", "images", "img", "data"):
        if name in known:
            yield known[name]


def _find(base: Path, name: str) -> ImageAddress | None:
    for text in dict.fromkeys((name, name.replace("\\", "/"))):
        if "\0" in text:
            continue
        try:
            address = parse_address(text, base)
            if file_of(address).is_file():
                return address
        except OSError:  # such as a name that is too long
            continue
    return None


def _name(address: ImageAddress, folder: Path) -> str:
    text = os.path.normpath(str(address))
    start = f"{folder}{os.sep}"
    return printable(Path(text.removeprefix(start)).as_posix())
