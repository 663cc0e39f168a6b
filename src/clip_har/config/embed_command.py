"""What `clip-har embed` is asked for; the other commands are in commands.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from clip_har.config.converters import Precision, WholeNumber
from clip_har.config.groups import DEFAULT_MODEL, RayConfig
from clip_har.config.ranges import BATCH, WORKERS, from_to, setting

EmbeddedFeatures = Literal["embedding", "hidden", "both"]
EmbeddedType = Literal["float32", "float16"]
MAX_SHARD_SIZE = 100_000


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """`clip-har embed`: embeddings of any number of images, in Parquet files of --shard-size rows."""

    out: Path
    """Directory to write. Run the same command again to continue after an interruption."""
    model: str = DEFAULT_MODEL
    """Backbone, as for train, or the folder of a run whose fine-tuned image encoder is used."""
    part: str | None = None
    """Part of the work that this command does, I/N with I from 0 to N-1: every N-th file, starting with file I. auto
    reads I and N from a SLURM array or torchrun; auto/N reads only I, from a SLURM array or an indexed Kubernetes job.
    Default: all of it."""
    shard_size: WholeNumber = setting(1000, from_to(1, MAX_SHARD_SIZE))
    """Images per file."""
    features: EmbeddedFeatures = "embedding"
    """What to write: embedding (unit length), hidden (the features before the projection), or both."""
    dtype: EmbeddedType = "float32"
    """Number format of the written features."""
    check: Annotated[bool, Parameter(negative="")] = False
    """Only check which files in --out are complete, and list the others. Exit code 3 if any is missing or damaged."""
    null: Annotated[bool, Parameter(alias="-0", negative="")] = False
    """Paths on standard input end with NUL instead of a line break, as written by find -print0."""
    device: str = "auto"
    """Device to run on: auto, cpu, cuda, cuda:1, mps. Under torchrun, auto takes one GPU for each process."""
    precision: Precision = "auto"
    """Numerical precision of the image encoder. auto selects bfloat16 if the hardware supports it. Set it if the
    machines that share the work differ."""
    encode_batch_size: WholeNumber = setting(64, BATCH)
    """Images per forward pass. Another value changes the rounding of embeddings."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that decode images. -1: one per core, shared by the processes of torchrun; 0: decode
    in the main process."""
    offline: bool = False
    """Never download pretrained weights; use only those on this machine."""
    ray: RayConfig = field(default_factory=RayConfig)
