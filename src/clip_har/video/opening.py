"""Whether a file is a video, and opening one through PyAV, or the reason why it cannot be read.

Decoding it is in sampling.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clip_har.errors import ConfigError, DataError, UnreadableImageError
from clip_har.images.formats import IMAGE_SUFFIXES, describe, open_source, read_head, sniff_head
from clip_har.images.limits import check_size

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mxf"}
)
"""Suffixes, lower case, by which a file claims to be a video."""
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,flv,asf,ogg,mxf,dv,nut,"
    "mp3,wav,aac,flac"
)
"""What FFmpeg may take a file for; playlists, which open other files and addresses, are not among it."""
MAX_FRAME_PIXELS = 36_000_000
"""Pixels per frame above which nothing is decoded: 8192 x 4320, the largest of cameras. Decoders keep up to 16."""
_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",
    b"FLV\x01",
    b"\x00\x00\x01\xba",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"\x06\x0e\x2b\x34",
)
_TS_PACKET = 188
_MICROSECONDS = 1_000_000


class UnreadableVideoError(DataError):
    """A file of which no frame can be decoded."""


@dataclass(frozen=True, kw_only=True)
class OpenVideo:
    """A video that can be decoded once, from its start."""

    name: str
    """Its path, for messages."""
    container: Any
    stream: Any
    """The first video stream that is not a cover picture."""
    seconds: float | None
    """How long its header says it is; None where it does not."""
    start: float
    """Presentation time of the file's start, in seconds, which counts as 0."""


def library() -> Any:
    """PyAV.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ConfigError(
            "Reading videos requires PyAV, which is not installed", remedy="Run: pip install 'clip-har[video]'"
        ) from error


def is_video(path: Path) -> bool:
    """Whether a file is a video by its first bytes, or claims to be one by its suffix and is no image.

    Of files with an image's suffix nothing is read: there may be very many.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    claims = path.suffix.lower() in VIDEO_SUFFIXES
    try:
        with open_source(path) as stream:
            head = read_head(stream)
    except UnreadableImageError:
        return claims
    return sniff_head(head) is None and (claims or _looks_like_video(head))


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a video file.

    Raises:
        UnreadableVideoError: it is missing, empty, not a video, has only sound, or its frames are too large.
        ConfigError: PyAV is not installed.
    """
    av = library()
    try:
        with open_source(path) as file:
            head = read_head(file)
            if not head:
                raise UnreadableImageError("it is an empty file")
            file.seek(0)
            with _container(av, file, head) as container:
                stream = _video_stream(container)
                yield OpenVideo(
                    name=str(path),
                    container=container,
                    stream=stream,
                    seconds=_stated_seconds(container, stream),
                    start=(container.start_time or 0) / _MICROSECONDS,
                )
    except UnreadableImageError as error:
        raise UnreadableVideoError(
            f"Cannot read {path}: {error.reason}", remedy="Pass a video file, such as an .mp4 or .mov."
        ) from error


def check_frame(width: int, height: int) -> None:
    """Refuse frames that are too large.

    Raises:
        UnreadableImageError: too many pixels in all or on a side.
    """
    check_size((width, height), MAX_FRAME_PIXELS)


@contextmanager
def _container(av: Any, file: BinaryIO, head: bytes) -> Iterator[Any]:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(MAX_FRAME_PIXELS)}
    try:
        container = av.open(file, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise UnreadableImageError(_why_not(head)) from error
    with container:
        yield container


def _why_not(head: bytes) -> str:
    """Why FFmpeg does not open a file, from its first bytes."""
    kind = sniff_head(head)
    if kind is not None:
        return f"it is not a video but an image ({kind})"
    if _looks_like_video(head):
        return "the video is damaged, was cut off before its index, or is still being written"
    described = describe(head)
    return f"it is not a video but {described}" if described != "unknown data" else "it is not a video that is known"


def _looks_like_video(head: bytes) -> bool:
    if head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if head[4:8] == b"ftyp":
        return describe(head) == "a video" and head[8:12] not in (b"M4A ", b"M4B ")
    return head[:1] == b"\x47" == head[_TS_PACKET : _TS_PACKET + 1] == head[2 * _TS_PACKET : 2 * _TS_PACKET + 1]


def _video_stream(container: Any) -> Any:
    av = library()
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        sound = "only sound" if container.streams.audio else "no video"
        raise UnreadableImageError(f"it contains {sound}")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise UnreadableImageError("its codec is not supported by the installed PyAV")
    check_frame(context.width, context.height)
    if context.width * context.height == 0:  # so FFmpeg leaves it where "max_pixels" stopped the probing
        raise UnreadableImageError(f"no frame can be decoded, or frames have more than {MAX_FRAME_PIXELS:,} pixels")
    context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """The shortest duration that the headers state: a container's is that of its longest stream."""
    stated = [float(stream.duration * stream.time_base)] if stream.duration else []
    stated += [container.duration / _MICROSECONDS] if container.duration else []
    stated += _tagged_seconds(stream.metadata.get("DURATION", ""))
    seconds = min(stated, default=None)
    if container.format.name == "avi" and stream.frames and stream.average_rate:  # FFmpeg guesses from the size
        seconds = max(seconds or 0.0, float(stream.frames / stream.average_rate))
    return seconds


def _tagged_seconds(text: str) -> list[float]:
    """Matroska's "00:01:00.000000000" -> 60.0; nothing for anything else."""
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        return []
    return [hours * 3600 + minutes * 60 + seconds]
