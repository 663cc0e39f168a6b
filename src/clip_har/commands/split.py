"""`data split` and `data verify`: a manifest that can be published, and a copy of the data checked against one.

How groups are dealt out is in dataset/stratified_groups.py, which images are near-duplicates in audit/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip_har import wording
from clip_har.audit.near_duplicates import DISTANCE, near_duplicate_groups
from clip_har.commands.outputs import require_outside_dataset
from clip_har.config import SplitConfig, range_problems
from clip_har.config.data_commands import NEAR_DUPLICATES, NO_GROUPS
from clip_har.csv_cells import csv_text
from clip_har.dataset import (
    ActionDataset,
    ImageRecord,
    Verification,
    load_dataset,
    read_images,
    read_manifest,
    verify,
    write_manifest,
)
from clip_har.dataset.classes import class_warnings
from clip_har.dataset.group_tables import read_groups
from clip_har.dataset.groups import cut_folds, cut_groups, join_groups, joins_anything, leave_out_relatives
from clip_har.dataset.splits import cuts_for
from clip_har.errors import ConfigError, RunError
from clip_har.files import cache_folder, write_atomically
from clip_har.images.workers import worker_count
from clip_har.progress import SILENT, Progress

UNEVEN = 0.05
"""A class's share in a split that is further off than this is reported."""


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """What was written: one manifest, or one for each fold."""

    files: tuple[Path, ...]
    datasets: tuple[ActionDataset, ...]
    groups: int
    """Groups that hold several images."""
    grouped: int
    """Images in them."""


def split(data: Path, config: SplitConfig, *, progress: Progress = SILENT) -> Splitting:
    """Split a dataset and write its manifest, or one manifest per fold.

    Without groups of several images the split is the one that `train` would cut with the same fractions and seed.

    Args:
        data: the dataset's folder.

    Raises:
        UserError: the settings contradict each other, the data cannot be used, or another split is in `out`.
    """
    _validate(config)
    out = config.out
    require_outside_dataset(data, out=out)
    dataset = load_dataset(
        data,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        split_seed=config.seed,
        pooled=config.pool or config.folds is not None,
        set_aside=config.set_aside or (),
    )
    for warning in dataset.warnings:
        progress.warn(warning)
    if config.folds is not None and config.folds > len(dataset.records):
        raise ConfigError(
            f"--folds {config.folds} exceeds the number of images, {len(dataset.records)}", remedy="Use fewer --folds."
        )
    groups = _groups(dataset, config, progress)
    datasets = _folds(dataset, config, groups) if config.folds else [_single(dataset, config, groups, progress)]
    for made in datasets:
        for warning in (*class_warnings(made.records, made.classes), *_uneven_warnings(made, config, groups)):
            if warning not in dataset.warnings:
                progress.warn(warning)
    files = [out.with_name(f"{out.stem}-fold-{n}{out.suffix}") for n in range(1, len(datasets) + 1)]
    files = files if config.folds else [out]
    for path, made in zip(files, datasets, strict=True):
        _refuse_other_split(path, made)
    for path, made in zip(files, datasets, strict=True):
        write_manifest(made, path)
    sizes = Counter(groups[record.sha256] for record in dataset.records)
    several = [size for size in sizes.values() if size > 1]
    return Splitting(files=tuple(files), datasets=tuple(datasets), groups=len(several), grouped=sum(several))


def verify_manifest(data: Path, manifest: Path, *, out: Path | None = None) -> Verification:
    """Compare a copy of a dataset with a manifest, by content.

    Args:
        out: where a table of all that differs goes; None writes none.

    Raises:
        UserError: the manifest or the data cannot be read, or `out` lies in the data.
    """
    require_outside_dataset(data, out=out)
    rows = read_manifest(manifest)
    _, images, unreadable = read_images(data)
    verification = verify(rows, images, unreadable)
    if out is not None:
        write_atomically(out, csv_text(("finding", "path", "here", "sha256", "split"), verification.table()))
    return verification


