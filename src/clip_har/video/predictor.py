"""Predictor.predict_video and predict_camera: frames scored in batches, smoothed over time, and made into spans.

What the frames are is in sampling.py; files of the results are in writing.py, plot.py and annotating.py.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from clip_har.errors import UnreadableImageError
from clip_har.progress import SILENT, Bar, Progress
from clip_har.video.opening import OpenVideo, UnreadableVideoError, open_video
from clip_har.video.records import VideoPrediction
from clip_har.video.sampling import Decoding, Sample, pixel_aspect, samples, timed_frames
from clip_har.video.smoothing import FloatArray, ForwardFilter, smooth
from clip_har.video.spans import Thresholds, spans_of
from clip_har.wording import withheld

if TYPE_CHECKING:
    from torch import Tensor

    from clip_har.run_model import RunModel

RATE = 2.0
"""Samples per second by default."""
MEAN_SPAN = 10.0
"""Expected length of an action by default, in seconds."""
BATCH_SIZE = 16
Policy = TypeVar("Policy", contravariant=True)


class Judge(Protocol):
    """What `predict.Judge` knows of a run's confidence."""

    answers_from: float
    known_from: float

    def calibrated(self, probabilities_NC: FloatArray) -> FloatArray:
        """Probabilities after temperature scaling."""


@dataclass(frozen=True, kw_only=True)
class LivePrediction:
    """What a run says of a camera's image, from it and those before."""

    time: float
    """Seconds from the first image."""
    label: str | None
    """The most likely class; None where its confidence does not suffice."""
    confidence: float
    """Its probability, smoothed over the past, in [0, 1]."""
    top: tuple[tuple[str, float], ...]
    """The most likely classes with their smoothed probabilities."""
    raw_C: FloatArray
    """Probabilities of this image alone."""
    unsure: bool = False
    """Whether the confidence is below what was asked."""
    unknown: bool = False
    """Whether the image is likely to show none of the classes; False unless that was asked for."""

    @property
    def shown_label(self) -> str:
        """The action, or what is written in its place."""
        return withheld(unsure=self.unsure, unknown=self.unknown) or self.label or ""

    def to_json(self) -> dict[str, Any]:
        """Without the image's own probabilities."""
        top = [{"label": label, "probability": round(probability, 4)} for label, probability in self.top]
        marks = {"unsure": self.unsure, "unknown": self.unknown}
        answer = {"time": round(self.time, 3), "label": self.label, "confidence": round(self.confidence, 4)}
        return {**answer, "top": top} | {mark: True for mark, holds in marks.items() if holds}


