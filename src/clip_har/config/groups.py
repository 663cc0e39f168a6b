"""The settings that commands share, in groups, as flags and config files give them.

What is None in a group of a training is decided by the preset, then by the method; settings.py has the defaults and
ranges of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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
from clip_har.config.ranges import BATCH, SEED, WORKERS, Range, at_least, setting, within

DEFAULT_MODEL = "ViT-B/32"
MAX_RAY_WORKERS = 10_000

# What --help shows together; the command's own flags come first, in the group Parameters.
DATA = Group("Data", sort_key=11)
MODEL = Group("Pretrained model", sort_key=12)
LORA = Group("LoRA (method lora)", sort_key=13)
OPTIMISATION = Group("Optimisation (methods trained by gradient steps)", sort_key=14)
AUGMENTATION = Group("Augmentation and hard negatives", sort_key=15)
ENGINE = Group("Speed, memory and logging", sort_key=16)
RAY = Group("Ray (--engine ray)", sort_key=17)


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images and their splits."""

    data: Path
    """Dataset: class folders, optionally under train/, val/ and test/; a table of paths and classes; a Hugging Face
    dataset or WebDataset shards on disk; or har after clip-har data fetch har (docs/guide/datasets.md)."""
    val_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Fraction of the training images to use for validation if the dataset has no val split. In (0, 0.5]."""
    test_fraction: float = setting(0.15, within("(0, 0.5]"))
    """Fraction of all images to use for testing if the dataset has no test split. In (0, 0.5]."""
    split_seed: WholeNumber = setting(0, SEED)
    """Random seed of the splits. It is independent of the training seed."""
    manifest: Path | None = None
    """Split manifest (CSV) written by clip-har data split. It sets the images, their classes and their splits; images
    are matched by content. --val-fraction, --test-fraction and --split-seed then have no effect."""
    set_aside: SetAside | None = None
    """Existing splits to ignore (val, test or both), e.g. a test split with placeholder labels. Replacements are
    created from the training images. Default: none."""
    unreadable_limit: float = setting(0.05, within("[0, 1]"))
    """Largest fraction of unreadable images in a split; above it the command stops. In [0, 1]."""


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The pretrained model and how it runs."""

    model: str | None = None
    """Backbone: ViT-B/32, ViT-B/16, ViT-L/14, RN50 and other names of OpenAI's weights; a short name such as siglip2 or
    pe-core (clip-har models lists them); an open_clip name as NAME:PRETRAINED; hf-hub:REPO; a folder (of open_clip or
    transformers, or a run's); a weight file (NAME:FILE, or FILE alone if its content tells the architecture); or demo.
    NAME@SIZE reads images of SIZE x SIZE pixels, A+B combines the features of several models. Default: the model of the
    run or checkpoint, otherwise ViT-B/32."""
    templates: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Prompt templates with {} for the class, or text files with one template per line. Default: seven templates for
    actions; with --phrasings, six for class descriptions."""
    phrasings: str | None = None
    """Class descriptions inserted into the templates: names (directory names), har (descriptions of the 15 HAR
    classes), or a JSON file mapping class to description, such as {"calling": "a person making a phone call"}. Default:
    names."""
    device: str = "auto"
    """Device to run on: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Numerical precision of frozen encoders, and of autocast in training, where weights stay float32. auto selects
    bfloat16 if the hardware supports it; on a CPU without AMX, training stays in float32. fp16-pure trains float16
    weights, which diverges or collapses; use it only to reproduce the original results."""
    encode_batch_size: WholeNumber = setting(64, BATCH)
    """Images per forward pass when embeddings are computed."""
    workers: WholeNumber = setting(-1, WORKERS)
    """Number of worker processes that decode images. -1: one per core; 0: decode in the main process."""
    cache: Path | None = None
    """Directory of cached embeddings and splits. Default: $CLIP_HAR_CACHE, otherwise ~/.cache/clip-har."""
    offline: bool = False
    """Never download pretrained weights; use only those on this machine."""


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class RunModelConfig:
    """The pretrained model of a finished run and how it runs."""

    model: str | None = None
    """Path or name of the backbone, if it has moved since training."""
    device: str = "auto"
    """Device to run on: auto, cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Numerical precision of the image encoder. auto selects bfloat16 if the hardware supports it."""


@Parameter(name="*", group=RAY)
@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Whether a command runs in this process or on a Ray cluster."""

    engine: Literal["local", "ray"] = "local"
    """Where the work is done: local (this process and its workers), or ray (workers of a Ray cluster). Both write the
    same files and continue each other's. ray requires pip install 'clip-har[ray]'."""
    ray_address: str = "local"
    """Ray cluster: local (start one on this machine for this command), auto (the cluster that this machine belongs to),
    or HOST:PORT."""
    ray_workers: WholeNumber = setting(-1, Range("-1 or at least 1", lambda x: x == -1 or 1 <= x <= MAX_RAY_WORKERS))
    """Number of Ray workers that have the model. -1: one per GPU of the cluster, or one per CPU core if it has none.
    Each takes one GPU or one core."""


