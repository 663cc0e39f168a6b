"""One small fixed-size record per image content: size, greyness, perceptual hashes, a 32 x 32 thumbnail.

Computed by worker processes and kept in the cache by content hash. What they are compared for is elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from clip_har.config.data_commands import EXACT_SIDE
from clip_har.dataset import ImageRecord
from clip_har.errors import ConfigError, UnreadableImageError
from clip_har.files import remove_stray_temporaries, unless_unwritable, write_atomically
from clip_har.images import decode
from clip_har.progress import SILENT, Progress

THUMBNAIL_SIDE = 32
FINGERPRINT = np.dtype(
    [
        ("sha256", "S64"),
        ("reason", "S160"),  # UTF-8; empty for an image that could be decoded
        ("width", "u4"),  # pixels, upright; exact below EXACT_SIDE, else perhaps of a JPEG decoded at a fraction
        ("height", "u4"),
        ("colour", "u1"),  # the largest spread between red, green and blue of any cell of the thumbnail
        ("hash", "u8"),
        ("mirrored", "u8"),  # the hash of the image as a mirror shows it
        ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
    ]
)
"""A fingerprint's fields; some 1.3 kB."""
Fingerprints = NDArray[np.void]
FORMAT = 1
SHARD_ROWS = 4096
"""Images per file of the cache: with SHARD_SECONDS, what a killed audit loses at most."""
SHARD_SECONDS = 20.0
_ENOUGH_PIXELS = 256 * 256
_TASK_IMAGES = 32
_TASKS_PER_WORKER = 4
CRASHED = "its decoder crashes or needs too much memory"


def fingerprints(
    records: Sequence[ImageRecord], *, cache: Path, workers: int, progress: Progress = SILENT
) -> Fingerprints:
    """The fingerprint of every record, computing those that the cache does not have.

    An image whose decoding ends its process costs that process, not the audit: it is listed with a reason.

    Args:
        records: N images; several of one content count once.
        cache: the cache folder.
        workers: processes; 0 computes in this process.
        progress: shows a bar where something must be computed.

    Returns:
        FINGERPRINT records [N], in the order of `records`.
    """
    store = _Store(cache / "fingerprints" / f"{FORMAT}-pillow-{PIL.__version__}", progress)
    wanted = {record.sha256: record for record in records}
    missing = [record for sha256, record in wanted.items() if sha256 not in store.places]
    if missing:
        _compute(missing, store, workers, progress)
    return store.rows([record.sha256 for record in records])


def perceptual_hash(thumbnail_HW: NDArray[Any]) -> int:
    """64-bit pHash of a 32 x 32 grey image: which of its 8 x 8 lowest DCT coefficients are above their median.

    The DCT hash of Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.
    """
    low_KK = _DCT_KN @ thumbnail_HW.astype(np.float64) @ _DCT_KN.T
    return int(np.packbits(low_KK.ravel() > np.median(low_KK)).view(">u8")[0])


def _dct_matrix(size: int, kept: int) -> NDArray[np.float64]:
    """The first rows of the orthonormal DCT-II: cos(pi k (2 n + 1) / 2N), scaled."""
    k, n = np.arange(kept)[:, None], np.arange(size)[None]
    matrix_KN: NDArray[np.float64] = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2 / size)
    matrix_KN[0] /= np.sqrt(2)
    return matrix_KN


_DCT_KN = _dct_matrix(THUMBNAIL_SIDE, 8)


def fingerprint(record: ImageRecord) -> Fingerprints:
    """One image's fingerprint, a record array [1]; what cannot be decoded has a reason and zeros."""
    row = np.zeros(1, dtype=FINGERPRINT)
    row["sha256"] = record.sha256.encode()
    try:
        image = decode(record.path, enough_pixels=_ENOUGH_PIXELS)
        if min(image.size) < EXACT_SIDE:  # decoded whole, so that its size is known
            image = decode(record.path)
    except UnreadableImageError as error:
        row["reason"] = _fitting(error.reason)
        return row
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = image.resize(side, Image.Resampling.BOX)
    cells_HWC = np.asarray(small).astype(np.int16)
    thumbnail_HW = np.asarray(small.convert("L"))
    row["width"], row["height"] = image.size
    row["colour"] = (cells_HWC.max(axis=-1) - cells_HWC.min(axis=-1)).max()
    row["hash"] = perceptual_hash(thumbnail_HW)
    row["mirrored"] = perceptual_hash(thumbnail_HW[:, ::-1])
    row["thumbnail"] = thumbnail_HW
    return row


def _fitting(reason: str) -> bytes:
    """The reason as UTF-8, cut between characters to what the field holds."""
    limit = FINGERPRINT["reason"].itemsize
    return reason.encode("utf-8", errors="backslashreplace")[:limit].decode("utf-8", errors="ignore").encode()


# Computing


