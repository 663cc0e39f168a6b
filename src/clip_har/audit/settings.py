"""The settings of an audit: what counts as a fault, and how many of each are allowed.

How a command line becomes these is cyclopts' business; what they decide is in the modules that read them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from clip_har.audit.embeddings import SIMILARITY
from clip_har.audit.fingerprints import EXACT_SIDE
from clip_har.audit.near_duplicates import DISTANCE
from clip_har.config import Precision
from clip_har.config.ranges import MAX_BATCH, MAX_WORKERS
from clip_har.errors import ConfigError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What is looked for, and with which model."""

    embeddings: bool = True
    """Compare images and doubt labels with a model. --no-embeddings needs no model."""
    model: str | None = None
    """Backbone, named as for train. Default: ViT-B/32 if its weights are on this machine; otherwise images are
    compared by hashes only, without a download."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of the image tower; auto picks bfloat16 where the hardware has it."""
    encode_batch_size: int = 64
    """Images per forward pass while embeddings are computed."""
    distance: int = DISTANCE
    """Bits of 64 in which the perceptual hashes of copies may differ; thumbnails must agree too. In [0, 16]."""
    similarity: float = SIMILARITY
    """Cosine of whitened features from which two images count as copies. In (0, 1]."""
    min_side: int = 64
    """Pixels; an image with a shorter side is tiny. In [1, 128]."""
    max_aspect: float = 4.0
    """Longer side over shorter, above which an image's shape is extreme. At least 1."""
    seed: int = 0
    """Seed of the folds in which labels are examined."""
    workers: int = -1
    """Processes that read images; -1 means one per core, 0 reads in the main process."""
    cache: Path | None = None
    """Folder of cached fingerprints and embeddings. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""

    def validate(self) -> None:
        """Refuse values that cannot work, all at once.

        Raises:
            ConfigError: naming every setting that is out of its range.
        """
        problems = [
            f"--{name.replace('_', '-')} must be {wanted}, not {getattr(self, name)}"
            for name, (wanted, holds) in _RANGES.items()
            if not holds(getattr(self, name))
        ]
        if problems:
            raise ConfigError("; ".join(problems), remedy="See --help for what each flag means.")


_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "encode_batch_size": (f"from 1 to {MAX_BATCH}", lambda x: 1 <= x <= MAX_BATCH),
    "distance": ("in [0, 16]", lambda x: 0 <= x <= 16),
    "similarity": ("in (0, 1]", lambda x: 0 < x <= 1),
    "min_side": (f"in [1, {EXACT_SIDE}]", lambda x: 1 <= x <= EXACT_SIDE),
    "max_aspect": ("at least 1", lambda x: x >= 1),
    "workers": (f"from -1 to {MAX_WORKERS}", lambda x: -1 <= x <= MAX_WORKERS),
    "seed": ("from 0 to 4294967295", lambda x: 0 <= x < 2**32),  # what scikit-learn takes as a seed
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many of each fault are allowed before the exit code says so: a number, or none for any number."""

    max_unreadable: int | None = 0
    """Images that cannot be read or end early."""
    max_leaks: int | None = 0
    """Images of train or val that are copies of images held out."""
    max_conflicts: int | None = 0
    """Copies of one image under several classes."""
    max_duplicates: int | None = 0
    """Images that are copies of another of their own split."""
    max_label_errors: int | None = None
    """Suspected label errors. Default: any number, since every model doubts some good labels."""
    max_odd: int | None = None
    """Tiny, extremely shaped, greyscale and one-tone images. Default: any number."""
    max_imbalance: int | None = None
    """Classes that are missing from a split or far smaller than others. Default: any number."""

    def validate(self) -> None:
        """Refuse numbers below 0, all at once.

        Raises:
            ConfigError: naming every limit that is none.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        problems = [
            f"--{name.replace('_', '-')} must be at least 0, or none for any number, not {limit}"
            for name, limit in given.items()
            if limit is not None and limit < 0
        ]
        if problems:
            raise ConfigError("; ".join(problems), remedy="See --help for what each flag means.")