@Parameter(name="*", group=LORA)
@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation (method lora)."""

    placement: Placement | None = None
    """Layers to adapt: embedding (a residual on the two output embeddings; the encoders stay frozen, so embeddings are
    computed only once), attention (the attention layers of the encoders, or the convolutions of a convolutional
    encoder), all (the MLPs too). Default: embedding."""
    towers: tuple[str, ...] | None = None
    """Encoders to adapt with --placement attention or all: image, text or both. Default: image,text."""
    rank: WholeNumber | None = None
    """Rank r of the update. Default: 16; with --placement attention or all 2."""
    alpha: float | None = None
    """Numerator of the scale alpha / r. Default: 32; with --placement attention or all 4."""
    dropout: float | None = None
    """Dropout on the input of the update. In [0, 1). Default: 0.1; with --placement attention or all 0."""
    rslora: bool | None = None
    """Scale by alpha / sqrt(r) instead of alpha / r (rsLoRA, arXiv 2312.03732). Default: no; with --placement attention
    or all yes."""
    dora: bool | None = None
    """Learn the magnitude of the weights separately from their direction (DoRA, arXiv 2402.09353). Default: no."""
    separate_qkv: bool | None = None
    """Learn a matrix A of its own for each of query, key and value of an attention layer, instead of one for all three.
    Only with --placement attention or all. Default: no."""
    layers: str | None = None
    """Layers of an encoder to adapt: all, or last:K. Default: all."""
    renormalise: bool | None = None
    """Scale the adapted embeddings to unit length before they are compared. --no-renormalise skips this and the upper
    bound of the logit scale, like the predecessor project. Only with --placement embedding. Default: yes."""
    loss: Loss | None = None
    """Training loss: cross-entropy or sigmoid (SigLIP's), both over the class prompts; supcon (class-aware contrastive
    loss within the batch), or infonce (counts same-class captions as negatives; kept to reproduce the original
    results). Default: cross-entropy."""


@Parameter(name="*", group=OPTIMISATION)
@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimisation of gradient-trained methods. Defaults are the method's own: docs/methods/index.md lists them."""

    epochs: WholeNumber | None = None
    """Passes over the training images. Default: 15 on cached embeddings, 10 when the encoders are trained."""
    batch_size: BatchSize | None = None
    """Images per forward pass and device, or auto to use the largest size that fits and keep the effective batch size.
    Default: 64; when the encoders are trained 32."""
    accumulate: WholeNumber | None = None
    """Forward passes per optimizer step (gradient accumulation); supcon and infonce contrast the images of all passes.
    Default: 1."""
    lr: float | None = None
    """Peak learning rate of AdamW. Default: the method's own."""
    weight_decay: float | None = None
    """Decoupled weight decay of AdamW. Biases, norms and scales have none. Default: 0.01."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up before the cosine decay. Default: 0; when the encoders are trained 0.5."""
    warmup_steps: WholeNumber | None = None
    """Optimizer steps of linear warm-up. Overrides --warmup-epochs."""
    gradient_clip: float | None = None
    """Maximum gradient norm. 0 disables clipping. Default: 1."""
    betas: Betas | None = None
    """AdamW's decay rates of the two gradient moments, comma-separated, each in [0, 1). Default: 0.9,0.98."""
    eps: float | None = None
    """Term added to AdamW's denominator, above 0. Default: 1e-8."""
    vision_lr_multiplier: float | None = None
    """Factor on --lr for the image side. Default: 1."""
    text_lr_multiplier: float | None = None
    """Factor on --lr for the text side. Default: 1; two-tier 0.1."""
    projection_lr_multiplier: float | None = None
    """Factor on --lr for projections, logit scale and classification head. Default: 1."""
    layer_decay: float | None = None
    """Factor on --lr per layer, from the last layer to the first. In (0, 1]. Default: 1."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights. The average is validated and saved. 0 disables
    it. Default: 0."""
    patience: WholeNumber | None = None
    """Early stopping: epochs without improvement on validation before training stops. 0 disables it. Default: 0."""
    train_batchnorm: bool | None = None
    """Update the statistics of batch norm layers; otherwise the pretrained statistics are used. Default: no."""


