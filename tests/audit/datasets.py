"""Drawn pictures in class folders, and what an audit without a model finds among them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip_har.audit.records import Audit, Finding, Kind
from clip_har.commands.audit import audit_data
from clip_har.config import AuditLimits, AuditSettings
from clip_har.dataset import SplitName
from clip_har.dataset.layout import FoundFile

NO_MODEL = AuditSettings(embeddings=False, workers=0)


def scene(seed: int, size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A picture of coloured blobs that no other seed resembles."""
    coarse_HWC = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse_HWC).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def put(root: Path, name: str, content: bytes | Image.Image | int) -> str:
    """Write an image (a number is a scene's seed) and return its name."""
    if isinstance(content, int):
        content = scene(content)
    if isinstance(content, Image.Image):
        content = jpeg(content)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    return name


def fill(root: Path, *, per_class: int = 3, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """Class folders of images without a fault: cycling and running under each split."""
    for number, (split, label) in enumerate((split, label) for split in splits for label in ("cycling", "running")):
        for index in range(per_class):
            put(root, f"{split}/{label}/{index}.jpg", 1000 * (number + 1) + index)
    return root


def audited(root: Path, *, limits: AuditLimits | None = None, **settings: Any) -> Audit:
    """Examined without a model."""
    return audit_data(root, settings=AuditSettings(embeddings=False, workers=0, **settings), limits=limits)


def found(audit: Audit, *kinds: Kind) -> list[Finding]:
    """The findings of some kinds."""
    return [finding for finding in audit.findings if finding.kind in kinds]


def names(finding: Finding) -> list[str]:
    return [file.name for file in finding.files]


def file(name: str, *, split: SplitName | None = None, sha256: str = "") -> FoundFile:
    """A file as the folder says: SPLIT/CLASS/NAME or CLASS/NAME."""
    return FoundFile(path=Path("/data", name), name=name, label=name.split("/")[-2], split=split, sha256=sha256)
