"""Video files made for the tests: plain colours, coloured noise as in samples.py, drawn scenes, and damaged ones."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image, ImageChops, ImageEnhance

from clip_har.demo.scenes import draw_action

MILLISECONDS = Fraction(1, 1000)
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (250, 250, 250)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, colour)


def write_clip(
    path: Path,
    images: Iterable[Image.Image],
    *,
    fps: int = 10,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    codec: str = "mpeg4",
    sound: bool = False,
) -> Path:
    """Encode images as a video.

    Args:
        times: when each is shown, in milliseconds; by default `fps` per second.
        rotation: degrees counterclockwise by which a player turns it.
        sound: whether there is a second of silence too.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = None
        if sound:
            tone = container.add_stream("aac", rate=16_000, layout="mono")
        for place, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options={"qscale": "2", "flags": "+qscale"})
                stream.width, stream.height, stream.pix_fmt = *image.size, "yuv420p"
                stream.codec_context.time_base = MILLISECONDS if times else Fraction(1, fps)
                if rotation is not None:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_image(image)
            frame.time_base = MILLISECONDS if times else Fraction(1, fps)
            frame.pts = times[place] if times else place
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16_000, 0
            container.mux(tone.encode(silence))
            container.mux(tone.encode())
    return path


def write_sound(path: Path) -> Path:
    """An MP4 file without a video."""
    return write_clip(path, [], sound=True)


def colours(*parts: tuple[tuple[int, int, int], int]) -> list[Image.Image]:
    """So many frames of each colour."""
    return [plain(colour) for colour, count in parts for _ in range(count)]


def scenes(parts: Sequence[tuple[str, float]], *, fps: int, shot: float, seed: int) -> list[Image.Image]:
    """Frames of drawn actions of so many seconds each; every `shot` seconds another picture, which shakes meanwhile."""
    rng, frames = Random(seed), list[Image.Image]()
    for action, seconds in parts:
        for place in range(round(seconds * fps)):
            if place % round(shot * fps) == 0:
                picture = draw_action(action, rng)
            shaken = ImageChops.offset(picture, rng.randint(-4, 4), rng.randint(-4, 4))
            frames.append(ImageEnhance.Brightness(shaken).enhance(rng.uniform(0.85, 1.15)))
    return frames


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    return tuple(round(value) for value in np.asarray(image).reshape(-1, 3).mean(axis=0))


def is_near(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    """Whether an image is of this colour, but for what the codec loses."""
    return max(abs(a - b) for a, b in zip(mean_colour(image), colour, strict=True)) < 30


def png_size(content: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(content)).size
