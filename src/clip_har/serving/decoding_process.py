"""What a process that decodes uploads does: bytes in, the pixels that a model wants or the reason out.

Which process gets which upload, and what becomes of one that dies, is in decoders.py. Nothing here needs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import torch

from clip_har.errors import UnreadableImageError
from clip_har.images.decoding import decode_lenient
from clip_har.images.preprocessing import PixelTransform
from clip_har.images.workers import ignore_interrupts


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """An upload as far as it could be read."""

    pixels_CHW: npt.NDArray[np.uint8] | None = None
    """None where it is unreadable."""
    warning: str | None = None
    """What is missing of it."""
    reason: str | None = None
    """Why it is unreadable."""


def read(content: bytes, transform: PixelTransform, max_pixels: int) -> Pixels:
    """Decode one image file and bring it to the model's size."""
    try:
        decoded = decode_lenient(content, max_pixels=max_pixels, enough_side=transform.enough_side)
        return Pixels(pixels_CHW=np.ascontiguousarray(transform(decoded.image).numpy()), warning=decoded.warning)
    except UnreadableImageError as error:
        return Pixels(reason=error.reason)
    except MemoryError:
        return Pixels(reason="too large for this machine's memory")


def work(connection: Connection, transforms: Sequence[PixelTransform], max_pixels: int) -> None:
    """Answer (number of a transform, file content) by `Pixels` until the other end is closed."""
    ignore_interrupts()
    torch.set_num_threads(1)
    while True:
        try:
            number, content = connection.recv()
            connection.send(read(content, transforms[number], max_pixels))
        except (EOFError, OSError):  # the server has ended
            return
        content = b""  # the last upload is not kept until the next one comes
