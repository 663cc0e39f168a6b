"""Groups that the user knows of, such as the photographer or the video of each image: a CSV of path and group.

What is done with groups is in groups.py.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clip_har.csv_cells import true_cell
from clip_har.dataset.records import ImageRecord, first_names
from clip_har.errors import DataError

GROUP_COLUMNS = ("path", "group")


def read_groups(path: Path, records: Sequence[ImageRecord]) -> tuple[dict[str, str], list[str]]:
    """Groups of a CSV with the columns path and group, other columns aside.

    A path is that of an image under the dataset's folder, or as much of its end as tells it from all others.

    Returns:
        Content hash -> group for `join_groups`, and what to warn about. An image with an empty group, or without a
        line, is in none. Groups that hold copies of one image are one group.

    Raises:
        DataError: the file is not such a table, a path fits several images, or none fits any.
    """
    by_ending = _by_ending(records)
    group_of: dict[str, str] = {}
    same: dict[str, str] = {}
    strangers: list[str] = []
    grouped: set[str] = set()
    for line, name, group in _rows(path):
        wanted = _normalised(name)
        found = by_ending.get(wanted, [])
        exact = [record for record in found if record.name == wanted]
        if not found:
            strangers.append(name)
            continue
        if len(found) > 1 and len(exact) != 1:
            raise DataError(
                f"{path} line {line}: {name!r} may be any of {first_names(record.name for record in found)}",
                remedy="Use paths relative to the dataset directory.",
            )
        record = exact[0] if exact else found[0]
        grouped.add(record.name)
        if group:
            one, other = _root(group_of.setdefault(record.sha256, group), same), _root(group, same)
            if one != other:
                same[other] = one
    if not grouped:
        raise DataError(
            f"None of the {len(strangers):,} paths in {path} is an image of the dataset: {first_names(strangers)}",
            remedy="Use paths relative to the dataset directory.",
        )
    warnings = []
    if strangers:
        warnings.append(f"{len(strangers):,} paths in {path} are not images of the dataset: {first_names(strangers)}")
    without = [record.name for record in records if record.name not in grouped]
    if without:
        warnings.append(f"{len(without):,} images have no line in {path} and are in no group: {first_names(without)}")
    return {sha256: _root(group, same) for sha256, group in group_of.items()}, warnings


def _root(group: str, same: Mapping[str, str]) -> str:
    """The group that a group has become part of."""
    while group in same:
        group = same[group]
    return group


def _by_ending(records: Sequence[ImageRecord]) -> dict[str, list[ImageRecord]]:
    """Every ending of a name, from a folder on -> the images whose name ends so."""
    found: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        parts = record.name.split("/")
        for start in range(len(parts)):
            found["/".join(parts[start:])].append(record)
    return found


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    remedy = f"Write a CSV whose first line is {','.join(GROUP_COLUMNS)}."
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            header = [column.strip().lower() for column in next(rows, [])]
            if any(header.count(column) != 1 for column in GROUP_COLUMNS):
                raise ValueError("its first line does not contain the columns path and group")
            places = [header.index(column) for column in GROUP_COLUMNS]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"line {rows.line_num} has {len(row)} columns, not {len(header)}")
                name, group = (true_cell(row[place]).strip() for place in places)
                yield rows.line_num, name, group
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a table of groups: it is not UTF-8 text", remedy=remedy) from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a table of groups: {error}", remedy=remedy) from error


def _normalised(name: str) -> str:
    return re.sub(r"^(\./)+", "", name.replace("\\", "/"))
