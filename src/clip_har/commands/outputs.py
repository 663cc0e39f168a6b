"""Where the commands on datasets may write: anywhere but into the dataset's own folder.

What they write is decided by each of them.
"""

from __future__ import annotations

from pathlib import Path

from clip_har.dataset.sources import locate
from clip_har.errors import ConfigError


def require_outside_dataset(data: Path, **files: Path | None) -> None:
    """Refuse files that would lie in the dataset's folder, where the next command would find them.

    Args:
        data: the dataset: its folder, its name, or a file, whose folder it then is.
        files: flag -> file; None is not written.

    Raises:
        ConfigError: naming the first that does.
        DataError: the dataset is called by a name, and was not fetched.
    """
    located = locate(data).resolve()
    folder = located.parent if located.is_file() else located
    for flag, path in files.items():
        if path is not None and folder.is_dir() and path.resolve().is_relative_to(folder):
            raise ConfigError(
                f"--{flag} {path} is in the dataset directory, which is never modified",
                remedy=f"Pass a path outside {folder}.",
            )
