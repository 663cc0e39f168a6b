"""What each command is asked for: one keyword-only dataclass per command. Flags and config keys have the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clip_har.config.converters import (
    CORRUPTION_KINDS,
    AutoBudget,
    Budget,
    Corruptions,
    Features,
    MethodName,
    MethodNames,
    Names,
    PlaneMethod,
    Precision,
    PresetName,
    Seeds,
    Severities,
    Shots,
    WholeNumber,
)
from clip_har.config.groups import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EngineConfig,
    LoraConfig,
    OptimizerConfig,
    RunModelConfig,
)
from clip_har.config.ranges import (
    BATCH,
    NOT_EMPTY,
    POSITIVE,
    SEED,
    SHOTS,
    WORKERS,
    at_least,
    each,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`clip-har train`: one method, one run folder."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodName = "lora"
    """Fine-tuning method, or the name of a preset (docs/methods/index.md)."""
    preset: PresetName | None = None
    """Preset of settings that ships with the package, such as augmented. Equivalent to passing its name with
    --method."""
    budget: AutoBudget | None = None
    """Time that auto may take for training: seconds (a minute), minutes (ten) or hours (four). Default: minutes."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    """Run folder whose weights wise-ft interpolates with the zero-shot weights."""
    members: Names | None = None
    """What ensemble or soup combines: run folders or methods, comma-separated. Default: gda,ridge,proker; for
    soup full,two-tier."""
    shots: WholeNumber | None = setting(None, at_least(1))
    """Few-shot training: images per class, sampled with the seed; validation then uses at most four per class. Default:
    all."""
    features: Features | None = None
    """Cached features that lora, clip-adapter, tip-adapter, proker and clap adapt: embedding, or pre-projection (the
    image features before the projection to embeddings, centred, which tell more classes apart). Default:
    pre-projection."""
    refit: bool | None = None
    """Choose settings by cross-validation, then fit on the training and validation images together (gda, ridge,
    linear-probe, proker, clap). Use --no-refit if your images come in groups, such as frames of one video, that your
    val split keeps apart. Default: yes; with --shots no. Methods that train an encoder (full, two-tier, lp-ft,
    lora-attention) train twice with --refit: first to choose the epoch, then on both together. Default for them: no."""
    hold_out: Names | None = None
    """Classes to exclude from training and to evaluate as unseen classes: names, comma-separated, or how many to sample
    with --split-seed. Default: none."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of initialisation, batch order, augmentation and dropout."""
    out: Path | None = None
    """Run folder to write. Default: runs/METHOD, then runs/METHOD-2, and so on."""
    resume: bool = False
    """Resume the interrupted run in --out, or start it if there is nothing to resume."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """`clip-har evaluate`: a run, or the zero-shot baseline alone, on the test split."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    checkpoint: Path | None = None
    """Run folder, or a file inside it. Without it, only the zero-shot baseline is evaluated."""
    out: Path | None = None
    """Output directory. Default: eval/ in the run folder, or eval/ in the working directory for the baseline alone."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the bootstrap and of the corruptions and their image sample."""
    robustness: bool = False
    """Also evaluate on corrupted test images."""
    corruptions: Corruptions = setting(CORRUPTION_KINDS, NOT_EMPTY)
    """Corruption types to apply, comma-separated."""
    severities: Severities = (1, 2, 3, 4, 5)
    """Corruption severities from 1 to 5, comma-separated."""
    robustness_images: WholeNumber = setting(500, at_least(0))
    """Number of test images to corrupt: a stratified sample drawn with --seed. 0: all."""
    shift: Path | None = None
    """Second dataset with the same class names, to measure accuracy under distribution shift."""
    explain: WholeNumber = setting(0, at_least(0))
    """Number of test images to explain in the report, the most informative first. Adds a map of all embeddings."""
    audit: Path | None = None
    """JSON file written by clip-har data audit for the same data. Its counts are added to the report."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """`clip-har compare`: several methods under one protocol."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    models: Names | None = setting(None, NOT_EMPTY)
    """Pretrained models to compare instead of the one of --model, comma-separated, named as for --model. Each is
    compared in a directory of its own in --out; the report there shows accuracy by model and method, and against the
    time of the image encoder. Default: the one of --model."""
    methods: MethodNames = (
        "zero-shot",
        "linear-probe",
        "lora",
    )
    """Methods and presets to compare, comma-separated. The other options apply to all of them."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    """Run folder whose weights wise-ft interpolates with the zero-shot weights. Default: the full run of this
    comparison."""
    budget: Budget = "full"
    """Compute budget. small: fewer epochs when the encoders are trained, on smaller views if the image encoder accepts
    any size. seconds, minutes or hours: for auto; other methods then run as with full."""
    members: Names | None = None
    """What ensemble or soup combines: run folders or methods, comma-separated. Default: gda,ridge,proker; for
    soup full,two-tier."""
    shots: Shots | None = setting(None, SHOTS)
    """Few-shot training: images per class, sampled with the seed; validation then uses at most four per class. Several
    numbers, comma-separated (such as 1,2,4,8,16), give a table and a plot of accuracy by number of images. Default:
    all."""
    features: Features | None = None
    """Cached features that lora, clip-adapter, tip-adapter, proker and clap adapt: embedding, or pre-projection (the
    image features before the projection to embeddings, centred, which tell more classes apart). Default:
    pre-projection."""
    refit: bool | None = None
    """Choose settings by cross-validation, then fit on the training and validation images together (gda, ridge,
    linear-probe, proker, clap). Default: yes; with --shots no. Methods that train an encoder (full, two-tier, lp-ft,
    lora-attention) train twice with --refit: first to choose the epoch, then on both together. Default for them: no."""
    hold_out: Names | None = None
    """Classes to exclude from training and to evaluate as unseen classes: names, comma-separated, or how many to sample
    with --split-seed. Default: none."""
    seeds: Seeds = setting((0,), each(SEED))
    """Random seeds of initialisation, batch order, augmentation and dropout, comma-separated. With several, mean and
    standard deviation are reported."""
    out: Path = Path("runs/comparison")
    """Directory for the tables, the report and one run folder per method."""

    @property
    def shots_compared(self) -> tuple[int, ...]:
        """The numbers of images per class, in ascending order; empty if all images are used."""
        given = self.shots if isinstance(self.shots, tuple) else (self.shots,)
        return tuple(sorted(number for number in given if number is not None))


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """`clip-har quickstart`: a comparison of a few methods on synthetic images."""

    out: Path = Path("quickstart")
    """Directory for the synthetic images, the runs, the tables and the report."""
    methods: MethodNames = ("zero-shot", "linear-probe", "lora")
    """Methods and presets to compare, comma-separated."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the synthetic images and the training."""
    cache: Path | None = None
    """Directory of cached embeddings and splits. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """`clip-har explain`: what to show of a run, for given images or for a dataset."""

    data: Path | None = None
    """Dataset. Its test images are explained; its training images are the neighbours."""
    out: Path | None = None
    """Directory for explain.json, explain.csv and the overlays. Default: explain/ in the run folder, or explain-images/
    if image files are given."""
    limit: WholeNumber = setting(24, at_least(0))
    """Number of test images to explain individually."""
    neighbours: WholeNumber = setting(5, at_least(0))
    """Number of nearest training images to list per image."""
    maps: bool = True
    """Write saliency maps: the pixels that support the prediction."""
    embedding_map: PlaneMethod = "auto"
    """Projection of the embeddings to two dimensions; umap requires pip install "clip-har[explain]"."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the embedding map."""
    model: RunModelConfig = field(default_factory=RunModelConfig)
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that decode images. -1: one per core."""
    cache: Path | None = None
    """Directory of cached embeddings and splits. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """`clip-har import`: what is known about a checkpoint besides the file."""

    out: Path | None = None
    """Run folder to write. Default: next to the file, with the file's name without .pt."""
    data: DataConfig | None = None
    """The dataset the checkpoint was trained on. It provides the classes and the splits, and its validation images are
    evaluated."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    classes: Names | None = None
    """Class names, comma-separated, instead of --data."""
    rank: WholeNumber | None = setting(None, at_least(1))
    """Rank the checkpoint was trained with. It is checked against the file."""
    alpha: float | None = setting(None, POSITIVE)
    """Alpha the checkpoint was trained with. Default: from the file's config."""


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """`clip-har prompts`: compares prompt templates and class descriptions on the validation images."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the bootstrap."""
    out: Path = Path("prompts")
    """Directory for prompts.json and prompts.csv."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """`clip-har models`: which pretrained models to list, and what to measure."""

    model: Names | None = None
    """Models to list, comma-separated or repeated: any value that train --model accepts, such as siglip,ViT-L/14 or
    local-dir:FOLDER. Default: the bundled model, the original names and the short names."""
    all: Annotated[bool, Parameter(negative="")] = False
    """List every model that open_clip has weights for."""
    batch_size: WholeNumber = setting(32, BATCH)
    """Images per forward pass for which the training memory is stated."""
    probe: Annotated[bool, Parameter(negative="")] = False
    """Measure how many images per second the image encoder reads here: a few seconds for each listed model whose
    weights are on this machine, and ViT-B/32 with random weights. Nothing is downloaded."""
    device: str = "auto"
    """Device of --probe: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Numerical precision of --probe. auto selects bfloat16 if the hardware supports it."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print JSON instead of tables."""
