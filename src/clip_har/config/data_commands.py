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
    """`clip-har data fetch`: where from and where to."""

    source: HarSource = "kaggle"
    """kaggle: 12,600 labelled images, and unlabelled ones for predict. kaggle-structured: class folders with a
    test split. hub: Bingsu/Human_Action_Recognition on the Hugging Face hub, less its placeholder labels."""
    out: Path = Path("har")
    """A new folder for the images: train/CLASS/, and test/CLASS/ where there is a labelled test split."""
    archive: Path | None = None
    """The archive as downloaded from the dataset's Kaggle page in a browser; nothing is then downloaded."""


@Parameter(name="*", group=Group("What is looked for", sort_key=11))
@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What an audit looks for, and with which model."""

    embeddings: bool = True
    """Compare images and doubt labels with a model. --no-embeddings needs no model."""
    model: str | None = None
    """Backbone, named as for train. Default: ViT-B/32 if its weights are on this machine; otherwise images are
    compared by hashes only, without a download."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of the image tower; auto picks bfloat16 where the hardware has it."""
    encode_batch_size: WholeNumber = setting(64, BATCH)
    """Images per forward pass while embeddings are computed."""
    distance: WholeNumber = setting(10, within("[0, 16]"))
    """Bits of 64 in which the perceptual hashes of copies may differ; thumbnails must agree too. In [0, 16]."""
    similarity: float = setting(0.7, within("(0, 1]"))
    """Cosine of whitened features from which two images count as copies. In (0, 1]."""
    min_side: WholeNumber = setting(64, within(f"[1, {EXACT_SIDE}]"))
    """Pixels; an image with a shorter side is tiny. In [1, 128]."""
    max_aspect: float = setting(4.0, at_least(1))
    """Longer side over shorter, above which an image's shape is extreme. At least 1."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of the folds in which labels are examined."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that read images; -1 means one per core, 0 reads in the main process."""
    cache: Path | None = None
    """Folder of cached fingerprints and embeddings. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""


@Parameter(name="*", group=Group("Limits, above which the exit code is 3", sort_key=12))
@dataclass(frozen=True, kw_only=True)
class AuditLimits:
    """How many of each fault are allowed before the exit code says so: a number, or none for any number."""

    max_unreadable: int | None = setting(0, LIMIT)
    """Images that cannot be read or end early."""
    max_leaks: int | None = setting(0, LIMIT)
    """Images of train or val that are copies of images held out."""
    max_conflicts: int | None = setting(0, LIMIT)
    """Copies of one image under several classes."""
    max_duplicates: int | None = setting(0, LIMIT)
    """Images that are copies of another of their own split."""
    max_label_errors: int | None = setting(None, LIMIT)
    """Suspected label errors. Default: any number, since every model doubts some good labels."""
    max_odd: int | None = setting(None, LIMIT)
    """Tiny, extremely shaped, greyscale and one-tone images. Default: any number."""
    max_imbalance: int | None = setting(None, LIMIT)
    """Classes that are missing from a split or far smaller than others. Default: any number."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """`clip-har data audit`: what to look for, what is too much, and what to write."""

    settings: AuditSettings = field(default_factory=AuditSettings)
    limits: AuditLimits = field(default_factory=AuditLimits)
    json: Path | None = None
    """File for everything that was found, as JSON."""
    html: Path | None = None
    """File for one page with thumbnails to work through; its choices download as a plan for data clean."""


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """`clip-har data clean`: a plan, made by an audit or applied."""

    settings: AuditSettings | None = None
    plan: Path
    """CSV file, a row for each image: action keep, drop, relabel (new_class) or move (new_split), and reason."""
    out: Path | None = None
    """File for the manifest that the plan makes of the dataset; it loads as --data."""
    relabel_suspects: Annotated[bool, Parameter(negative="")] = False
    """Let the plan give suspected label errors the class that the model suggests."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """`clip-har data split`: how a dataset is split, and into which manifest."""

    out: Path = Path("manifest.csv")
    """The manifest. It must lie outside the dataset's folder; another split that is there is not overwritten."""
    folds: WholeNumber | None = setting(None, at_least(2))
    """K: write K manifests (manifest-fold-1.csv, ...), with each image in the test split of one of them. The data's own
    splits are set aside. Default: one manifest."""
    val_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Share of the training images held out to choose by. In (0, 0.5]."""
    test_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Share of all images held out for the final figures. In (0, 0.5]; folds test 1/K each."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of the cuts."""
    group_by: Names = (NEAR_DUPLICATES,)
    """Images that must share a split: near-duplicates; or a CSV with the columns path and group, for such as
    photographers or videos; or both, separated by a comma; or none, for the split that train makes by itself."""
    near_distance: WholeNumber | None = setting(None, from_to(0, 64, "bits"))
    """Bits of 64 in which the perceptual hashes of near-duplicates may differ. Default: the audit's."""
    pool: bool = False
    """Set the data's own splits aside, and cut test and val out of all images."""
    set_aside: SetAside | None = None
    """Splits of the data to leave out, images and all: test, val or both. Default: none."""
    cache: Path | None = None
    """Folder of cached perceptual hashes. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that look for near-duplicates; -1 means one per core."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """`clip-har data verify`: a manifest that a copy of the data is checked against."""

    manifest: Path
    """The manifest, as data split writes it."""
    out: Path | None = None
    """CSV to write of all that differs."""
    strict: bool = False
    """Exit with 3 also where the folder has images that the manifest does not."""
