"""How long `data audit` takes on many small images, and how much memory it and its processes need.

    python benchmarks/audit_scale.py [--images 100000] [--workers 2] [--folder FOLDER]

Draws 160 x 120 JPEGs of coloured blobs in train/ and test/ of 15 classes. One in a hundred is a training image that
also lies in test, every second of these saved anew; one in a thousand ends early. Audits them without a model, once
with an empty cache and once with a full one, and says what was found beside what was planted. Memory is the sum of
the resident sizes of the command and its child processes, looked at ten times a second: an upper bound, since pages
that they share count several times. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 15
SIZE = (160, 120)
COPIES_EVERY, TRUNCATED_EVERY = 100, 1000
SAMPLING_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What was made wrong on purpose, in images."""

    leaks: int
    truncated: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where images and cache go; default: a folder that is removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        start = time.perf_counter()
        planted = draw(folder / "data", arguments.images)
        print(f"drew {arguments.images:,} images in {time.perf_counter() - start:.0f} s", flush=True)
        for cache in ("empty", "full"):
            seconds, peak_bytes = audit(folder, arguments.workers)
            rate = arguments.images / seconds
            print(
                f"cache {cache}: {seconds:.1f} s ({rate:.0f} images/s), peak memory {peak_bytes / 2**20:.0f} MiB",
                flush=True,
            )
        report(folder / "audit.json", planted)


def draw(data: Path, images: int) -> Planted:
    """Write the images, those that are there anew."""
    leaks = truncated = 0
    for number in range(images):
        is_test = number % 5 == 4
        place = data / ("test" if is_test else "train") / f"action {number // 5 % CLASSES:02d}" / f"{number:07d}.jpg"
        content = picture(number, quality=90)
        if number % TRUNCATED_EVERY == 500:
            content, truncated = content[: len(content) // 2], truncated + 1
        elif number % COPIES_EVERY == 0:
            copy = data / "test" / place.parent.name / f"copy of {number:07d}.jpg"
            write(copy, content if leaks % 2 else picture(number, quality=50))
            leaks += 1
        write(place, content)
    return Planted(leaks=leaks, truncated=truncated)


def picture(number: int, *, quality: int) -> bytes:
    """A JPEG of coloured blobs that no other number resembles."""
    coarse_HWC = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse_HWC).resize(SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def audit(folder: Path, workers: int) -> tuple[float, int]:
    """Run the command; seconds, and bytes at its peak."""
    command = [sys.executable, "-m", "clip_har", "data", "audit", str(folder / "data"), "--no-embeddings"]
    command += ["--workers", str(workers), "--cache", str(folder / "cache"), "--json", str(folder / "audit.json")]
    start, peak_bytes = time.perf_counter(), 0
    with (folder / "audit.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            peak_bytes = max(peak_bytes, sum(map(resident_bytes, family(process.pid))))
            time.sleep(SAMPLING_SECONDS)
    if process.returncode != 3:
        raise SystemExit(f"exit code {process.returncode}, not 3: see {folder / 'audit.log'}")
    return time.perf_counter() - start, peak_bytes


def family(pid: int) -> Iterator[int]:
    """A process and everything below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            yield from family(int(child))


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it has ended meanwhile
        return 0


def report(json_file: Path, planted: Planted) -> None:
    checks = json.loads(json_file.read_text(encoding="utf-8"))["checks"]
    print(f"leaks: {checks['leaks']['found']} found, {planted.leaks} planted")
    print(f"cut off: {checks['unreadable']['found']} found, {planted.truncated} planted")


if __name__ == "__main__":
    main()
