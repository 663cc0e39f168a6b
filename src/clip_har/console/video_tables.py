"""A video's spans as a table for a terminal, and as lines for another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from clip_har.console.table import ShownTable
from clip_har.shown_text import shown

if TYPE_CHECKING:
    from clip_har.video import LivePrediction, VideoPrediction


def timeline_table(prediction: VideoPrediction) -> ShownTable:
    """A row per span."""
    table = ShownTable(title=prediction.video)
    for name in ("start", "end", "action", "confidence", "smoothed", "next"):
        table.add_column(
            name, justify="right" if name in ("start", "end", "confidence", "smoothed") else "left", overflow="fold"
        )
    for span in prediction.spans:
        others = span.top if span.label is None else span.top[1:]
        table.add_row(
            clock(span.start),
            clock(span.end),
            Text(span.shown_label, style="" if span.label is not None else "italic"),
            f"{span.confidence:.1%}",
            f"{span.smoothed:.1%}",
            Text(", ".join(f"{label} {probability:.1%}" for label, probability in others)),
        )
    return table


def timeline_lines(prediction: VideoPrediction) -> str:
    """A line of tab-separated fields per span: video, start, end, action, confidence, smoothed probability."""
    rows = (
        (
            prediction.video,
            f"{span.start:.3f}",
            f"{span.end:.3f}",
            span.shown_label,
            f"{span.confidence:.4f}",
            f"{span.smoothed:.4f}",
        )
        for span in prediction.spans
    )
    return "".join("\t".join(map(shown, row)) + "\n" for row in rows)


def live_line(answer: LivePrediction) -> str:
    """What a camera shows now."""
    return f"{clock(answer.time)}  {answer.shown_label}  {answer.confidence:.0%}"


def live_fields(answer: LivePrediction) -> str:
    """The same as a line of tab-separated fields: time in seconds, action, confidence."""
    return "\t".join((f"{answer.time:.3f}", shown(answer.shown_label), f"{answer.confidence:.4f}")) + "\n"


def clock(seconds: float) -> str:
    """75.25 -> "1:15.2"; 3675.0 -> "1:01:15.0"."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"
