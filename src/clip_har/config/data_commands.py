"""What each command of `clip-har data` is asked for: one keyword-only dataclass per command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from clip_har.config.converters import HarSource, Names, Precision, SetAside, WholeNumber
from clip_har.config.ranges import BATCH, SEED, WORKERS, Range, at_least, from_to, setting, within

NEAR_DUPLICATES, NO_GROUPS = "near-duplicates", "none"
EXACT_SIDE = 128
"""Pixels; the size of an image whose shorter side is below this is known exactly."""
LIMIT = Range("at least 0, or none for any number", lambda x: x >= 0)


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """`clip-har data fetch`: source and destination."""

    source: HarSource = "kaggle"
    """kaggle: 12,600 labelled images, plus unlabelled ones for predict. kaggle-structured: class folders with a test
    split. hub: Bingsu/Human_Action_Recognition on the Hugging Face Hub, without its placeholder test labels."""
    out: Path = Path("har")
    """New directory for the images: train/CLASS/, and test/CLASS/ if there is a labelled test split."""
    archive: Path | None = None
    """Archive downloaded from the dataset's Kaggle page in a browser. Nothing is then downloaded."""


@Parameter(name="*", group=Group("What is looked for", sort_key=11))
@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Checks of an audit and the model they use."""

    embeddings: bool = True
    """Find similar images and likely label errors with a model. --no-embeddings requires no model."""
    model: str | None = None
    """Backbone, as for train. Default: ViT-B/32 if its weights are on this machine; otherwise images are compared by
    hashes only, without a download."""
    device: str = "auto"
    """Device to run on: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Numerical precision of the image encoder. auto selects bfloat16 if the hardware supports it."""
    encode_batch_size: WholeNumber = setting(64, BATCH)
    """Images per forward pass when embeddings are computed."""
    distance: WholeNumber = setting(10, within("[0, 16]"))
    """Maximum Hamming distance between 64-bit perceptual hashes for two images to count as duplicates (thumbnails must
    also match). In [0, 16]."""
    similarity: float = setting(0.7, within("(0, 1]"))
    """Minimum cosine similarity of whitened features for two images to count as duplicates. In (0, 1]."""
    min_side: WholeNumber = setting(64, within(f"[1, {EXACT_SIDE}]"))
    """Minimum side in pixels; smaller images are reported. In [1, 128]."""
    max_aspect: float = setting(4.0, at_least(1))
    """Maximum aspect ratio (longer side over shorter side); more elongated images are reported. At least 1."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the cross-validation folds used to find label errors."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that read images. -1: one per core; 0: read in the main process."""
    cache: Path | None = None
    """Directory of cached fingerprints and embeddings. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""


@Parameter(name="*", group=Group("Limits, above which the exit code is 3", sort_key=12))
@dataclass(frozen=True, kw_only=True)
class AuditLimits:
    """Maximum number of findings of each kind before the exit code is 3: a number, or none for no limit."""

    max_unreadable: int | None = setting(0, LIMIT)
    """Unreadable or truncated images."""
    max_leaks: int | None = setting(0, LIMIT)
    """Train or val images that duplicate images of a held-out split."""
    max_conflicts: int | None = setting(0, LIMIT)
    """Duplicates with different classes."""
    max_duplicates: int | None = setting(0, LIMIT)
    """Duplicates within a split."""
    max_label_errors: int | None = setting(None, LIMIT)
    """Likely label errors. Default: no limit, because every model also flags some correct labels."""
    max_odd: int | None = setting(None, LIMIT)
    """Outlier images: tiny, extreme aspect ratio, greyscale or single-colour. Default: no limit."""
    max_imbalance: int | None = setting(None, LIMIT)
    """Classes that are missing from a split or far smaller than others. Default: no limit."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """`clip-har data audit`: checks, limits and output files."""

    settings: AuditSettings = field(default_factory=AuditSettings)
    limits: AuditLimits = field(default_factory=AuditLimits)
    json: Path | None = None
    """JSON file for all findings."""
    html: Path | None = None
    """HTML page with thumbnails for reviewing the findings. It exports your decisions as a plan for data clean."""


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """`clip-har data clean`: a plan, created by an audit or applied."""

    settings: AuditSettings | None = None
    plan: Path
    """CSV file with one row per image: action keep, drop, relabel (new_class) or move (new_split), and reason."""
    out: Path | None = None
    """Manifest to write by applying the plan. It can be passed as --data."""
    relabel_suspects: Annotated[bool, Parameter(negative="")] = False
    """Relabel likely label errors in the plan with the class that the model suggests."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """`clip-har data split`: how a dataset is split, and the manifest to write."""

    out: Path = Path("manifest.csv")
    """Manifest to write. It must be outside the dataset directory. An existing manifest with a different split is not
    overwritten."""
    folds: WholeNumber | None = setting(None, at_least(2))
    """Number of folds K: writes K manifests (manifest-fold-1.csv, ...), each image in the test split of one of them.
    The dataset's own splits are ignored. Default: one manifest."""
    val_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Fraction of the training images to use for validation. In (0, 0.5]."""
    test_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Fraction of all images to use for testing. In (0, 0.5]. With --folds it is 1/K."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the split."""
    group_by: Names = (NEAR_DUPLICATES,)
    """Images that must stay in the same split: near-duplicates; a CSV with the columns path and group, e.g.
    photographers or videos; both, comma-separated; or none, for the split that train creates by default."""
    near_distance: WholeNumber | None = setting(None, from_to(0, 64, "bits"))
    """Maximum Hamming distance between 64-bit perceptual hashes for two images to count as near-duplicates. Default: as
    in the audit."""
    pool: bool = False
    """Ignore the dataset's own splits and create test and val from all images."""
    set_aside: SetAside | None = None
    """Existing splits whose images are excluded: test, val or both. Default: none."""
    cache: Path | None = None
    """Directory of cached perceptual hashes. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that look for near-duplicates. -1: one per core."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """`clip-har data verify`: the manifest to check a copy of the data against."""

    manifest: Path
    """Manifest written by clip-har data split."""
    out: Path | None = None
    """CSV file to write with all differences."""
    strict: bool = False
    """Also exit with 3 if the dataset has images that are not in the manifest."""
