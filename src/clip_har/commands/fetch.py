"""`data fetch`: download HAR, unpack it safely, check that it is HAR, arrange it, and remember where it is.

Each step is in download/; reading what was fetched is in dataset/.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clip_har.dataset.classes import spelling
from clip_har.dataset.label_checks import refuse_impossible_labels
from clip_har.dataset.layout import FoundFile
from clip_har.dataset.records import first_names
from clip_har.dataset.sources import Source, find_source, remember
from clip_har.download import (
    HAR_CLASSES,
    SOURCES,
    Arranged,
    FetchSource,
    arrange,
    download_hub,
    download_kaggle,
    unpack,
)
from clip_har.download.arranging import UNLABELLED, unlisted_images
from clip_har.errors import ConfigError, DataError
from clip_har.progress import SILENT, Progress

WORK = ".fetch"
"""Folder in --out for what is not finished; it goes when all is in place."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A dataset that is in place."""

    folder: Path
    arranged: Arranged
    note: Path
    """The file in the cache by which --data finds it."""


def fetch(name: str, source: str, out: Path, *, archive: Path | None = None, progress: Progress = SILENT) -> Fetched:
    """Fetch a dataset into a folder; the same call again continues where an earlier one stopped.

    Args:
        name: the dataset: har.
        source: kaggle, kaggle-structured or hub.
        out: the folder, which must be new, or hold what an earlier call left.
        archive: what was downloaded by hand; nothing is downloaded then.

    Raises:
        UserError: there is no such dataset or source, the folder is in use, the service refuses or cannot be reached,
            or what came is not HAR.
        OSError: writing failed, as on a full disk.
    """
    if name != "har":
        raise ConfigError(f"Unknown dataset {name!r}", remedy="Choose har.")
    offer = SOURCES[source]
    work = out / WORK
    _require_ours(out, work)
    work.mkdir(parents=True, exist_ok=True)
    folder = _downloaded(offer, work, archive, progress)
    found = find_source(folder, fetched=True)
    try:
        _require_har(found, archive or offer.handle)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    labelled, unlabelled = _without_placeholders(found, progress)
    arranged = arrange(labelled, [*unlabelled, *unlisted_images(folder, found.files)], out, progress=progress)
    shutil.rmtree(work)
    return Fetched(folder=out, arranged=arranged, note=remember(name, out))


def _require_ours(out: Path, work: Path) -> None:
    """Refuse a folder in which something else is."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", remedy="Pass a new folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise ConfigError(
            f"--out {out} is not empty", remedy="Pass a new folder, or delete this one to download again."
        )


def _downloaded(offer: FetchSource, work: Path, archive: Path | None, progress: Progress) -> Path:
    """The folder with what was downloaded, unpacked."""
    if not offer.on_kaggle:
        if archive is not None:
            raise ConfigError("--archive is for Kaggle's archives", remedy="Remove it, or choose another --source.")
        progress.note(f"Downloading {offer.handle} from the Hugging Face Hub")
        download_hub(offer, work / "hub", progress=progress)
        return work / "hub"
    folder, complete = work / "unpacked", work / "unpacked.complete"
    if complete.exists() and folder.is_dir():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    packed = archive or work / "archive"
    if archive is None:
        progress.note(f"Downloading {offer.handle} from Kaggle")
        download_kaggle(offer, packed, progress=progress)
    try:
        unpack(packed, folder, progress=progress)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # give the disk back what is of no use
        raise
    complete.touch()
    if archive is None:
        packed.unlink()
    return folder


def _require_har(found: Source, what: Path | str) -> None:
    """Refuse another dataset than HAR."""
    wanted = {spelling(name) for name in HAR_CLASSES}
    labels = {spelling(file.label): file.label for file in found.files if file.split in (None, "train")}
    missing = sorted(name for name in HAR_CLASSES if spelling(name) not in labels)
    strange = sorted(label for key, label in labels.items() if key not in wanted)
    if missing or strange:
        said = [f"it has no {first_names(missing)}"] if missing else []
        said += [f"it has {first_names(strange)}"] if strange else []
        raise DataError(f"{what} is not HAR: {' and '.join(said)}", remedy="Check --archive, or load it with --data.")


def _without_placeholders(found: Source, progress: Progress) -> tuple[list[FoundFile], list[FoundFile]]:
    """The images whose classes can be true, and those of a test split whose classes cannot."""
    for warning in found.warnings:
        progress.warn(warning)
    try:
        refuse_impossible_labels(found.root, found.files, None)
    except DataError as error:
        progress.warn(f"{error.what.rstrip('.')}; they go into {UNLABELLED}/")
        return (
            [file for file in found.files if file.split != "test"],
            [file for file in found.files if file.split == "test"],
        )
    return list(found.files), []
