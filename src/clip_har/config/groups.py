"""The settings that commands share, in groups, as flags and config files give them.

What is None in a group of a training is decided by the preset, then by the method; settings.py has the defaults and
ranges of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from clip_har.config.converters import (
    Augment,
    BatchSize,
    Betas,
    Loss,
    Placement,
    Precision,
    SetAside,
    WholeNumber,
)
from clip_har.config.ranges import BATCH, SEED, WORKERS, at_least, setting, within

DEFAULT_MODEL = "ViT-B/32"

# What --help shows together; the command's own flags come first, in the group Parameters.
DATA = Group("Data", sort_key=11)
MODEL = Group("Pretrained model", sort_key=12)
LORA = Group("LoRA (method lora)", sort_key=13)
OPTIMISATION = Group("Optimisation (methods trained by gradient steps)", sort_key=14)
AUGMENTATION = Group("Augmentation and hard pairs", sort_key=15)
ENGINE = Group("Speed, memory and logging", sort_key=16)


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split."""

    data: Path
    """Dataset: class folders, also under train/, val/ and test/; a table of paths and classes; a Hugging Face dataset
    or WebDataset shards on disk; or har, once it was fetched (docs/data.md)."""
    val_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Share of the training images held out to choose by, where the folder has no val/. In (0, 0.5]."""
    test_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Share of all images held out for the final figures, where the folder has no split. In (0, 0.5]."""
    split_seed: WholeNumber = setting(0, SEED)
    """Seed of the splits. Runs with other seeds still share the splits."""
    manifest: Path | None = None
    """Split manifest that says which images are used, their classes and splits, as clip-har data split makes it; images
    are found by content, and the fractions and the seed of the splits have no effect."""
    set_aside: SetAside | None = None
    """Splits of the data to leave out, test or val or both, such as a test split whose labels are placeholders; they
    are then cut out of the training images. Default: none."""
    unreadable_limit: float = setting(0.05, within("[0, 1]"))
    """Stop when more than this share of a split's images cannot be read. In [0, 1]."""


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which pretrained model, and how it runs."""

    model: str | None = None
    """Backbone: ViT-B/32, ViT-B/16, ViT-L/14, RN50, RN101 (OpenAI's weights), an open_clip name as
    NAME:PRETRAINED, hf-hub:REPO, local-dir:FOLDER, a weight file (NAME:FILE, or OpenAI's .pt alone), or demo.
    Default: the run's or checkpoint's own, else ViT-B/32."""
    templates: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Prompt templates with {} for the class, or files with one per line. Default: seven on actions; with --phrasings,
    six for whole phrases."""
    phrasings: str | None = None
    """What stands for a class in the templates: names (the folder's words), har (a natural phrase for each HAR class),
    or a JSON file of class and phrase, such as {"calling": "a person making a phone call"}. Default: names."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of frozen towers, and of the autocast around trained ones, whose weights stay float32; auto picks
    bfloat16 where the hardware has it. fp16-pure trains float16 weights, which breaks: for the record only."""
    encode_batch_size: WholeNumber = setting(64, BATCH)
    """Images per forward pass while embeddings are computed."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Processes that decode images; -1 means one per core, 0 decodes in the main process."""
    cache: Path | None = None
    """Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har."""


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class RunModelConfig:
    """Where the pretrained model of a finished run is, and how it runs."""

    model: str | None = None
    """Where the backbone is now, if not where the run says."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of the image tower; auto picks bfloat16 where the hardware has it."""


@Parameter(name="*", group=LORA)
@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation (method lora)."""

    placement: Placement | None = None
    """Where the low-rank updates sit: embedding (a residual on the two outputs; the towers run once, ever), attention
    (inside the attention layers; in a convolutional tower the convolutions), all (the MLPs too). Default: embedding."""
    towers: tuple[str, ...] | None = None
    """Which towers are adapted: image, text or both, for placements inside them. Default: image,text."""
    rank: WholeNumber | None = None
    """Rank r of the update. Default: 16; inside the towers 2."""
    alpha: float | None = None
    """Numerator of the scale alpha / r. Default: 32; inside the towers 4."""
    dropout: float | None = None
    """Dropout on the update's input. In [0, 1). Default: 0.1; inside the towers 0."""
    rslora: bool | None = None
    """Scale by alpha / sqrt(r) in place of alpha / r (arXiv 2312.03732). Default: no; inside the towers yes."""
    dora: bool | None = None
    """Learn the weights' magnitude apart from their direction (arXiv 2402.09353). Default: no."""
    layers: str | None = None
    """Which layers of a tower are adapted: all, or last:K. Default: all."""
    renormalise: bool | None = None
    """Scale the adapted embeddings to unit length before they are compared. --no-renormalise skips that and the logit
    scale's upper bound, like the predecessor project. Placement embedding only. Default: yes."""
    loss: Loss | None = None
    """cross-entropy over the class prompts; supcon: class-aware contrastive loss within the batch; infonce:
    the historic one, which counts same-class captions as negatives (kept for the record). Default: cross-entropy."""


@Parameter(name="*", group=OPTIMISATION)
@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradient methods are trained. Defaults are the method's own: docs/methods.md lists them."""

    epochs: WholeNumber | None = None
    """Passes over the training images. Default: 15 on cached embeddings, 10 inside the towers."""
    batch_size: BatchSize | None = None
    """Images per forward pass on each device; auto tries which fit and keeps the effective batch. Default: 64; inside
    the towers 32."""
    accumulate: WholeNumber | None = None
    """Forward passes per optimizer step. Default: 1."""
    lr: float | None = None
    """Peak learning rate of AdamW. Default: the method's own."""
    weight_decay: float | None = None
    """AdamW's decoupled weight decay; biases, norms and scales have none. Default: 0.01."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up before the cosine decay. Default: 0; inside the towers 0.5."""
    warmup_steps: WholeNumber | None = None
    """The same in optimizer steps; wins over --warmup-epochs."""
    gradient_clip: float | None = None
    """Largest gradient norm; 0 switches clipping off. Default: 1."""
    betas: Betas | None = None
    """AdamW's decay rates of the two gradient moments, separated by a comma, each in [0, 1). Default: 0.9,0.98."""
    eps: float | None = None
    """Term added to AdamW's denominator, above 0. Default: 1e-8."""
    vision_lr_multiplier: float | None = None
    """Factor on lr for the image side. Default: 1."""
    text_lr_multiplier: float | None = None
    """Factor on lr for the text side. Default: 1; two-tier 0.1."""
    projection_lr_multiplier: float | None = None
    """Factor on lr for what joins the two sides: projections, logit scale, classification head. Default: 1."""
    layer_decay: float | None = None
    """Factor on lr per layer, from the top of a tower down. In (0, 1]. Default: 1."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights, which is then validated and kept; 0 switches it
    off. Default: 0."""
    patience: WholeNumber | None = None
    """Stop when validation has not improved for this many epochs; 0 never stops early. Default: 0."""
    train_batchnorm: bool | None = None
    """Let batch norm layers update their statistics; otherwise they stay as pretrained. Default: no."""


@Parameter(name="*", group=AUGMENTATION)
@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What gradient methods see besides the plain images."""

    augment: Augment | None = None
    """Views of the training images: none; light (random crops of half the area or more, flips); strong (crops of 0.8
    or more, flips, colour jitter, rotation, shifts). Default: light inside the towers, none on cached embeddings."""
    views: WholeNumber | None = None
    """Augmented views per image that are encoded once and cached, for methods on cached embeddings. Default: 4."""
    train_image_size: WholeNumber | None = None
    """Pixels of the training views' sides, where the tower takes any size. Default: the model's own."""
    text_augment: bool | None = None
    """Draw a prompt template per class and step in place of the mean over all. Default: no."""
    mixup: float | None = None
    """Mix pairs of images and their labels with a share drawn from Beta(m, m) (arXiv 1710.09412); 0 switches it off.
    Default: 0."""
    hard_pairs: float | None = None
    """Share of each batch composed of images that are hard to tell from another class, in [0, 1]; above 0.4 it is
    seldom reached. Default: 0."""
    hard_pairs_every: WholeNumber | None = None
    """Epochs between two searches for hard pairs. Default: 1."""
    hard_margin: float | None = None
    """Cosine similarity added to the rival class of a hard image, which it must then win by. Default: 0.05."""


@Parameter(name="*", group=ENGINE)
@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the training runs; what comes out does not depend on it, but for rounding."""

    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the model with torch.compile: a slow start, then faster steps."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer over the processes (FSDP), for models that do not fit one device."""
    decoded_cache: bool = False
    """Decode the training images once and keep them on disk in the cache folder, for many epochs of augmented training
    inside the towers. The size is said before it is written."""
    save_steps: WholeNumber = setting(200, at_least(1))
    """Optimizer steps between two saved states; every epoch's end saves one too."""
    tensorboard: bool = False
    """Write the log for TensorBoard as well, into tensorboard/ in the run folder."""
    wandb: bool = False
    """Send the log to Weights & Biases as well; with WANDB_MODE=offline it is only written, into wandb/."""
