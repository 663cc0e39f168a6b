"""Writing files whole or not at all, and where cached files live. Knows nothing of their content."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Write a file so that a reader, or a run killed half-way, sees the old content or the new, not half.

    Folders that are missing are made. Text is UTF-8 on every system, its lines end as they are; what UTF-8
    cannot hold, such as undecodable bytes of a file's name, appears as \udcXX.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder(chosen: Path | None) -> Path:
    """The cache: `chosen`, else $CLIP_HAR_CACHE, else clip-har under the user's cache folder."""
    if chosen is not None:
        return chosen
    if from_environment := os.environ.get("CLIP_HAR_CACHE"):  # set but empty means unset
        return Path(from_environment)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clip-har"
