"""Images that end the process reading them: each is listed, the rest is read, and few processes are started for it."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_har.audit import fingerprints as module
from clip_har.audit.fingerprints import CRASHED, fingerprints
from clip_har.dataset import ImageRecord
from clip_har.errors import ConfigError


class Deadly(type(Path())):  # type: ignore[misc]
    """A path whose opening ends the process, as a decoder's crash would."""

    def stat(self, **_: Any) -> os.stat_result:
        os._exit(1)


def record(path: Path, number: int) -> ImageRecord:
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return ImageRecord(path=path, name=path.name, sha256=sha256, label="running", split="train")


def mixed(folder: Path, count: int, deadly: set[int]) -> list[ImageRecord]:
    """Records of images, those with the numbers in `deadly` ending their process."""
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 40), (number, 120, 30)).save(path)
    return [record(Deadly(path) if n in deadly else path, n) for n, path in enumerate(paths)]


def test_only_the_culprits_are_listed_and_each_costs_few_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []

    def counted(workers: int, **options: Any) -> Any:
        pools.append(workers)
        return ProcessPoolExecutor(workers, **options)

    monkeypatch.setattr(module, "ProcessPoolExecutor", counted)
    records = mixed(tmp_path, 40, {3, 36})
    prints = fingerprints(records, cache=tmp_path / "cache", workers=1)
    crashed = [number for number, row in enumerate(prints) if row["reason"] == CRASHED.encode()]
    assert crashed == [3, 36]
    assert (np.delete(prints["width"], crashed) == 40).all()
    # One for all, one to see that a process starts, and one for what is left after each culprit.
    assert pools == [1, 1, 1, 1, 1]


def test_a_crash_is_tried_again_next_time(tmp_path: Path) -> None:
    records = mixed(tmp_path, 2, {1})
    assert fingerprints(records, cache=tmp_path / "cache", workers=1)["reason"][1] == CRASHED.encode()
    kept = np.concatenate([np.load(path) for path in (tmp_path / "cache").rglob("*.npy")])
    assert kept["sha256"].tolist() == [records[0].sha256.encode()]
    mended = [records[0], record(Path(str(records[1].path)), 1)]
    assert fingerprints(mended, cache=tmp_path / "cache", workers=0)["reason"].tolist() == [b"", b""]


def test_processes_that_cannot_start_are_no_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverStarts(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: Any) -> None:
            super().__init__(workers)

        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenProcessPool())
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", NeverStarts)
    with pytest.raises(ConfigError, match=r"end as soon as they start\. Free memory, or .*--workers 0\."):
        fingerprints(mixed(tmp_path, 2, set()), cache=tmp_path / "cache", workers=1)
