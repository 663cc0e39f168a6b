"""Cameras and streams: the newest image at a steady rate, however slow the model is.

What a run makes of the images is in predictor.py.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_har.errors import DataError, first_line
from clip_har.video.opening import library
from clip_har.video.sampling import Sample, upright_image

SECONDS_TO_ANSWER = 10.0
"""How long a stream may send nothing."""
_SECONDS_TO_END = 2.0
_INPUTS = {"Linux": ("v4l2", "/dev/video{}"), "Darwin": ("avfoundation", "{}"), "Windows": ("dshow", "video={}")}


def open_camera(source: str) -> Iterator[Any]:
    """Frames of a camera, as PyAV gives them. It is closed when the iterator ends or is closed.

    Args:
        source: the number of a camera, a device such as /dev/video0, or an address such as rtsp://HOST/PATH.

    Raises:
        DataError: it cannot be opened.
        ConfigError: PyAV is not installed.
    """
    av = library()
    name, kind = _input(source)
    try:
        container = av.open(name, format=kind, timeout=SECONDS_TO_ANSWER)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"Cannot open the camera {source}: {first_line(error, longest=100)}",
            remedy="Check that it is connected and that no other program uses it.",
        ) from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{source} has no video", remedy="Pass the number of a camera, or an address.")
    return _until_lost(container)


def latest_images(
    frames: Iterable[Any], *, rate: float, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
) -> Generator[Sample, None, None]:
    """The newest image each time it is asked for, at most `rate` per second; images meanwhile are dropped.

    Args:
        frames: PyAV's, as they come; read, and closed if that is possible, in a thread.
        seconds: when to end, from the first image.
        clock: seconds.
    """
    newest = _Newest(frames, clock)
    newest.start()
    first: float | None = None
    try:
        due = clock()
        while (taken := newest.take(due)) is not None:
            arrived, frame = taken
            first = arrived if first is None else first
            if seconds is not None and arrived - first >= seconds:
                return
            yield Sample(time=arrived - first, image=upright_image(frame))
            due = max(arrived + 1 / rate, clock())
    finally:
        newest.stop()


class _Newest(threading.Thread):
    """Reads frames and keeps the last one."""

    def __init__(self, frames: Iterable[Any], clock: Callable[[], float]) -> None:
        super().__init__(name="camera", daemon=True)
        self._frames = iter(frames)
        self._clock = clock
        self._changed = threading.Condition()
        self._frame: tuple[float, Any] | None = None
        self._ended = False
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    if self._ended:
                        return
                    self._frame = (self._clock(), frame)
                    self._changed.notify()
        except BaseException as error:
            self._error = error
        finally:
            with suppress(Exception):  # here and not by who asks: no other thread may be reading meanwhile
                getattr(self._frames, "close", lambda: None)()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def take(self, due: float) -> tuple[float, Any] | None:
        """The first frame that arrives at `due` or later, with its time of arrival; None at the end.

        Raises:
            Exception: what ended the reading.
        """
        with self._changed:
            while self._frame is None or self._frame[0] < due:
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                self._changed.wait(0.1)  # not for ever: Ctrl-C must come through
            taken, self._frame = self._frame, None
            return taken

    def stop(self) -> None:
        """Let the thread end, and wait for it for a moment; a stream that sends nothing may keep it for longer."""
        with self._changed:
            self._ended = True
        with suppress(RuntimeError):
            self.join(_SECONDS_TO_END)


def _input(source: str) -> tuple[str, str | None]:
    """FFmpeg's name of a source, and the input format that reads it; None for addresses and files."""
    if "://" in source:
        return source, None
    kind, device = _INPUTS.get(platform.system(), _INPUTS["Linux"])
    if source.isdecimal():
        return device.format(source), kind
    return source, None if Path(source).is_file() else kind


def _until_lost(container: Any) -> Iterator[Any]:
    """The frames until the connection ends."""
    av = library()
    with container, suppress(av.EOFError, av.ExitError):
        for packet in container.demux(container.streams.video[0]):
            with suppress(av.InvalidDataError):
                yield from packet.decode()
