"""What all files of a folder of embeddings have in common: model, options and images, in _embeddings.json.

It is written by whoever comes first and compared by all others. The files themselves are in files.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clip_har.config import EmbedConfig
from clip_har.embedding.encoders import EncoderInfo
from clip_har.embedding.files import ShardInfo, read_info
from clip_har.errors import RunError
from clip_har.images import PIXELS_VERSION
from clip_har.integrity import DamagedError, json_sha256, read_sealed_json, write_sealed_json

JOB_FILE = "_embeddings.json"
FORMAT = "clip-har-embeddings-1"
_SHARD_NAME = re.compile(r"embeddings-(\d{5,})\.parquet")
_OTHER_OUT = "or pass another --out"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A folder of embeddings."""

    out: Path
    content: dict[str, Any]
    """What _embeddings.json says."""

    @property
    def images(self) -> int:
        """How many images there are."""
        return int(self.content["images"])

    @property
    def shards(self) -> int:
        """How many files there are when all are written."""
        return -(-self.images // self.shard_size)

    @property
    def shard_size(self) -> int:
        """Images per file."""
        return int(self.content["shard_size"])

    @cached_property
    def sha256(self) -> str:
        """Digest of all that decides what is in the files. The model's name does not."""
        return json_sha256({key: value for key, value in self.content.items() if key != "model"})

    def path(self, number: int) -> Path:
        """The file with this number."""
        return self.out / f"embeddings-{number:05d}.parquet"

    def rows(self, number: int) -> int:
        """How many images the file with this number has."""
        return min(self.shard_size, self.images - number * self.shard_size)

    def info(self, number: int) -> ShardInfo | None:
        """What the file with this number says of itself; None if it is damaged, or not of this job.

        Raises:
            FileNotFoundError: there is no such file.
        """
        info = read_info(self.path(number))
        return info if info is not None and (info.job, info.rows) == (self.sha256, self.rows(number)) else None

    def present(self) -> int:
        """How many of the files are there; they are not read."""
        with os.scandir(self.out) as entries:
            matches = (_SHARD_NAME.fullmatch(entry.name) for entry in entries)
            return sum(int(match[1]) < self.shards for match in matches if match)


def described(config: EmbedConfig, about: EncoderInfo, *, images: int, names: str) -> Job:
    """The job that a command asks for.

    Args:
        about: what decides the features.
        names: SHA-256 over the images' names.
    """
    info = about.info
    content = {
        "format": FORMAT,
        "model": info.name,
        "weights_sha256": info.weights_hash,
        "activation": info.activation,
        "preprocessing": info.preprocessing.to_json(),
        "pixels_version": PIXELS_VERSION,
        "projection": info.projection,
        "precision": about.precision,
        "features": config.features,
        "widths": about.widths,
        "dtype": config.dtype,
        "shard_size": config.shard_size,
        "images": images,
        "names_sha256": names,
    }
    return Job(out=config.out, content=content)


def begin(job: Job) -> None:
    """Write _embeddings.json, or compare it with what an earlier or another command wrote there.

    Raises:
        RunError: that was another job.
    """
    if (earlier := read_job(job.out)) is None:
        write_sealed_json(job.out / JOB_FILE, job.content)
        earlier = read_job(job.out) or job
    require_same(earlier, job.content)


def read_job(out: Path) -> Job | None:
    """The job of a folder; None if the folder has none.

    Raises:
        RunError: its description is damaged, or of another version.
    """
    path = out / JOB_FILE
    try:
        content = read_sealed_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError as error:
        raise RunError(
            f"{path} is damaged",
            remedy="Remove it and run the same command again: finished files are kept if they are of the same images.",
        ) from error
    if content.get("format") != FORMAT:
        raise RunError(f"{path} was written by another version of clip-har", remedy="Pass another --out.")
    return Job(out=out, content=content)


def require_same(earlier: Job, now: dict[str, Any]) -> None:
    """Refuse to mix the files of two jobs.

    Args:
        now: what is known of the job that is asked for now; keys that are missing are not compared.

    Raises:
        RunError: they differ; it names the first difference.
    """
    before = earlier.content
    for key, value in now.items():
        if key == "model" or before.get(key) == value:
            continue
        difference, remedy = _difference(key, before, now)
        raise RunError(f"{earlier.out} has embeddings {difference}", remedy=f"{remedy}, {_OTHER_OUT}.")


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str]:
    if key == "weights_sha256":
        was, is_now = ((said.get("model"), str(said.get(key))[:12]) for said in (before, now))
        return f"of the model {was[0]} (weights {was[1]}), not of {is_now[0]} ({is_now[1]})", f"Pass --model {was[0]}"
    if key in ("images", "names_sha256"):
        return (
            f"of another list of images ({before.get('images'):,} images, now {now['images']:,})",
            "Pass the same images in the same order",
        )
    flag = f"--{key.replace('_', '-')}"
    if key in ("features", "dtype", "shard_size", "precision"):
        return f"with {flag} {before.get(key)}, not {now[key]}", f"Pass {flag} {before.get(key)}"
    return f"with another {key.replace('_', ' ')}", "Use the version of clip-har that wrote them"
