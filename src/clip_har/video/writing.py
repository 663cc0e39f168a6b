"""A video's spans as text: JSON, CSV, and subtitles in SRT and WebVTT.

The plot is in plot.py; which file is written where is decided by the command.
"""

from __future__ import annotations

import json

from clip_har.csv_cells import csv_text
from clip_har.video.records import Span, VideoPrediction
from clip_har.wording import number, one_line

COLUMNS = ("start", "end", "label", "confidence", "smoothed", "unsure", "unknown", "label_1", "probability_1")
_SHORTEST_CUE = 1  # milliseconds


def as_json(prediction: VideoPrediction) -> str:
    """Spans and samples."""
    return json.dumps(prediction.to_json(), ensure_ascii=False) + "\n"


def as_csv(prediction: VideoPrediction) -> str:
    """A row per span; `label_1` is the most likely class also where the label is withheld."""
    return csv_text(COLUMNS, (_row(span) for span in prediction.spans))


def as_srt(prediction: VideoPrediction) -> str:
    """SubRip subtitles: a cue per span."""
    cues = [
        f"{place}\n{_clock(span.start, ',')} --> {_clock(span.end, ',')}\n{caption(span).replace('-->', '->')}\n"
        for place, span in enumerate(_long_enough(prediction), start=1)
    ]
    return "\n".join(cues)


def as_webvtt(prediction: VideoPrediction) -> str:
    """WebVTT subtitles (https://www.w3.org/TR/webvtt1/): a cue per span."""
    cues = [
        f"{_clock(span.start, '.')} --> {_clock(span.end, '.')}\n{_escaped(caption(span))}\n"
        for span in _long_enough(prediction)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def caption(span: Span) -> str:
    """A span in a few words: "drinking (91 %)"; nothing but "unsure" where the label is withheld."""
    return one_line(span.shown_label if span.label is None else f"{span.label} ({100 * span.confidence:.0f} %)")


WRITERS = {".json": as_json, ".csv": as_csv, ".srt": as_srt, ".vtt": as_webvtt}
"""Suffix -> what makes the text of such a file."""


def _row(span: Span) -> tuple[object, ...]:
    label, probability = span.top[0]
    return (
        f"{span.start:.3f}",
        f"{span.end:.3f}",
        span.label or "",
        number(round(span.confidence, 4)),
        number(round(span.smoothed, 4)),
        str(span.unsure).lower(),
        str(span.unknown).lower(),
        label,
        number(round(probability, 4)),
    )


def _long_enough(prediction: VideoPrediction) -> list[Span]:
    return [span for span in prediction.spans if _milliseconds(span.end) - _milliseconds(span.start) >= _SHORTEST_CUE]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float, mark: str) -> str:
    """75.25 -> "00:01:15,250"."""
    whole, thousandths = divmod(_milliseconds(seconds), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}{mark}{thousandths:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
