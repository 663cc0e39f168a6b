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
    ExportFormat,
    Features,
    MethodName,
    MethodNames,
    Names,
    PlaneMethod,
    Precision,
    PredictionFormat,
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
    from_to,
    setting,
    within,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """`clip-har train`: one method, one run folder."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    method: MethodName = "lora"
    """Fine-tuning method, or the name of a preset (docs/methods.md)."""
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
    """What ensemble combines: run folders or methods, comma-separated. Default: gda,ridge,linear-probe."""
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
    val split keeps apart. Default: yes; with --shots no."""
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
    """What ensemble combines: run folders or methods, comma-separated. Default: gda,ridge,linear-probe."""
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
    linear-probe, proker, clap). Default: yes; with --shots no."""
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


STANDARD_INPUT = Path("\0")
"""Among the images of a command: the list on its standard input. "-" could be a file, and no file is called this."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """`clip-har predict`: what to return for each image."""

    top: WholeNumber = setting(3, at_least(1))
    """Number of most likely classes to return."""
    out: Path | None = None
    """File to write the predictions to as they are made: .csv, .jsonl or .parquet. After an interruption, run the same
    command again to continue."""
    overwrite: Annotated[bool, Parameter(negative="")] = False
    """Replace --out if it is finished, or was begun with another run or other options. An interrupted file of the same
    command is continued."""
    format: PredictionFormat | None = None
    """What is printed without --out: table, text (a line per image, tab-separated), jsonl (an object per line) or csv.
    Default: table in a terminal, otherwise text."""
    sort_into: Path | None = None
    """Directory in which to link the images: one subdirectory per predicted class, and one each for "unsure" and
    "none of these". Nothing is overwritten. Links are hard links, or symbolic links if it is on another disk."""
    copy: Annotated[bool, Parameter(negative="")] = False
    """Copy the images for --sort-into instead of linking them."""
    null: Annotated[bool, Parameter(alias="-0", negative="")] = False
    """Paths on standard input end with NUL instead of a line break, as written by find -print0."""
    coverage: Annotated[float | None, Parameter(alias="--confidence")] = None
    """Also return a conformal prediction set with this coverage, e.g. 0.95."""
    accuracy: float | None = None
    """Return "unsure" for images below the confidence at which this accuracy is guaranteed, e.g. 0.95."""
    abstain_below: float | None = None
    """Return "unsure" below this calibrated confidence, instead of --accuracy."""
    reject_unknown: float | None = None
    """Return "none of these" for images that are likely to show none of the classes. The value is the fraction of
    images of the classes that may be rejected by mistake, e.g. 0.05."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print a JSON array, once all images are classified."""
    model: RunModelConfig = field(default_factory=RunModelConfig)
    batch_size: WholeNumber = setting(16, BATCH)
    """Images per forward pass."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that decode images; -1 means one per core, 0 decodes in the main process. A few images need none."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """`clip-har serve`: where the service listens, what it answers and what it refuses."""

    host: str = "127.0.0.1"
    """Address to listen on. The default accepts connections from this machine only; 0.0.0.0 accepts all."""
    port: WholeNumber = setting(8000, from_to(0, 65535))
    """TCP port to listen on. 0: any free port, which is printed."""
    api_key_file: Path | None = None
    """File that contains the key that requests must send. Default: the environment variable CLIP_HAR_API_KEY; without
    either, no key is required."""
    top: WholeNumber = setting(5, at_least(1))
    """Number of most likely classes to return, unless a request asks for another number."""
    coverage: float | None = None
    """Coverage of the conformal prediction sets. Default: 0.9 if the run has calibration data."""
    accuracy: float | None = None
    """Return "unsure" for images below the confidence at which this accuracy is guaranteed. Default: 0.9 if the
    validation images suffice to guarantee it."""
    abstain_below: float | None = None
    """Return "unsure" below this calibrated confidence, instead of --accuracy. 0: never."""
    reject_unknown: float | None = None
    """Return "none of these" for images that are likely to show none of the classes. The value is the fraction of
    images of the classes that may be rejected by mistake, e.g. 0.05."""
    batch_size: WholeNumber = setting(16, BATCH)
    """Maximum number of images per forward pass."""
    batch_wait: float = setting(0.005, within("[0, 1]"))
    """Seconds that an image waits for others to share its forward pass."""
    queue: WholeNumber = setting(256, BATCH)
    """Maximum number of images that are accepted and not yet answered. Further requests get status 429."""
    max_bytes: WholeNumber = setting(32_000_000, at_least(1))
    """Maximum size of a request in bytes."""
    max_images: WholeNumber = setting(16, at_least(1))
    """Maximum number of images per request."""
    max_pixels: WholeNumber = setting(128_000_000, at_least(1))
    """Maximum width times height of an image."""
    max_classes: WholeNumber = setting(200, at_least(2))
    """Maximum number of class names per request."""
    timeout: float = setting(30.0, POSITIVE)
    """Seconds that a request may take, the upload included."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that decode images, at least one; -1 means one per core."""
    model: RunModelConfig = field(default_factory=RunModelConfig)


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


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """`clip-har export`: a finished run in the format of another tool, compared with the run on validation images."""

    format: ExportFormat = "onnx"
    """Format to write: onnx, onnx-int8 (quantised with training images), openclip (a folder for open_clip), peft (the
    adapter files), or hub (onnx with a model card for the Hugging Face Hub)."""
    out: Path
    """Folder to write. An earlier export in it is replaced."""
    data: Path | None = None
    """Dataset whose validation images the export is compared on. Default: the dataset of the run."""
    min_agreement: float | None = setting(None, within("[0, 1]"))
    """Smallest fraction of validation images with the same label as the run; below it nothing is written and the exit
    code is 3. Default: 0.999; for onnx-int8 0.99."""
    certificate: bool = True
    """Compare the export with the run on validation images and write certificate.json."""
    calibration_images: WholeNumber = setting(256, at_least(1))
    """Training images from which onnx-int8 takes the ranges of the activations."""
    push: str | None = None
    """Repository on the Hugging Face Hub to upload to with --format hub, as OWNER/NAME. It is created as private if it
    does not exist."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Also write into a folder that contains other files. Files of the same names are overwritten."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print the certificate as JSON instead of a table."""
    model: str | None = None
    """Path or name of the backbone, if it has moved since training."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that decode images. -1: one per core; 0: decode in the main process."""
    cache: Path | None = None
    """Directory of cached embeddings and splits. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""
