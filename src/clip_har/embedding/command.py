"""`clip-har embed`: a part of the files of a folder of embeddings written, or all of them checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clip_har.cluster.session import check_engine
from clip_har.config import EmbedConfig, validate
from clip_har.embedding.encoders import Encoder, LocalEncoder
from clip_har.embedding.encoding import EmbeddingCounts, ShardEncoder, remove_stray_locks
from clip_har.embedding.images import NamedImages
from clip_har.embedding.job import JOB_FILE, Job, begin, described, read_job, require_same
from clip_har.embedding.parts import Part, parse_part
from clip_har.errors import ConfigError, MachineError, RunError
from clip_har.files import remove_stray_temporaries
from clip_har.images.parquet import load_pyarrow
from clip_har.images.remote import RemoteImage
from clip_har.progress import SILENT, Progress

_EXAMPLE = "Example: clip-har embed photos/ --out embeddings"


@dataclass(frozen=True, kw_only=True)
class CheckedFiles:
    """What a check found."""

    shards: int
    """Files of the whole job."""
    complete: int
    missing: int
    damaged: tuple[Path, ...]
    images: int
    """Images in complete files."""
    unreadable: int
    """How many of these cannot be read."""


def embed(
    images: Iterable[Path | RemoteImage],
    config: EmbedConfig,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress = SILENT,
) -> EmbeddingCounts:
    """Write the files of embeddings that are missing or damaged in a part of the work.

    Args:
        images: files, folders, patterns, URLs, tar shards and `STANDARD_INPUT`; see `NamedImages`.

    Raises:
        UserError: settings or model cannot be used, no image is given, or `config.out` has the files of another job.
    """
    part = _checked(config)
    listed = _listed(images, config, standard_input)
    count, names = listed.summary(progress)
    if not count:
        raise ConfigError("No image is named", remedy=_EXAMPLE)
    if (earlier := read_job(config.out)) is not None:  # refused before the model is loaded
        options = {"features": config.features, "dtype": config.dtype, "shard_size": config.shard_size}
        require_same(earlier, {"images": count, "names_sha256": names, **options})
    with _encoder(config, progress) as encoder:
        job = described(config, encoder.about, images=count, names=names)
        _prepare(job)
        return _write(job, part, listed, encoder, config, progress)


def check(
    images: Iterable[Path | RemoteImage],
    config: EmbedConfig,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress = SILENT,
) -> CheckedFiles:
    """Read every file of `config.out` and compare it with its checksum.

    Args:
        images: if there are any, they must be those that the files are of.

    Raises:
        UserError: there are no files of embeddings, or they are of other images.
    """
    _checked(config)
    job = read_job(config.out)
    if job is None:
        raise RunError(f"{config.out} has no {JOB_FILE}", remedy="Pass the --out of clip-har embed.")
    given = list(images)
    if given:
        count, names = _listed(given, config, standard_input).summary(progress)
        require_same(job, {"images": count, "names_sha256": names})
    missing, damaged, found = 0, list[Path](), EmbeddingCounts()
    with progress.bar("Checking files", total=job.shards, unit="files") as bar:
        for number in range(job.shards):
            try:
                info = job.info(number)
            except FileNotFoundError:
                missing += 1
            else:
                if info is None:
                    damaged.append(job.path(number))
                else:
                    found.add(info)
            bar.advance()
    return CheckedFiles(
        shards=job.shards,
        complete=job.shards - missing - len(damaged),
        missing=missing,
        damaged=tuple(damaged),
        images=found.embedded + found.unreadable,
        unreadable=found.unreadable,
    )


@contextmanager
def _encoder(config: EmbedConfig, progress: Progress) -> Iterator[Encoder]:
    if config.ray.engine == "local":
        yield LocalEncoder(config, progress)
        return
    from clip_har.embedding.on_ray import ray_encoder

    with ray_encoder(config, progress) as encoder:
        yield encoder


def _checked(config: EmbedConfig) -> Part:
    """What can be refused before anything slow."""
    validate(config)
    check_engine(config.ray)
    if config.out.exists() and not config.out.is_dir():
        raise ConfigError(f"--out {config.out} is a file", remedy="Pass a directory with --out.")
    load_pyarrow(config.out, "pyarrow.parquet", writing=True)
    return parse_part(config.part, os.environ)


def _listed(images: Iterable[Path | RemoteImage], config: EmbedConfig, standard_input: BinaryIO | None) -> NamedImages:
    return NamedImages(
        images, standard_input=standard_input, null=config.null, leave_out=[config.out], offline=config.offline
    )


def _prepare(job: Job) -> None:
    try:
        begin(job)
    except OSError as error:
        raise MachineError(
            f"--out {job.out} cannot be written to: {error.strerror or error}", remedy="Pass another --out."
        ) from error
    remove_stray_temporaries(job.out)
    remove_stray_locks(job.out)


def _write(
    job: Job, part: Part, listed: NamedImages, encoder: Encoder, config: EmbedConfig, progress: Progress
) -> EmbeddingCounts:
    wanted = part.shards(job.shards)
    if part.count > 1:
        progress.note(f"Part {part}: {len(wanted):,} of {job.shards:,} files")
    total = sum(job.rows(number) for number in wanted if not job.path(number).exists())
    with progress.bar("Embedding images", total=total, unit="images") as bar:
        writer = ShardEncoder(job, encoder, batch_size=config.encode_batch_size, progress=progress, bar=bar)
        writer.write(listed.in_shards(job.shard_size, wanted), total)
    writer.counts.part = str(part) if part.count > 1 else ""
    writer.counts.present = job.present()
    return writer.counts
