"""`clip_har.embed_images`: embeddings of any number of images, one after the other. It writes nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from clip_har.backbone import Backbone
from clip_har.config import DEFAULT_MODEL, Precision
from clip_har.embedding.encoders import load_encoder
from clip_har.images.hashed_batches import Address, HashedBatch, hashed_batches
from clip_har.images.remote import location
from clip_har.progress import SILENT


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """One image."""

    path: str
    """As given."""
    sha256: str | None
    """SHA-256 in hex of the file's content; None where it has none."""
    embedding: npt.NDArray[np.float32] | None
    """Unit-length embedding [D]; None if the image cannot be read."""
    hidden: npt.NDArray[np.float32] | None
    """Features before the projection [H], where the image encoder has one."""
    error: str | None
    """Why the image cannot be read."""


def embed_images(
    images: Iterable[str | os.PathLike[str]],
    *,
    model: str | Backbone = DEFAULT_MODEL,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[EmbeddedImage]:
    """Embed image files, in order; memory does not grow with their number.

    Args:
        images: paths or URLs of image files; an iterator is read as embeddings are asked for.
        model: a name as for --model, the folder of a run, or a loaded model.
        device: "auto", or anything torch.device takes.
        precision: arithmetic of the image encoder.
        batch_size: images per forward pass.
        workers: processes that decode; 0 decodes in this one.

    Raises:
        UserError: the model cannot be used, or a worker was killed.
    """
    if isinstance(model, Backbone):
        backbone = model
    else:
        backbone = load_encoder(model, device=device, precision=precision, offline=False, progress=SILENT)
    remaining, asked = iter(images), deque[list[str]]()

    def batches() -> Iterator[list[Address]]:
        while names := [os.fspath(image) for image in islice(remaining, batch_size)]:
            asked.append(names)
            yield list(map(location, names))

    transform = backbone.info.preprocessing.pixel_transform()
    read = hashed_batches(batches(), transform, batch_size=batch_size, workers=workers)

    def answers() -> Iterator[EmbeddedImage]:
        with closing(read):  # the workers end with the loop that asks, also if it stops early
            for batch in read:
                yield from _embedded(backbone, asked.popleft(), batch)

    return answers()


def _embedded(backbone: Backbone, names: list[str], batch: HashedBatch) -> Iterator[EmbeddedImage]:
    normalise = backbone.info.preprocessing.normalise
    features = backbone.encode_images(normalise(batch.images_BCHW)) if len(batch.images_BCHW) else None
    row = 0
    for name, sha256, reason in zip(names, batch.sha256, batch.reasons, strict=True):
        if reason is not None or features is None:
            yield EmbeddedImage(path=name, sha256=sha256, embedding=None, hidden=None, error=reason)
            continue
        hidden = None if features.hidden_BH is None else features.hidden_BH[row].numpy()
        yield EmbeddedImage(
            path=name, sha256=sha256, embedding=features.embedding_BD[row].numpy(), hidden=hidden, error=None
        )
        row += 1
