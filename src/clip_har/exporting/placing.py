"""Where an export goes: a folder that appears whole or not at all, and never in place of something else.

What is in it is for the other modules; export.json marks a folder as an export.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_har.checkpoint import Run
from clip_har.errors import ConfigError

DESCRIPTION = "export.json"


def require_free(out: Path, run: Run, *, force: bool) -> None:
    """Refuse a folder that may not be written to, before anything slow. Writes nothing.

    Raises:
        ConfigError: a file is there, the run itself, or other files than an earlier export's without `force`.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", remedy="Pass a folder with --out.")
    if out.resolve() == run.folder.resolve():
        raise ConfigError(f"--out {out} is the run folder itself", remedy="Pass another folder with --out.")
    if not force and (others := _others(out)):
        raise ConfigError(
            f"--out {out} already exists and contains files that are not an export, such as {others[0]}",
            remedy="Choose another --out, or pass --force to write the export next to them.",
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A new folder next to `out`, to be filled; it is gone afterwards unless `place` has moved it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def place(stage: Path, out: Path) -> None:
    """Move a filled folder to `out`: in place of an earlier export, or among the files that are there.

    Raises:
        OSError: it cannot be written.
    """
    for path in (stage, *stage.rglob("*")):  # what mkdtemp and safetensors make is for one user only
        path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
    if not out.exists():
        stage.rename(out)
    elif not _others(out):
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
        out.rename(old / out.name)
        try:
            stage.rename(out)
        except OSError:
            (old / out.name).rename(out)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    else:
        for path in sorted(stage.iterdir(), key=lambda path: path.name == DESCRIPTION):  # the mark last
            path.replace(out / path.name)


def _others(out: Path) -> list[str]:
    """Names in a folder that no earlier export has written."""
    if not out.is_dir():
        return []
    own: set[str] = set()
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
        if isinstance(content["clip_har_version"], str):
            own = {DESCRIPTION, *map(str, content["files"])}
    return sorted(path.name for path in out.iterdir() if path.name not in own)


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
