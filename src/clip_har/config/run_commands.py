"""What the commands that use a finished run are asked for; the others are in commands.py, video in video_command.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clip_har.config.converters import ExportFormat, PredictionFormat, WholeNumber
from clip_har.config.groups import RayConfig, RunModelConfig
from clip_har.config.ranges import (
    BATCH,
    POSITIVE,
    WORKERS,
    at_least,
    from_to,
    setting,
    within,
)

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
    """Replace --out if it is finished, or was started with another run or other options. An interrupted file of the
    same command is continued."""
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
    ray: RayConfig = field(default_factory=RayConfig)


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
class ExportConfig:
    """`clip-har export`: a finished run in the format of another tool, compared with the run on validation images."""

    format: ExportFormat = "onnx"
    """Format to write: onnx, onnx-int8 (quantised with training images), openclip (a folder for open_clip),
    transformers (a folder for its pipelines, of lp-ft or a method that adapts the encoders), peft (the adapter
    files), hub (onnx with a model card for the Hugging Face Hub), web or web-int8 (static files: a page that predicts
    photos in the browser)."""
    out: Path
    """Folder to write. An earlier export in it is replaced."""
    data: Path | None = None
    """Dataset whose validation images the export is compared on. Default: the dataset of the run."""
    min_agreement: float | None = setting(None, within("[0, 1]"))
    """Smallest fraction of validation images with the same label as the run; below it nothing is written and the exit
    code is 3. Default: 0.999; for onnx-int8 and web-int8 0.99."""
    certificate: bool = True
    """Compare the export with the run on validation images and write certificate.json."""
    calibration_images: WholeNumber = setting(256, at_least(1))
    """Training images from which onnx-int8 and web-int8 take the ranges of the activations."""
    coverage: float | None = None
    """With --format web: coverage of the conformal prediction sets. Default: 0.9 if the run has calibration data."""
    accuracy: float | None = None
    """With --format web: show "unsure" for photos below the confidence at which this accuracy is guaranteed. Default:
    0.9 if the validation images suffice to guarantee it."""
    abstain_below: float | None = None
    """With --format web: show "unsure" below this calibrated confidence, instead of --accuracy. 0: never."""
    reject_unknown: float | None = None
    """With --format web: show "none of these" for photos that are likely to show none of the classes. The value is the
    fraction of images of the classes that may be rejected by mistake, e.g. 0.05."""
    web_runtime: Path | None = None
    """With --format web: folder or .tgz archive of onnxruntime-web 1.30.0, for machines without network access.
    Default: downloaded once from npm's registry (33 MB), and cached."""
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
