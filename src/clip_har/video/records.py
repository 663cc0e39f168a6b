"""What a run says of a video: spans of one action, and the probabilities that they were made of.

Making them is in spans.py and predictor.py, files of them in writing.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clip_har.video.smoothing import FloatArray
from clip_har.wording import withheld


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a video that shows one action."""

    start: float
    """Seconds from the start of the file."""
    end: float
    """Seconds from the start of the file."""
    label: str | None
    """The action; None where the run is unsure, or where the frames are likely to show none of the classes."""
    confidence: float
    """Mean probability of the action in the span's frames and those around it, each alone, in [0, 1]; calibrated where
    the card allows. A policy withholds the label where it is too low."""
    smoothed: float
    """Mean smoothed probability of the span's action, in [0, 1]; overconfident if a scene repeats one mistake."""
    top: tuple[tuple[str, float], ...]
    """The most likely classes with their mean probabilities, the span's action first."""
    unsure: bool = False
    """Whether the confidence is below what was asked."""
    unknown: bool = False
    """Whether the frames are likely to show none of the classes; False unless that was asked for."""

    @property
    def shown_label(self) -> str:
        """The action, or what is written in its place."""
        return withheld(unsure=self.unsure, unknown=self.unknown) or self.label or ""

    def to_json(self) -> dict[str, Any]:
        """The fields; `unsure` and `unknown` only where they hold."""
        top = [{"label": label, "probability": round(probability, 4)} for label, probability in self.top]
        content: dict[str, Any] = {"start": round(self.start, 3), "end": round(self.end, 3), "label": self.label}
        content |= {"confidence": round(self.confidence, 4), "smoothed": round(self.smoothed, 4), "top": top}
        marks = {"unsure": self.unsure, "unknown": self.unknown}
        return content | {mark: True for mark, holds in marks.items() if holds}


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPrediction:
    """What a run says of a video."""

    video: str
    """Its path, or the camera."""
    seconds: float
    """When the last frame that could be decoded ends."""
    rate: float
    """Samples per second."""
    mean_span: float
    """Expected length of an action in seconds, which the smoothing assumes."""
    classes: tuple[str, ...]
    spans: tuple[Span, ...]
    """In order, without gaps."""
    times_T: FloatArray = field(repr=False)
    """When the samples were taken, in seconds."""
    probabilities_TC: FloatArray = field(repr=False)
    """Each sample's own; calibrated where the card allows."""
    smoothed_TC: FloatArray = field(repr=False)
    """Smoothed over time."""
    warning: str | None = None
    """What is wrong with the video although it could be read, such as that it ends early."""

    def to_json(self) -> dict[str, Any]:
        """Everything, with probabilities rounded to four digits."""
        content: dict[str, Any] = {"video": self.video, "seconds": round(self.seconds, 3), "rate": self.rate}
        content |= {"mean_span": self.mean_span, "classes": list(self.classes)}
        content |= {} if self.warning is None else {"warning": self.warning}
        frames = {
            "time": [round(float(time), 3) for time in self.times_T],
            "probabilities": self.probabilities_TC.round(4).tolist(),
            "smoothed": self.smoothed_TC.round(4).tolist(),
        }
        return content | {"spans": [span.to_json() for span in self.spans], "frames": frames}
