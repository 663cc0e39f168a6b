"""Files of a timeline: exact text of subtitles and tables, the fields of the JSON, and the plot."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from clips import png_size

from clip_har.video import Span, VideoPrediction
from clip_har.video.plot import timeline_png
from clip_har.video.writing import as_csv, as_json, as_srt, as_webvtt


def span(start: float, end: float, label: str | None, confidence: float, **marks: bool) -> Span:
    top = ((label or "running", confidence), ("sitting", 0.05))
    return Span(start=start, end=end, label=label, confidence=confidence, smoothed=0.99, top=top, **marks)


@pytest.fixture
def timeline() -> VideoPrediction:
    smoothed_TC = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    return VideoPrediction(
        video="a/clip.mp4",
        seconds=3725.5,
        rate=2.0,
        mean_span=10.0,
        classes=("drinking", "running"),
        spans=(
            span(0.0, 75.25, "drinking", 0.912345),
            span(75.25, 75.2504, "running", 0.8),
            span(75.2504, 3600.0, None, 0.3, unsure=True),
            span(3600.0, 3725.5, None, 0.2, unknown=True),
        ),
        times_T=np.array([0.0, 1800.0, 3600.0]),
        probabilities_TC=smoothed_TC / 2 + 0.25,
        smoothed_TC=smoothed_TC,
    )


def test_srt(timeline: VideoPrediction) -> None:
    assert as_srt(timeline) == (
        "1\n00:00:00,000 --> 00:01:15,250\ndrinking (91 %)\n\n"
        "2\n00:01:15,250 --> 01:00:00,000\nunsure\n\n"
        "3\n01:00:00,000 --> 01:02:05,500\nnone of these\n"
    )


def test_webvtt(timeline: VideoPrediction) -> None:
    assert as_webvtt(timeline) == (
        "WEBVTT\n\n00:00:00.000 --> 00:01:15.250\ndrinking (91 %)\n\n"
        "00:01:15.250 --> 01:00:00.000\nunsure\n\n"
        "01:00:00.000 --> 01:02:05.500\nnone of these\n"
    )


def test_names_from_outside_break_no_subtitles(timeline: VideoPrediction) -> None:
    hostile = dataclasses.replace(timeline, spans=(span(0, 1, "a\n\n2 --> <b>&", 0.5),))
    assert as_srt(hostile) == "1\n00:00:00,000 --> 00:00:01,000\na 2 -> <b>& (50 %)\n"
    assert as_webvtt(hostile).splitlines()[3] == "a 2 --&gt; &lt;b&gt;&amp; (50 %)"


def test_csv(timeline: VideoPrediction) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(timeline))))
    assert rows[0] == {
        "start": "0.000",
        "end": "75.250",
        "label": "drinking",
        "confidence": "0.9123",
        "smoothed": "0.99",
        "unsure": "false",
        "unknown": "false",
        "label_1": "drinking",
        "probability_1": "0.9123",
    }
    assert [row["label"] for row in rows] == ["drinking", "running", "", ""]
    assert [row["unsure"] for row in rows] == ["false", "false", "true", "false"]
    assert rows[3]["unknown"] == "true" and rows[3]["label_1"] == "running"


def test_json(timeline: VideoPrediction) -> None:
    content = json.loads(as_json(timeline))
    assert set(content) == {"video", "seconds", "rate", "mean_span", "classes", "spans", "frames"}
    assert content["spans"][0] == {
        "start": 0.0,
        "end": 75.25,
        "label": "drinking",
        "confidence": 0.9123,
        "smoothed": 0.99,
        "top": [{"label": "drinking", "probability": 0.9123}, {"label": "sitting", "probability": 0.05}],
    }
    assert content["spans"][2]["unsure"] is True and content["spans"][2]["label"] is None
    assert content["spans"][3]["unknown"] is True and "unsure" not in content["spans"][3]
    assert content["frames"]["time"] == [0.0, 1800.0, 3600.0]
    assert content["frames"]["smoothed"] == [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]
    assert content["frames"]["probabilities"][0] == [0.7, 0.3]
    warned = dataclasses.replace(timeline, warning="ends early")
    assert json.loads(as_json(warned))["warning"] == "ends early"


def test_the_plot_is_a_picture_whatever_the_length_and_the_names(timeline: VideoPrediction) -> None:
    assert png_size(timeline_png(timeline))[0] > 1000
    count = 5001
    long = dataclasses.replace(
        timeline,
        classes=("$x_1", "_running"),
        spans=(span(0.0, 3725.5, "$x_1", 0.9),),
        times_T=np.linspace(0, 3725, count),
        smoothed_TC=np.full((count, 2), 0.5),
    )
    assert png_size(timeline_png(long))[0] > 1000
    short = dataclasses.replace(timeline, seconds=0.04, spans=(span(0.0, 0.04, "drinking", 0.9),))
    one = dataclasses.replace(short, times_T=np.zeros(1), smoothed_TC=np.array([[0.9, 0.1]]))
    assert png_size(timeline_png(one))[0] > 1000