@Parameter(name="*", group=AUGMENTATION)
@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Data augmentation of gradient-trained methods."""

    augment: Augment | None = None
    """Augmentation of the training images: none; light (random crops of at least half the area, flips); strong (crops
    of at least 0.8 of the area, flips, colour jitter, rotation, shifts). Default: light when the encoders are trained,
    none on cached embeddings."""
    views: WholeNumber | None = None
    """Augmented views per image to encode and cache, for methods on cached embeddings. Default: 4."""
    train_image_size: WholeNumber | None = None
    """Side of the training views in pixels, if the image encoder accepts any size. Default: the model's own."""
    text_augment: bool | None = None
    """Sample one prompt template per class and step instead of averaging over all templates. Default: no."""
    label_smoothing: float | None = None
    """Share of each label that is spread evenly over all classes (arXiv 1512.00567, section 7). In [0, 1). Default: 0;
    lp-ft 0.1 for ten epochs or more."""
    mixup: float | None = None
    """Mixup: mix pairs of images and labels with a weight sampled from Beta(m, m) (arXiv 1710.09412). 0 disables it.
    Default: 0."""
    hard_pairs: float | None = None
    """Fraction of each batch made of hard negatives: pairs of images from classes that the model confuses. In [0, 1];
    above 0.4 it is seldom reached. Default: 0."""
    hard_pairs_every: WholeNumber | None = None
    """Epochs between two rounds of hard-negative mining. Default: 1."""
    hard_margin: float | None = None
    """Margin (cosine similarity) added to the logit of the most confusable class of a hard negative. Default: 0.05."""


@Parameter(name="*", group=ENGINE)
@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Execution of the training. These options do not change the result, except for rounding."""

    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the model with torch.compile: slower start, faster steps."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer states across processes (FSDP), for models that do not fit on one
    device."""
    decoded_cache: bool = False
    """Decode the training images once and store them in the cache directory, for augmented training of the encoders.
    The required disk space is printed first."""
    layer_cache: bool = True
    """With --layers last:K and --augment none: compute the image encoder's frozen layers once and store their outputs
    in the cache directory, if they fit. The required disk space is printed first."""
    save_steps: WholeNumber = setting(200, at_least(1))
    """Optimizer steps between saved training states. A state is also saved after every epoch."""
    tensorboard: bool = False
    """Also write a TensorBoard log to tensorboard/ in the run folder."""
    wandb: bool = False
    """Also log to Weights & Biases. With WANDB_MODE=offline the log is only written to wandb/ in the run folder."""
