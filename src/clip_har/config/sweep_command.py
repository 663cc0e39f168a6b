"""What `clip-har sweep` is asked for: the fixed settings of all trials, what is searched, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from clip_har.config.commands import TrainConfig
from clip_har.config.converters import AutoBudget, Features, MethodName, Names, PresetName, WholeNumber
from clip_har.config.groups import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EngineConfig,
    LoraConfig,
    OptimizerConfig,
)
from clip_har.config.ranges import POSITIVE, SEED, at_least, from_to, setting

SearchEngine = Literal["optuna", "ray"]
Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "halving", "none"]
Storage = Literal["journal", "sqlite"]
SweepMetric = Literal["accuracy", "macro-f1"]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """`clip-har sweep`: trainings with sampled settings, the best of which is chosen on validation."""

    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    search: Annotated[Mapping[str, Any], Parameter(parse=False)] = field(default_factory=dict)
    """Setting of train -> values to choose from (a list), or {"low": ..., "high": ..., "log": True}. On the command
    line it is the [search] table of --config."""
    trials: WholeNumber = setting(50, at_least(1))
    """Number of trials, those of other workers and of earlier commands in the same --out included."""
    timeout: float | None = setting(None, POSITIVE)
    """Seconds after which this command starts no further trial. Default: no limit."""
    metric: SweepMetric = "accuracy"
    """Metric on the validation images by which trials are compared: accuracy or macro-f1."""
    sampler: Sampler = "tpe"
    """How settings are sampled: tpe (where earlier trials were good) or random."""
    pruner: Pruner = "median"
    """When a trial is stopped early, judged after each epoch: median (below the median of the other trials at that
    epoch), halving (successive halving) or none."""
    search_engine: Annotated[SearchEngine, Parameter(name="--engine")] = "optuna"
    """What runs the trials: optuna (in this process and --jobs) or ray (Ray Tune, on a Ray cluster or this machine)."""
    jobs: WholeNumber = setting(1, from_to(1, 256))
    """Number of trials at the same time on this machine, each in a process with a model of its own."""
    storage: Storage = "journal"
    """File of the study in --out: journal (study.journal, also on network file systems) or sqlite (study.sqlite3)."""
    keep_all: Annotated[bool, Parameter(negative="")] = False
    """Keep the run folders of all trials. Default: only that of the best trial."""
    test: bool = True
    """Evaluate the best trial on the test images when all trials are done."""
    method: MethodName = "lora"
    preset: PresetName | None = None
    """Preset of settings that ships with the package, such as augmented. Equivalent to passing its name with
    --method."""
    budget: AutoBudget | None = None
    """Time that auto may take for training: seconds (a minute), minutes (ten) or hours (four). Default: minutes."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    execution: EngineConfig = field(default_factory=EngineConfig)
    start_from: Path | None = None
    """Run folder whose weights wise-ft interpolates with the zero-shot weights."""
    members: Names | None = None
    """What ensemble or soup combines: run folders or methods, comma-separated. Default: gda,ridge,proker; for
    soup full,two-tier."""
    shots: WholeNumber | None = setting(None, at_least(1))
    """Few-shot training: images per class, sampled with the seed; validation then uses at most four per class. Default:
    all."""
    features: Features | None = None
    """Cached features that lora, clip-adapter, tip-adapter, proker and clap adapt: embedding, or pre-projection.
    Default: pre-projection."""
    refit: bool | None = None
    """Choose settings by cross-validation, then fit on the training and validation images together (gda, ridge,
    linear-probe, proker, clap). Default: yes; with --shots no."""
    hold_out: Names | None = None
    """Classes to exclude from training: names, comma-separated, or how many to sample with --split-seed. Default:
    none."""
    seed: WholeNumber = setting(0, SEED)
    """Random seed of the search, and of initialisation, batch order, augmentation and dropout in every trial."""
    out: Path = Path("runs/sweep")
    """Directory for the study, the tables, the plots and the best trial's run. The same command continues an
    interrupted sweep there; started several times, all share it."""

    @property
    def fixed(self) -> TrainConfig:
        """The settings that hold for all trials."""
        return TrainConfig(
            data=self.data,
            backbone=self.backbone,
            method=self.method,
            preset=self.preset,
            budget=self.budget,
            lora=self.lora,
            optimizer=self.optimizer,
            augmentation=self.augmentation,
            engine=self.execution,
            start_from=self.start_from,
            members=self.members,
            shots=self.shots,
            features=self.features,
            refit=self.refit,
            hold_out=self.hold_out,
            seed=self.seed,
        )