def _single(
    dataset: ActionDataset, config: SplitConfig, groups: Mapping[str, str], progress: Progress
) -> ActionDataset:
    """One split, with the folders' own kept."""
    if not joins_anything(groups):
        return dataset
    kept, warnings = leave_out_relatives(dataset.records, groups, dataset.own_splits)
    for warning in warnings:
        progress.warn(warning)
    cuts = cuts_for(dataset.own_splits, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    return _with_records(dataset, cut_groups(kept, cuts, groups, [config.seed]))


def _folds(dataset: ActionDataset, config: SplitConfig, groups: Mapping[str, str]) -> list[ActionDataset]:
    assert config.folds is not None
    cuts = cut_folds(dataset.records, config.folds, config.val_fraction, groups, config.seed)
    return [_with_records(dataset, records) for records in cuts]


def _with_records(dataset: ActionDataset, records: Sequence[ImageRecord]) -> ActionDataset:
    return replace(dataset, records=tuple(records), warnings=())


def _groups(dataset: ActionDataset, config: SplitConfig, progress: Progress) -> dict[str, str]:
    """Content hash -> group, by everything that images are to be grouped by."""
    groupings: list[Mapping[str, str]] = []
    for source in config.group_by:
        if source == NO_GROUPS:
            continue
        if source == NEAR_DUPLICATES:
            groupings.append(_near_duplicates(dataset, config, progress))
            continue
        given, warnings = read_groups(Path(source), dataset.records)
        groupings.append(given)
        for warning in warnings:
            progress.warn(warning)
    return join_groups(dataset.records, groupings)


def _near_duplicates(dataset: ActionDataset, config: SplitConfig, progress: Progress) -> dict[str, str]:
    return near_duplicate_groups(
        dataset.records,
        cache=cache_folder(config.cache),
        workers=worker_count(config.workers),
        progress=progress,
        distance=DISTANCE if config.near_distance is None else config.near_distance,
    )


def _validate(config: SplitConfig) -> None:
    """Refuse settings that cannot work, all of them at once."""
    problems = list(range_problems(config))
    if config.near_distance is not None and NEAR_DUPLICATES not in config.group_by:
        problems.append("--near-distance requires --group-by near-duplicates")
    if NO_GROUPS in config.group_by and len(config.group_by) > 1:
        problems.append("--group-by none cannot be combined with other groups")
    if not config.group_by:
        problems.append("--group-by is empty")
    problems += [
        f"--group-by {source} is neither {NEAR_DUPLICATES} nor {NO_GROUPS} nor a file"
        for source in config.group_by
        if source not in (NEAR_DUPLICATES, NO_GROUPS) and not Path(source).is_file()
    ]
    if problems:
        raise ConfigError("; ".join(problems), remedy="See clip-har data split --help.")


def _refuse_other_split(path: Path, dataset: ActionDataset) -> None:
    """A manifest is kept once it is made: runs refer to it."""
    if path.is_file() and path.read_bytes() != dataset.manifest_csv().encode():
        raise RunError(
            f"{path} already exists and contains a different split", remedy="Choose another --out, or remove that file."
        )


def _uneven_warnings(dataset: ActionDataset, config: SplitConfig, groups: Mapping[str, str]) -> list[str]:
    """Classes whose share in a split is far from the one asked for, because groups are large or images few."""
    cuts = cuts_for(dataset.own_splits, val_fraction=config.val_fraction, test_fraction=config.test_fraction)
    if config.folds:
        cuts["test"] = 1 / config.folds
    grouped = any(size > 1 for size in Counter(groups[record.sha256] for record in dataset.records).values())
    warnings = []
    # What a split is cut out of: neither the folders' own splits nor those cut before it.
    totals = Counter(record.label for record in dataset.records if record.split == "train" or record.split in cuts)
    for name, wanted in cuts.items():
        counts = Counter(record.label for record in dataset.split(name))
        off = {label: counts[label] / totals[label] - wanted for label in totals}
        far = {
            label: abs(value)
            for label, value in off.items()
            if abs(value) > (max(UNEVEN, 1 / totals[label]) if grouped else UNEVEN)
        }
        if far:
            reason = "Groups are too large" if grouped else "Classes have too few images"
            worst = max(far, key=lambda label: far[label])
            warnings.append(
                f"{reason} for an even {name} split: {len(far)} of {len(off)} classes differ by more than "
                f"{100 * UNEVEN:.0f} percentage points from the requested {wanted:.1%}. The largest deviation is "
                f"{worst} with {counts[worst] / totals[worst]:.1%} "
                f"({counts[worst]} of {wording.counted(totals[worst], 'image')})"
            )
        totals.subtract(counts)
        totals = +totals
    return warnings
