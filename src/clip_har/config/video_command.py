"""What `clip-har video` is asked for. The other commands are in commands.py and run_commands.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from clip_har.config.converters import WholeNumber
from clip_har.config.groups import RunModelConfig
from clip_har.config.ranges import BATCH, NOT_NEGATIVE, POSITIVE, setting, within

OUTPUT_SUFFIXES = (".json", ".csv", ".srt", ".vtt", ".png")
"""Files that `--out` writes."""


def _files(_type: object, tokens: Sequence[Any]) -> tuple[Path, ...]:
    """ "a.srt,b.png" or several values -> files. Commas in other paths are part of them."""
    found: list[Path] = []
    for token in tokens:
        text = str(token.value)
        parts = [Path(part.strip()) for part in text.split(",")]
        known = all(part.suffix.lower() in OUTPUT_SUFFIXES for part in parts)
        found += parts if known else [Path(text)]
    return tuple(found)


Files = Annotated[tuple[Path, ...], Parameter(converter=_files)]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """`clip-har video`: how videos are read, and what is written of them."""

    camera: str | None = None
    """Camera to classify live, instead of files: a number such as 0, a device such as /dev/video0, or an address such
    as rtsp://HOST/PATH. Ctrl-C ends it."""
    seconds: float | None = setting(None, POSITIVE)
    """Seconds after which --camera ends. Default: at Ctrl-C."""
    rate: float = setting(2.0, within("(0, 120]"))
    """Frames to classify per second of video."""
    mean_span: float = setting(10.0, NOT_NEGATIVE)
    """Expected length of an action in seconds, for the smoothing of the probabilities over time. 0: no smoothing."""
    out: Files = ()
    """Files to write, comma-separated or repeated: .json, .csv, .srt or .vtt (subtitles), .png (plot). A folder gets
    all five for each video."""
    annotated: Path | None = None
    """MP4 file to write: a copy of the video, without sound, with the action on each frame. With several videos, a
    folder."""
    accuracy: float | None = None
    """Report "unsure" for parts below the confidence at which this accuracy is guaranteed for images, e.g. 0.95."""
    abstain_below: float | None = None
    """Report "unsure" below this calibrated confidence, instead of --accuracy."""
    reject_unknown: float | None = None
    """Report "none of these" for parts that are likely to show none of the classes. The value is the fraction of images
    of the classes that may be rejected by mistake, e.g. 0.05."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print JSON instead of a table; with --camera, a line of JSON per frame."""
    model: RunModelConfig = field(default_factory=RunModelConfig)
    batch_size: WholeNumber = setting(16, BATCH)
    """Frames per forward pass."""
