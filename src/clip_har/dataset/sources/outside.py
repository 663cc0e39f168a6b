"""Images that lie outside their dataset's folder, reached by symbolic links or by a table's paths.

The user's own data may be spread over disks, so they are counted and said. A dataset that was fetched comes from
strangers and needs none of them: there they are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clip_har.dataset.layout import printable
from clip_har.dataset.records import first_names
from clip_har.dataset.sources.base import Source
from clip_har.errors import DataError
from clip_har.images.addresses import file_of


def with_outside_said(source: Source, folder: Path, *, fetched: bool) -> Source:
    """The source, with a warning where images lie outside; of a table, where they all do, its form says it.

    Args:
        folder: the dataset's folder, without links in its path.
        fetched: whether the data came from `data fetch`.

    Raises:
        DataError: some lie outside, and the data was fetched.
    """
    outside = dict(_outside(source, folder))
    if not outside:
        return source
    names = first_names(outside)
    if fetched:
        raise DataError(
            f"{len(outside):,} images of {folder} are outside that folder, reached through links or a table's paths: "
            f"{names}",
            remedy="Downloaded data has no such images: delete the folder and download it again.",
        )
    place = printable(os.path.commonpath(outside.values()))
    if source.root.is_file() and len(outside) == len(source.files):
        return replace(source, form=f"{source.form}; all images are outside its folder, in {place}")
    said = (
        f"{len(outside):,} of {len(source.files):,} images are outside {folder}, reached through links or a table's "
        f"paths, in {place}: {names}"
    )
    return replace(source, warnings=(*source.warnings, said))


def _outside(source: Source, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each image that lies outside a folder, and the folder in which it does lie."""
    real_folders: dict[Path, Path] = {}
    is_inside: dict[Path, bool] = {}
    for image in source.files:
        file = file_of(image.path)
        if file.is_symlink():
            real = Path(os.path.realpath(file)).parent  # not Path.resolve, which raises for a loop
        else:
            if file.parent not in real_folders:
                real_folders[file.parent] = Path(os.path.realpath(file.parent))
            real = real_folders[file.parent]
        if real not in is_inside:
            is_inside[real] = real.is_relative_to(folder)
        if not is_inside[real]:
            yield image.name, str(real)
