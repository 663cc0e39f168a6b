"""A copy of a video with the action written on each frame.

Which action is shown when comes from a VideoPrediction; the sound is not copied.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from clip_har.errors import DataError
from clip_har.files import written_whole
from clip_har.progress import SILENT, Progress
from clip_har.video.opening import library, open_video
from clip_har.video.records import Span, VideoPrediction
from clip_har.video.sampling import Decoding, TimedFrame, pixel_aspect, timed_frames, upright_image
from clip_har.video.writing import caption
from clip_har.wording import shortened

ENCODERS: dict[str, dict[str, str]] = {"libx264": {"preset": "veryfast"}, "mpeg4": {"qscale": "4", "flags": "+qscale"}}
"""H.264 if this build of FFmpeg encodes it, else MPEG-4 part 2; and their options."""
TIME_BASE = Fraction(1, 90_000)
"""Ticks of the copy's times in seconds, as MPEG uses them."""
BAR = 0.09
"""Height of the caption's bar as a fraction of the frame's."""
_LEAST_BAR = 16  # pixels
_CAPTION_LENGTH = 60


def write_annotated(source: Path, prediction: VideoPrediction, out: Path, *, progress: Progress = SILENT) -> None:
    """Write an MP4 file with the frames of `source`, upright and at their times, and each span's caption on them.

    The file appears under its name when it is complete.

    Raises:
        UnreadableVideoError: `source` cannot be read.
        DataError: `out` is `source`.
        OSError: `out` cannot be written.
    """
    if out.exists() and out.samefile(source):
        raise DataError(f"{out} is the video itself", remedy="Pass another file for the annotated copy.")
    decoding = Decoding()
    with (
        open_video(source) as video,
        written_whole(out) as file,
        progress.bar(f"Writing {out.name}", total=round(prediction.seconds), unit="s of video") as bar,
    ):
        av, shown = library(), 0
        captions = _Captions(prediction.spans)
        with av.open(file, "w", format="mp4") as container:
            encoder: _Encoder | None = None
            for timed in timed_frames(video, decoding):
                image = upright_image(timed.frame, pixel_aspect(video))
                encoder = encoder or _Encoder(container, image.size, video.stream.average_rate)
                encoder.add(_captioned(image, captions.at(timed.time)), timed)
                if int(timed.time) > shown:
                    bar.advance(int(timed.time) - shown)
                    shown = int(timed.time)
            if encoder is not None:
                encoder.finish()


class _Encoder:
    """One video stream of an open container."""

    def __init__(self, container: Any, size: tuple[int, int], rate: Fraction | None) -> None:
        self._av = library()
        self._container = container
        self._size = (max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2))  # 4:2:0 needs even sides
        name = _encoder_name()
        self._stream = self._container.add_stream(name, rate=_rate(rate), options=ENCODERS[name])
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", 0  # one per core
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE
        self._last = -1

    def add(self, image: Image.Image, timed: TimedFrame) -> None:
        frame = self._av.VideoFrame.from_image(image if image.size == self._size else image.resize(self._size))
        frame.pts = self._last = max(self._last + 1, round(timed.time / TIME_BASE))
        frame.time_base = TIME_BASE
        self._write(frame)

    def finish(self) -> None:
        self._write(None)

    def _write(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _Captions:
    """The spans' captions by time, asked for in order."""

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self._spans = spans
        self._place = 0

    def at(self, time: float) -> str:
        while self._place + 1 < len(self._spans) and time >= self._spans[self._place].end:
            self._place += 1
        return shortened(caption(self._spans[self._place]), _CAPTION_LENGTH)


def _captioned(image: Image.Image, text: str) -> Image.Image:
    """The image with a dark bar at its lower edge, and the text on it, as large as fits."""
    height = min(image.height, max(_LEAST_BAR, round(image.height * BAR)))
    bar = Image.new("RGB", (image.width, height), (20, 24, 30))
    draw = ImageDraw.Draw(bar)
    size = height * 0.62
    font = ImageFont.load_default(size)
    length = draw.textlength(text, font=font)
    if length > image.width * 0.96:
        font = ImageFont.load_default(max(6.0, size * image.width * 0.96 / length))
    draw.text((image.width / 2, height / 2), text, font=font, fill="white", anchor="mm")
    covered = image.crop((0, image.height - height, image.width, image.height))
    image.paste(Image.blend(covered, bar, 0.8), (0, image.height - height))
    return image


def _encoder_name() -> str:
    av = library()
    for name in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # UnknownCodecError
            continue
        return name
    raise DataError(
        "The installed PyAV can encode neither H.264 nor MPEG-4",
        remedy="Install PyAV from PyPI, or remove --annotated.",
    )


def _rate(rate: Fraction | None) -> Fraction:
    return Fraction(rate).limit_denominator(1001) if rate and 0.1 <= rate <= 1000 else Fraction(25)
