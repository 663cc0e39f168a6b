"""What each command is asked for: one keyword-only dataclass per command. Flags and config keys have the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clip_har.config.converters import (
    CORRUPTION_KINDS,
    Budget,
    Corruptions,
    MethodName,
    MethodNames,
    Names,
    PlaneMethod,
    PresetName,
    Seeds,
    Severities,
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
from clip_har.config.ranges import BATCH, NOT_EMPTY, POSITIVE, SEED, WORKERS, at_least, each, setting


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`clip-har train`: one method, one run folder."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodName = "lora"
    """Way of adapting the backbone, or the name of a preset."""
    preset: PresetName | None = None
    """Settings that are kept with the package, such as augmented: the same as naming it with --method."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    """Run folder whose weights wise-ft mixes with the zero-shot ones."""
    shots: WholeNumber | None = setting(None, at_least(1))
    """Training images per class, drawn with the seed, and at most four of them for validation. Default: all."""
    hold_out: Names | None = None
    """Classes to keep out of training and to score afterwards as unseen actions: names separated by commas, or how
    many to draw with the split seed. Default: none."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of initialisation, batch order, augmentation and dropout."""
    out: Path | None = None
    """Run folder to write. Default: runs/METHOD, then runs/METHOD-2, and so on."""
    resume: bool = False
    """Continue the interrupted run in --out; where none was begun, start it."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """`clip-har evaluate`: a run, or the zero-shot baseline alone, on the test split."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    checkpoint: Path | None = None
    """Run folder, or a file inside it. Without it only the zero-shot baseline is scored."""
    out: Path | None = None
    """Where results go. Default: eval/ in the run folder, or eval/ here for the baseline alone."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of the bootstrap intervals, and of the corruptions and their images."""
    robustness: bool = False
    """Score corrupted copies of the test images as well."""
    corruptions: Corruptions = setting(CORRUPTION_KINDS, NOT_EMPTY)
    """Which, separated by commas."""
    severities: Severities = (1, 2, 3, 4, 5)
    """How strong, from 1 to 5, separated by commas."""
    robustness_images: WholeNumber = setting(500, at_least(0))
    """Test images to corrupt, drawn with the seed, each class by its share; 0 takes all."""
    shift: Path | None = None
    """Another dataset folder with classes of the same names, to score as well."""
    explain: WholeNumber = setting(0, at_least(0))
    """Test images of the run to explain in the report, the most telling first, with a map of all embeddings."""
    audit: Path | None = None
    """JSON file of clip-har data audit on the same data, whose counts the report then shows."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """`clip-har compare`: several methods under one protocol."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    methods: MethodNames = (
        "zero-shot",
        "linear-probe",
        "lora",
    )
    """Methods and presets to compare, separated by commas. Settings given here hold for all of them."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    """Run folder whose weights wise-ft mixes with the zero-shot ones. Default: the comparison's own full."""
    budget: Budget = "full"
    """small: fewer epochs inside the towers, on smaller views where the tower takes any size."""
    shots: WholeNumber | None = setting(None, at_least(1))
    """Training images per class, drawn with the seed, and at most four of them for validation. Default: all."""
    hold_out: Names | None = None
    """Classes to keep out of training and to score afterwards as unseen actions: names separated by commas, or how
    many to draw with the split seed. Default: none."""
    seeds: Seeds = setting((0,), each(SEED))
    """Seeds of initialisation, batch order, augmentation and dropout; several, separated by commas, give mean and
    spread."""
    out: Path = Path("runs/comparison")
    """Folder for the tables, the report and one run folder per method."""


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """`clip-har quickstart`: the comparison of a few methods on drawn scenes."""

    out: Path = Path("quickstart")
    """Folder for the drawn images, the runs, the tables and the report."""
    methods: MethodNames = ("zero-shot", "linear-probe", "lora")
    """Methods and presets to compare, separated by commas."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of the scenes and the training."""
    cache: Path | None = None
    """Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """`clip-har explain`: what to show of a run, for images that are named or for a dataset's."""

    data: Path | None = None
    """The dataset: its test images are explained, its training images are the neighbours."""
    out: Path | None = None
    """Folder for explain.json, explain.csv and the overlays. Default: explain/ in the run folder, or explain-images/
    for images that are named."""
    limit: WholeNumber = setting(24, at_least(0))
    """Test images to explain one by one."""
    neighbours: WholeNumber = setting(5, at_least(0))
    """Nearest training images to name for each."""
    maps: bool = True
    """Draw which pixels speak for the answer."""
    embedding_map: PlaneMethod = "auto"
    """How the test images become points of a plane; umap needs pip install "clip-har[explain]"."""
    seed: WholeNumber = setting(0, SEED)
    """Seed of that."""
    model: RunModelConfig = field(default_factory=RunModelConfig)
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that decode images; -1 means one per core."""
    cache: Path | None = None
    """Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """`clip-har predict`: what to say of each image."""

    top: WholeNumber = setting(3, at_least(1))
    """How many of the most likely classes to give."""
    out: Path | None = None
    """File to write the predictions to, as they come: .csv, .jsonl or .parquet. After an interruption the same command
    continues it."""
    coverage: Annotated[float | None, Parameter(alias="--confidence")] = None
    """Also give the set of actions that contains the true one this often, such as 0.95."""
    accuracy: float | None = None
    """Say "unsure" unless answers are right this often, such as 0.95."""
    abstain_below: float | None = None
    """Say "unsure" below this calibrated confidence, in place of --accuracy."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print a JSON list instead of a table."""
    model: RunModelConfig = field(default_factory=RunModelConfig)
    batch_size: WholeNumber = setting(16, BATCH)
    """Images per forward pass."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that decode images; -1 means one per core, 0 decodes in the main process. A few images need none."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """`clip-har import`: what is known of a checkpoint besides the file."""

    out: Path | None = None
    """Run folder to write. Default: next to the file, with the file's name without .pt."""
    data: DataConfig | None = None
    """The dataset it was trained on: gives the classes and the splits, and the validation images are scored."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    classes: Names | None = None
    """Class names separated by commas, instead of --data."""
    rank: WholeNumber | None = setting(None, at_least(1))
    """Rank it was trained with; checked against the file."""
    alpha: float | None = setting(None, POSITIVE)
    """Alpha it was trained with. Default: the file's config."""


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """`clip-har prompts`: what the wording of the classes changes, on the validation images."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    seed: WholeNumber = setting(0, SEED)
    """Seed of the bootstrap intervals."""
    out: Path = Path("prompts")
    """Folder for prompts.json and prompts.csv."""
