"""Frames of an open video, one at a time, and those shown at regular times.

Opening is in opening.py; what a run makes of the frames is in predictor.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from clip_har.video.opening import OpenVideo, check_frame, library

LONGEST_STILL = 3600.0
"""Seconds between two frames above which their times are taken for damaged, and the next follows at once."""
_BACKWARDS = 1.0  # seconds
_ROUNDING = 1e-6  # seconds
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, kw_only=True)
class TimedFrame:
    """A decoded frame."""

    time: float
    """When it is shown, in seconds from the start of the file."""
    frame: Any
    """PyAV's frame, in the format of the video."""
    seconds: float
    """How long it is shown, if it is the last."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a video shows at one time."""

    time: float
    """Seconds from the start of the file."""
    image: Image.Image | None
    """Upright RGB image; None where the same frame is still shown as in the sample before."""


@dataclass(kw_only=True)
class Decoding:
    """How decoding went; complete when the frames have been read."""

    end: float = 0.0
    """When the last frame ended, in seconds."""
    frames: int = 0
    damaged: int = 0
    """Packets that could not be decoded."""

    def warning(self, video: OpenVideo) -> str | None:
        """What is missing of the video, or None."""
        missing = 0.0 if video.seconds is None else video.seconds - self.end
        if missing > max(0.5, 2 * _frame_seconds(video)):
            return f"ends early: {self.end:.1f} s of {video.seconds:.1f} s could be decoded"
        if self.damaged:
            return f"{self.damaged} damaged packets were skipped"
        return None


def timed_frames(video: OpenVideo, decoding: Decoding) -> Iterator[TimedFrame]:
    """Decode a video from its start; what cannot be decoded is skipped and counted.

    Times never decrease: frames without a time follow the one before, and so do those after a jump of the clock.
    """
    interval, shift, last = _frame_seconds(video), 0.0, 0.0
    for frame in _frames(video, decoding):
        stated = decoding.end if frame.time is None else max(0.0, frame.time - video.start) + shift
        if decoding.frames and not decoding.end - _BACKWARDS - interval <= stated <= decoding.end + LONGEST_STILL:
            shift += decoding.end - stated
            stated = decoding.end
        seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else interval
        seconds = seconds if 0 < seconds <= LONGEST_STILL else interval
        last = stated = max(last, stated)
        decoding.frames += 1
        decoding.end = max(decoding.end, stated + seconds)
        yield TimedFrame(time=stated, frame=frame, seconds=seconds)


def samples(frames: Iterable[TimedFrame], *, rate: float, aspect: float = 1.0) -> Iterator[Sample]:
    """What is shown at the first frame's time and every 1/rate seconds after it, until the last frame ends.

    A frame that is shown for longer, as in a video of variable frame rate, gives several samples. At most two frames
    are held.

    Args:
        frames: by time.
        rate: samples per second.
        aspect: width of a pixel divided by its height.

    Raises:
        UnreadableImageError: a frame is too large.
    """
    shown: TimedFrame | None = None
    first = following = end = 0.0
    number = 0
    for timed in itertools.chain(frames, (None,)):
        until, fresh = end if timed is None else timed.time, True
        while shown is not None and following < until - _ROUNDING:
            yield Sample(time=following, image=upright_image(shown.frame, aspect) if fresh else None)
            number, fresh = number + 1, False
            following = first + number / rate
        if timed is None:
            return
        if shown is None:
            first = following = timed.time
        shown, end = timed, max(end, timed.time + timed.seconds)


def upright_image(frame: Any, aspect: float = 1.0) -> Image.Image:
    """A frame as an upright RGB image with square pixels.

    Args:
        frame: PyAV's, whose `rotation` is in degrees counterclockwise, as telephones record it.
        aspect: width of a pixel divided by its height.

    Raises:
        UnreadableImageError: it is too large.
    """
    width = max(1, round(frame.width * aspect))
    check_frame(frame.width, frame.height)
    check_frame(width, frame.height)
    image: Image.Image = frame.to_image(width=width, height=frame.height)
    turn = _TURNS.get(round(frame.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)


def pixel_aspect(video: OpenVideo) -> float:
    """Width of a pixel divided by its height; 1 where the video does not say or says nonsense."""
    aspect = float(video.stream.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 else 1.0


def _frames(video: OpenVideo, decoding: Decoding) -> Iterator[Any]:
    av = library()
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # the rest of the file cannot be read
            decoding.damaged += 1
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            decoding.damaged += 1
            continue
        yield from frames


def _frame_seconds(video: OpenVideo) -> float:
    """How long a frame is shown on average, where it does not say itself."""
    rate = video.stream.average_rate
    return float(1 / rate) if rate and 0.1 <= rate <= 1000 else 0.04
