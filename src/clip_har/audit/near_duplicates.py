"""Which images are copies of each other in all but their bytes: by perceptual hash, confirmed on a thumbnail.

Copies of equal bytes are found without this, by content hash; likeness by embedding is in embeddings.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_har.audit.fingerprints import THUMBNAIL_SIDE, Fingerprints, fingerprints
from clip_har.audit.hamming import Hashes, Indices, pairs_within
from clip_har.config import AuditSettings
from clip_har.dataset import ImageRecord
from clip_har.progress import SILENT, Progress

DISTANCE = AuditSettings().distance
"""Bits of 64 in which the hashes of two copies may differ."""
MIN_CORRELATION = 0.94
"""Pearson correlation of the 32 x 32 grey thumbnails from which a candidate counts as a copy."""
FLAT_DEVIATION = 3.0
"""Grey levels of 255: a thumbnail whose standard deviation is below shows nothing that could be compared."""
_BLOCK_PAIRS = 8192


class Groups:
    """A partition of N images that pairs are merged into."""

    def __init__(self, size: int) -> None:
        self.root_N: Indices = np.arange(size, dtype=np.int64)
        """Each image's group, named by its first image."""

    def merge(self, left: Indices, right: Indices) -> None:
        """Put the two images of every pair into one group."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(left):
            return
        ends = self.root_N[np.concatenate([left, right])]
        roots, places = np.unique(ends, return_inverse=True)
        edges = (np.ones(len(left), dtype=bool), (places[: len(left)], places[len(left) :]))
        _, part = connected_components(coo_array(edges, shape=(len(roots), len(roots))), directed=False)
        first = np.full(part.max() + 1, len(self.root_N), dtype=np.int64)
        np.minimum.at(first, part, roots)
        moved = np.arange(len(self.root_N), dtype=np.int64)
        moved[roots] = first[part]
        self.root_N = moved[self.root_N]

    def apart(self, left: Indices, right: Indices) -> NDArray[np.bool_]:
        """Whether the two images of each pair are in different groups so far."""
        return np.asarray(self.root_N[left] != self.root_N[right])


def near_duplicate_groups(
    records: Sequence[ImageRecord],
    *,
    cache: Path,
    workers: int,
    progress: Progress = SILENT,
    distance: int = DISTANCE,
) -> dict[str, str]:
    """Group the images that show the same picture: re-encoded, resized, brightened, mirrored, slightly cropped.

    Copies of a copy share its group. Images that cannot be decoded or are of one tone stand alone.

    Args:
        records: images; several of one content count once.
        cache: the cache folder, where fingerprints are kept by content hash.
        workers: processes; 0 works in this process.
        progress: shows a bar where images must be read.
        distance: bits in which the 64-bit hashes of copies may differ; see `DISTANCE`.

    Returns:
        Content hash -> the smallest content hash of its group, for every record; an image without copies is its
        own group.
    """
    unique = {record.sha256: record for record in records}
    ordered = [unique[sha256] for sha256 in sorted(unique)]
    prints = fingerprints(ordered, cache=cache, workers=workers, progress=progress)
    groups = group_fingerprints(prints, distance=distance)
    return {record.sha256: ordered[root].sha256 for record, root in zip(ordered, groups.root_N, strict=True)}


def group_fingerprints(prints: Fingerprints, *, distance: int = DISTANCE) -> Groups:
    """Group N fingerprints, of which the unreadable and the flat stand alone; see `near_duplicate_groups`."""
    groups = Groups(len(prints))
    comparable = np.flatnonzero((prints["reason"] == b"") & ~is_flat(prints))
    if not len(comparable):
        return groups
    shown = prints[comparable]
    for mirrored in (False, True):
        for left, right in _copies(shown, comparable, groups, distance, mirrored=mirrored):
            groups.merge(comparable[left], comparable[right])
    return groups


def is_flat(prints: Fingerprints) -> NDArray[np.bool_]:
    """Whether each image that could be decoded is of one tone all over: [N]."""
    thumbnails_NP = prints["thumbnail"].reshape(len(prints), THUMBNAIL_SIDE**2)
    flat_N = np.empty(len(prints), dtype=bool)
    for start in range(0, len(prints), _BLOCK_PAIRS):
        flat_N[start : start + _BLOCK_PAIRS] = thumbnails_NP[start : start + _BLOCK_PAIRS].std(axis=1) < FLAT_DEVIATION
    flat_N &= prints["reason"] == b""
    return flat_N


def correlations(left_BHW: NDArray[np.uint8], right_BHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pearson correlation of each pair of thumbnails: [B]. Blind to brightness and contrast, not to content."""
    left_BP, right_BP = (_standardised(thumbnails) for thumbnails in (left_BHW, right_BHW))
    correlation_B: NDArray[np.float32] = np.einsum("bp,bp->b", left_BP, right_BP)
    return correlation_B


def _standardised(thumbnails_BHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat_BP = thumbnails_BHW.reshape(len(thumbnails_BHW), THUMBNAIL_SIDE**2).astype(np.float32)
    flat_BP -= flat_BP.mean(axis=1, keepdims=True)
    flat_BP /= np.linalg.norm(flat_BP, axis=1, keepdims=True).clip(1e-6)
    return flat_BP


def _copies(
    prints: Fingerprints, names: Indices, groups: Groups, distance: int, *, mirrored: bool
) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs that are copies and not yet known to be of one group.

    A pair that its group already holds is not looked at again: so a thousand frames of one scene cost no million
    comparisons of thumbnails.
    """
    hashes: Hashes = prints["hash"]
    queries: Hashes = prints["mirrored"] if mirrored else hashes
    for candidates in pairs_within(queries, hashes, distance):
        waiting = candidates
        while len(waiting[0]):
            apart = groups.apart(names[waiting[0]], names[waiting[1]])
            waiting = waiting[0][apart], waiting[1][apart]
            left, right = waiting[0][:_BLOCK_PAIRS], waiting[1][:_BLOCK_PAIRS]
            waiting = waiting[0][_BLOCK_PAIRS:], waiting[1][_BLOCK_PAIRS:]
            shown = prints["thumbnail"][left]
            alike = correlations(shown[:, :, ::-1] if mirrored else shown, prints["thumbnail"][right])
            copies = alike >= MIN_CORRELATION
            yield left[copies], right[copies]