class PredictsVideo(ABC, Generic[Policy]):
    """The part of `Predictor` that reads videos."""

    model: RunModel
    classes: tuple[str, ...]
    _transform: Any

    @abstractmethod
    def judge(self, caution: Policy | None = None, classes: Sequence[str] | None = None) -> Judge:
        """What is known of the run's confidence."""

    def predict_video(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = RATE,
        mean_span: float = MEAN_SPAN,
        caution: Policy | None = None,
        batch_size: int = BATCH_SIZE,
        progress: Progress = SILENT,
    ) -> VideoPrediction:
        """Find the actions in a video file, one span after another.

        Frames are decoded one at a time; what grows with the video are the probabilities of its samples.

        Args:
            path: the file.
            rate: samples per second of presentation time.
            mean_span: expected length of an action in seconds, for the smoothing; 0: none.
            caution: an `AbstentionPolicy`, what is asked of the answers; its coverage is not used.
            batch_size: samples per forward pass.

        Raises:
            UnreadableVideoError: no frame of it can be decoded.
            ConfigError: PyAV is not installed.
            RunError: nothing is known of the run's confidence, or not enough for the policy.
        """
        judge, decoding = self.judge(caution), Decoding()
        with open_video(Path(path)) as video:
            times, scores = self._scored(video, decoding, rate=rate, batch_size=batch_size, progress=progress)
            warning = decoding.warning(video)
        return _prediction(
            str(path),
            times,
            scores,
            judge,
            classes=self.classes,
            end=decoding.end,
            rate=rate,
            mean_span=mean_span,
            warning=warning,
        )

    def predict_camera(
        self, images: Iterable[Sample], *, mean_span: float = MEAN_SPAN, caution: Policy | None = None
    ) -> Generator[LivePrediction, None, None]:
        """Answer for each image of a camera at once, smoothed over the images before it.

        Args:
            images: samples with images, such as those of `camera.latest_images`.

        Raises:
            RunError: as for `predict_video`.
        """
        judge, past = self.judge(caution), ForwardFilter(mean_span)
        for sample in images:
            assert sample.image is not None
            raw_1C = self._probabilities([self._transform(sample.image)])
            smoothed_C = past.update(judge.calibrated(raw_1C)[0], sample.time)
            ranked = (-smoothed_C).argsort(kind="stable").tolist()[:3]
            confidence = float(smoothed_C[ranked[0]])
            unknown = bool(raw_1C.max() < judge.known_from)
            unsure = not unknown and confidence < judge.answers_from
            yield LivePrediction(
                time=sample.time,
                label=None if unsure or unknown else self.classes[ranked[0]],
                confidence=confidence,
                top=tuple((self.classes[place], float(smoothed_C[place])) for place in ranked),
                raw_C=raw_1C[0],
                unsure=unsure,
                unknown=unknown,
            )

    def live_timeline(
        self,
        camera: str,
        times: Sequence[float],
        scores: Sequence[FloatArray],
        *,
        rate: float = RATE,
        mean_span: float = MEAN_SPAN,
        caution: Policy | None = None,
    ) -> VideoPrediction:
        """All that a camera showed as one timeline, smoothed with what came later too.

        Args:
            camera: its name.
            times: of the answers, at least one.
            scores: their `raw_C`.
        """
        return _prediction(
            camera,
            np.array(times),
            np.stack(scores),
            self.judge(caution),
            classes=self.classes,
            end=float(times[-1] + 1 / rate),
            rate=rate,
            mean_span=mean_span,
        )

    def _scored(
        self, video: OpenVideo, decoding: Decoding, *, rate: float, batch_size: int, progress: Progress
    ) -> tuple[FloatArray, FloatArray]:
        """The times of the samples [T] and the probabilities [T, C]."""
        times: list[float] = []
        batches: list[FloatArray] = []
        images: list[Tensor] = []
        repeats: list[int] = []
        name, total = Path(video.name).name, round(video.seconds or 0)
        with progress.bar(f"Reading {name}", total=total, unit="s of video") as bar:
            clock = _Clock(bar)
            try:
                for sample in samples(timed_frames(video, decoding), rate=rate, aspect=pixel_aspect(video)):
                    if sample.image is not None and len(images) == batch_size:
                        batches.append(np.repeat(self._probabilities(images), repeats, axis=0))
                        images, repeats = [], []
                    if sample.image is not None:
                        images.append(self._transform(sample.image))
                        repeats.append(0)
                    repeats[-1] += 1
                    times.append(sample.time)
                    clock.show(sample.time)
            except UnreadableImageError as error:
                raise UnreadableVideoError(
                    f"Cannot read {video.name}: {error.reason}", remedy="Convert it to smaller frames."
                ) from error
            if images:
                batches.append(np.repeat(self._probabilities(images), repeats, axis=0))
            clock.show(decoding.end)
        if not times:
            raise UnreadableVideoError(
                f"Cannot read {video.name}: no frame could be decoded", remedy="Check that the file is complete."
            )
        return np.array(times), np.concatenate(batches)

    def _probabilities(self, images: list[Tensor]) -> FloatArray:
        import torch

        scored = self.model.scores(torch.stack(images))
        return np.stack([scores.probabilities_C.numpy() for scores in scored]).astype(np.float64)


class _Clock:
    """Advances a bar by whole seconds."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._shown = 0

    def show(self, seconds: float) -> None:
        """So much of the video has been read."""
        if round(seconds) > self._shown:
            self._bar.advance(round(seconds) - self._shown)
            self._shown = round(seconds)


def _prediction(
    name: str,
    times_T: FloatArray,
    scores_TC: FloatArray,
    judge: Judge,
    *,
    classes: tuple[str, ...],
    end: float,
    rate: float,
    mean_span: float,
    warning: str | None = None,
) -> VideoPrediction:
    calibrated_TC = judge.calibrated(scores_TC)
    smoothed_TC = smooth(calibrated_TC, times_T, mean_span=mean_span)
    spans = spans_of(
        smoothed_TC,
        calibrated_TC,
        scores_TC,
        times_T,
        classes=classes,
        end=end,
        window=mean_span,
        thresholds=Thresholds(answers_from=judge.answers_from, known_from=judge.known_from),
    )
    return VideoPrediction(
        video=name,
        seconds=end,
        rate=rate,
        mean_span=mean_span,
        classes=classes,
        spans=spans,
        times_T=times_T,
        probabilities_TC=calibrated_TC,
        smoothed_TC=smoothed_TC,
        warning=warning,
    )