def _compute(missing: Sequence[ImageRecord], store: _Store, workers: int, progress: Progress) -> None:
    tasks = [missing[start : start + _TASK_IMAGES] for start in range(0, len(missing), _TASK_IMAGES)]
    done = map(_fingerprint_task, tasks) if workers == 0 else _computed_by_processes(tasks, workers)
    pending: list[Fingerprints] = []
    since = time.monotonic()
    try:
        with progress.bar("Reading images", total=len(missing), unit="images") as bar:
            for rows in done:
                pending.append(rows)
                bar.advance(len(rows))
                if sum(map(len, pending)) >= SHARD_ROWS or time.monotonic() - since >= SHARD_SECONDS:
                    store.add(np.concatenate(pending))
                    pending, since = [], time.monotonic()
    finally:
        if pending:  # also when interrupted: what is computed is kept
            store.add(np.concatenate(pending))


def _fingerprint_task(records: Sequence[ImageRecord]) -> Fingerprints:
    return np.concatenate([np.zeros(0, dtype=FINGERPRINT), *(fingerprint(record) for record in records)])


def _computed_by_processes(tasks: Sequence[Sequence[ImageRecord]], workers: int) -> Iterator[Fingerprints]:
    """Yield every task's fingerprints; after a crash, those of the tasks it took down one image at a time."""
    waiting = deque(tasks)
    while waiting:
        lost: list[Sequence[ImageRecord]] = []
        yield from _until_crash(waiting, workers, lost, ahead=workers * _TASKS_PER_WORKER)
        if lost:
            _refuse_if_none_starts()
        suspects: deque[Sequence[ImageRecord]] = deque([record] for task in lost for record in task)
        while suspects:
            # One under way at a time, so that a crash says whose it is.
            culprits: list[Sequence[ImageRecord]] = []
            yield from _until_crash(suspects, 1, culprits, ahead=1)
            for (record,) in culprits:
                row = np.zeros(1, dtype=FINGERPRINT)
                row["sha256"], row["reason"] = record.sha256.encode(), CRASHED.encode()
                yield row


def _until_crash(
    waiting: deque[Sequence[ImageRecord]], workers: int, lost: list[Sequence[ImageRecord]], *, ahead: int
) -> Iterator[Fingerprints]:
    """Work `waiting` off with one pool of processes. If one dies, put the tasks under way into `lost` and end."""
    # Not forked: this process may have threads, whose locks a child would inherit locked.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    running: deque[tuple[Sequence[ImageRecord], Future[Fingerprints]]] = deque()
    try:
        while waiting or running:
            while waiting and len(running) < ahead:
                running.append((waiting[0], pool.submit(_fingerprint_task, waiting[0])))
                waiting.popleft()
            rows = running[0][1].result()
            running.popleft()
            yield rows
    except BrokenProcessPool:
        lost += [task for task, _ in running]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _refuse_if_none_starts() -> None:
    """Tell processes that cannot even start from those that an image ends.

    Raises:
        ConfigError: a process without an image to read dies too.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(_fingerprint_task, ()).result()
        except BrokenProcessPool as error:
            raise ConfigError(
                "The processes that read images end as soon as they start",
                remedy="Free memory, or read in the main process: --workers 0.",
            ) from error


# Keeping


class _Store:
    """Fingerprints on disk: immutable .npy files named by their content's hash, so that damage shows."""

    def __init__(self, folder: Path, progress: Progress = SILENT) -> None:
        self.folder = folder
        self._progress = progress
        remove_stray_temporaries(folder)
        self.shards: list[Fingerprints] = []
        self.places: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.npy")):
            self._open(path)

    def add(self, rows: Fingerprints) -> None:
        """Write a file of new fingerprints. A crash may have been this machine's memory: it is not kept."""
        lasting = rows[rows["reason"] != CRASHED.encode()]
        if len(lasting):
            content = io.BytesIO()
            np.save(content, lasting)
            name = hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()
            said = f"{self.folder} cannot be written to: new fingerprints are not cached"
            with unless_unwritable(self._progress.warn, said):
                write_atomically(self.folder / f"{name}.npy", content.getvalue())
        self._take_in(rows)

    def rows(self, hashes: Sequence[str]) -> Fingerprints:
        out = np.zeros(len(hashes), dtype=FINGERPRINT)
        places = np.array([self.places[sha256] for sha256 in hashes], dtype=np.int64).reshape(-1, 2)
        for number in np.unique(places[:, 0]):
            of_shard = places[:, 0] == number
            out[of_shard] = self.shards[number][places[of_shard, 1]]
        return out

    def _open(self, path: Path) -> None:
        try:
            if hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() != path.stem:
                path.unlink(missing_ok=True)  # its images are simply read again
                return
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError:  # deleted just now, or not to be read or changed
            return
        if rows.dtype == FINGERPRINT:
            self._take_in(rows)

    def _take_in(self, rows: Fingerprints) -> None:
        for row, sha256 in enumerate(rows["sha256"]):
            self.places[sha256.decode()] = (len(self.shards), row)
        self.shards.append(rows)


def unreadable_reasons(prints: Fingerprints) -> Mapping[str, str]:
    """Content hash -> reason, of the images that cannot be decoded."""
    bad = prints[prints["reason"] != b""]
    return {row["sha256"].decode(): row["reason"].decode("utf-8") for row in bad}
