"""`clip-har embed`: a part of the files of a folder of embeddings written, or all of them checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from clip_har.backbone import Backbone
from clip_har.config import EmbedConfig, validate
from clip_har.embedding.encoding import EmbeddingCounts, ShardEncoder, remove_stray_locks
from clip_har.embedding.images import NamedImages
from clip_har.embedding.job import JOB_FILE, Job, begin, described, read_job, require_same
from clip_har.embedding.parts import Part, parse_part
from clip_har.errors import ConfigError, MachineError, ModelError, RunError
from clip_har.files import remove_stray_temporaries
from clip_har.fusion import part_names
from clip_har.images.parquet import load_pyarrow
from clip_har.images.workers import worker_count
from clip_har.progress import SILENT, Progress
from clip_har.tuned_models import load_given

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
    images: Iterable[Path],
    config: EmbedConfig,
    *,
    standard_input: BinaryIO | None = None,
    progress: Progress = SILENT,
) -> EmbeddingCounts:
    """Write the files of embeddings that are missing or damaged in a part of the work.

    Args:
        images: files, folders, patterns, tar shards and `STANDARD_INPUT`; see `NamedImages`.

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
    backbone = load_encoder(
        config.model, device=config.device, precision=config.precision, offline=config.offline, progress=progress
    )
    widths = feature_widths(backbone, config.features)
    job = described(config, backbone, widths=widths, images=count, names=names)
    _prepare(job)
    return _write(job, part, listed, backbone, config, progress)


def check(
    images: Iterable[Path],
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


def load_encoder(model: str, *, device: str, precision: str, offline: bool, progress: Progress) -> Backbone:
    """The model to embed with; under torchrun on the GPU of this process.

    Raises:
        UserError: as for `load_given`; or several models are combined.
    """
    if len(part_names(model)) > 1:
        raise ModelError(
            f"--model {model} combines several models", remedy="Embed with each of them, into directories of their own."
        )
    own = os.environ.get("LOCAL_RANK", "")
    if device == "auto" and own.isdecimal() and torch.cuda.is_available():
        device = f"cuda:{int(own) % torch.cuda.device_count()}"
    backbone = load_given(model, device=device, precision=precision, local_only=offline)  # type: ignore[arg-type]
    for note in backbone.notes:
        progress.note(note)
    return backbone


def feature_widths(backbone: Backbone, features: str) -> dict[str, int]:
    """How many numbers each kind of feature has that is asked for.

    Raises:
        ModelError: the image encoder has no features before a projection.
    """
    height, width = backbone.info.preprocessing.image_size
    blank = backbone.encode_images(torch.zeros(1, 3, height, width))
    kinds = ("embedding", "hidden") if features == "both" else (features,)
    if "hidden" in kinds and blank.hidden_BH is None:
        raise ModelError(
            f"The image encoder of {backbone.info.name} has no features before a projection",
            remedy="Pass --features embedding.",
        )
    found = {"embedding": blank.embedding_BD, "hidden": blank.hidden_BH}
    return {kind: tensor.shape[1] for kind, tensor in found.items() if kind in kinds and tensor is not None}


def _checked(config: EmbedConfig) -> Part:
    """What can be refused before anything slow."""
    validate(config)
    if config.out.exists() and not config.out.is_dir():
        raise ConfigError(f"--out {config.out} is a file", remedy="Pass a directory with --out.")
    load_pyarrow(config.out, "pyarrow.parquet", writing=True)
    return parse_part(config.part, os.environ)


def _listed(images: Iterable[Path], config: EmbedConfig, standard_input: BinaryIO | None) -> NamedImages:
    return NamedImages(images, standard_input=standard_input, null=config.null, leave_out=[config.out])


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
    job: Job, part: Part, listed: NamedImages, backbone: Backbone, config: EmbedConfig, progress: Progress
) -> EmbeddingCounts:
    wanted = part.shards(job.shards)
    if part.count > 1:
        progress.note(f"Part {part}: {len(wanted):,} of {job.shards:,} files")
    total = sum(job.rows(number) for number in wanted if not job.path(number).exists())
    with progress.bar("Embedding images", total=total, unit="images") as bar:
        encoder = ShardEncoder(
            job,
            backbone,
            batch_size=config.encode_batch_size,
            workers=_workers(config.workers, total, config.encode_batch_size),
            progress=progress,
            bar=bar,
        )
        encoder.write(listed.in_shards(job.shard_size, wanted))
    encoder.counts.part = str(part) if part.count > 1 else ""
    encoder.counts.present = job.present()
    return encoder.counts


def _workers(asked: int, images: int, batch_size: int) -> int:
    """Processes that decode: one per core, which the processes of torchrun share; no more than there are batches."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    count = worker_count(asked)
    if asked < 0 and local.isdecimal():
        count = max(1, count // max(1, int(local)))
    return min(count, -(-images // batch_size))
