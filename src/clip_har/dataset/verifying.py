"""Which of a manifest's images are in a folder, by content; and a dataset that follows a manifest.

Reading the manifest's file is in manifests.py, reading the folder in layout.py and reading.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip_har.dataset.layout import FoundFile
from clip_har.dataset.manifests import ManifestRow, read_manifest
from clip_har.dataset.records import SPLITS, SplitName, UnreadableImage, first_names
from clip_har.errors import DataError

ENOUGH = 0.95
"""Share of a manifest's images that must be there to train or evaluate by it."""


@dataclass(frozen=True, kw_only=True)
class GivenManifest:
    """A manifest that decides which images a dataset has, and their classes and splits."""

    path: Path
    splits: Collection[SplitName] = SPLITS
    """The splits whose images are needed."""
    binding: bool = True
    """Whether to stop when too few of its images are there; otherwise it is then left aside."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a folder differs from a manifest."""

    rows: int
    """Images in the manifest."""
    in_place: int
    """Of these, those that lie under the manifest's own name."""
    moved: tuple[tuple[ManifestRow, str], ...]
    """Those under another name, with it."""
    relabelled: tuple[tuple[ManifestRow, str], ...]
    """Of those there, those whose folder says another class, with it."""
    altered: tuple[tuple[ManifestRow, str], ...]
    """Those whose name is there with other content, and what that is."""
    missing: tuple[ManifestRow, ...]
    """Those of which neither content nor name is there."""
    extra: tuple[str, ...]
    """Names of the images that the manifest does not have."""

    @property
    def complete(self) -> bool:
        """Whether every image of the manifest is there."""
        return not self.altered and not self.missing

    def lines(self) -> Iterator[str]:
        """Yield a line for each finding: how many images, and the first three."""
        yield f"In place: {self.in_place:,}"
        if self.moved:
            names = first_names(f"{row.name} is {here}" for row, here in self.moved)
            yield f"Under another name, of equal content: {len(self.moved):,} ({names})"
        if self.relabelled:
            names = first_names(f"{row.name}: {row.label}, here {label}" for row, label in self.relabelled)
            yield f"Of these, of another class than in the manifest, which counts: {len(self.relabelled):,} ({names})"
        if self.altered:
            names = first_names(f"{row.name}: {content}" for row, content in self.altered)
            yield f"Altered, of other content: {len(self.altered):,} ({names})"
        if self.missing:
            yield f"Missing: {len(self.missing):,} ({first_names(row.name for row in self.missing)})"
        if self.extra:
            yield f"Extra, not in the manifest and not used with it: {len(self.extra):,} ({first_names(self.extra)})"

    def table(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield what differs: finding, path in the manifest, what is here, SHA-256 and split in the manifest."""
        for row, here in self.moved:
            yield "moved", row.name, here, row.sha256, row.split
        for row, label in self.relabelled:
            yield "other class", row.name, label, row.sha256, row.split
        for row, content in self.altered:
            yield "altered", row.name, content, row.sha256, row.split
        for row in self.missing:
            yield "missing", row.name, "", row.sha256, row.split
        for name in self.extra:
            yield "extra", "", name, "", ""


def verify(
    rows: Sequence[ManifestRow], images: Sequence[FoundFile], unreadable: Sequence[UnreadableImage]
) -> Verification:
    """Compare a folder with a manifest, by content; names only tell a moved image from one in its place.

    Args:
        images: the folder's images, hashed.
        unreadable: its files that are no longer images.
    """
    pairs, missing, extra = _matched(rows, images)
    here = {image.name: f"SHA-256 {image.sha256[:12]}..." for image in extra}
    here |= {item.name: item.reason for item in unreadable}
    altered = [row for row in missing if row.name in here]
    altered_names = {row.name for row in altered}
    return Verification(
        rows=len(rows),
        in_place=sum(row.name == image.name for row, image in pairs),
        moved=tuple((row, image.name) for row, image in pairs if row.name != image.name),
        relabelled=tuple((row, image.label) for row, image in pairs if row.label != image.label),
        altered=tuple((row, here[row.name]) for row in altered),
        missing=tuple(row for row in missing if row.name not in here),
        extra=tuple(image.name for image in extra if image.name not in altered_names),
    )


def follow_manifest(
    images: Sequence[FoundFile], unreadable: Sequence[UnreadableImage], given: GivenManifest
) -> tuple[list[FoundFile], list[UnreadableImage], list[str]] | None:
    """The images of a manifest that are in a folder, with the manifest's classes and splits.

    Returns:
        These images, the manifest's that cannot be read, and what to warn about. None if the manifest is not binding
        and less than 95 % of its images are there.

    Raises:
        DataError: the file is not a manifest, or it is binding and less than 95 % of its images are there.
    """
    rows = read_manifest(given.path)
    pairs, missing, extra = _matched(rows, images)
    needed = sum(row.split in given.splits for row in rows)
    lacking = [row for row in missing if row.split in given.splits]
    if len(lacking) > (1 - ENOUGH) * needed or not pairs:
        if not given.binding:
            return None
        share = (needed - len(lacking)) / max(1, needed)
        raise DataError(
            f"{len(lacking):,} of the {needed:,} images of {given.path} are not in the data ({share:.1%} are, "
            f"{ENOUGH:.0%} are needed): {_by_split(lacking)}, such as {first_names(row.name for row in lacking)}",
            remedy="Pass the --data it was created from; clip-har data verify lists the differences.",
        )
    warnings = []
    if lacking:
        warnings.append(
            f"{len(lacking):,} of the {needed:,} images of {given.path} are not in the data "
            f"({_by_split(lacking)}): {first_names(row.name for row in lacking)}"
        )
    if extra:
        names = first_names(image.name for image in extra)
        warnings.append(f"{len(extra):,} images are not in {given.path} and were skipped: {names}")
    followed = [replace(image, label=row.label, split=row.split) for row, image in pairs]
    by_name = {row.name: row for row in missing}
    lost = [replace(item, split=by_name[item.name].split) for item in unreadable if item.name in by_name]
    return sorted(followed, key=lambda image: image.name), lost, warnings


def _matched(
    rows: Sequence[ManifestRow], images: Sequence[FoundFile]
) -> tuple[list[tuple[ManifestRow, FoundFile]], list[ManifestRow], list[FoundFile]]:
    """Pair rows with images of equal content: of the same name first, then of the same class, then in order.

    Returns:
        The pairs, the rows that are left, and the images that are left.
    """
    rows_of: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.name):
        rows_of[row.sha256].append(row)
    free: dict[str, list[FoundFile]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.name):
        free[image.sha256].append(image)
    pairs: list[tuple[ManifestRow, FoundFile]] = []
    missing: list[ManifestRow] = []
    for sha256, wanted in rows_of.items():
        here = free[sha256]
        for similar in (_same_name, _same_class, _same_content):
            left = []
            for row in wanted:
                found = next((image for image in here if similar(row, image)), None)
                if found is None:
                    left.append(row)
                else:
                    here.remove(found)
                    pairs.append((row, found))
            wanted = left
        missing += wanted
    extra = sorted((image for left in free.values() for image in left), key=lambda image: image.name)
    return pairs, sorted(missing, key=lambda row: row.name), extra


def _same_name(row: ManifestRow, image: FoundFile) -> bool:
    return row.name == image.name


def _same_class(row: ManifestRow, image: FoundFile) -> bool:
    return row.label == image.label


def _same_content(_row: ManifestRow, _image: FoundFile) -> bool:
    return True


def _by_split(rows: Sequence[ManifestRow]) -> str:
    counts = Counter(row.split for row in rows)
    return ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if counts[split])
