"""The split that the first command created for a dataset, saved in the cache so that later commands keep it.

The file is a manifest with a seal behind it. The split of a run is its own manifest.csv.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clip_har.dataset.records import ActionDataset
from clip_har.files import unless_unwritable
from clip_har.integrity import DamagedError, read_sealed, write_sealed
from clip_har.progress import SILENT, Progress


class SavedSplit:
    """A saved split, if there is a whole one.

    Args:
        path: where it is saved.
        progress: told if it is damaged; the split is then created again from the seed.
    """

    def __init__(self, path: Path, progress: Progress = SILENT) -> None:
        self.path = path
        self._progress = progress

    def paths(self) -> list[Path]:
        """The manifest to take splits from: none where nothing was saved, or what was saved is damaged."""
        try:
            read_sealed(self.path)
        except FileNotFoundError:
            return []
        except DamagedError:
            self._progress.warn(
                f"The saved split {self.path} is damaged or has no checksum: the split is created again from its seed"
            )
            return []
        return [self.path]

    def save(self, dataset: ActionDataset) -> None:
        """Write the dataset's split, whole or not at all."""
        content = dataset.manifest_csv().encode("utf-8", errors="backslashreplace")
        with suppress(FileNotFoundError, DamagedError):
            if read_sealed(self.path) == content:  # a cache that only can be read serves as well
                return
        said = f"{self.path.parent} cannot be written to: the split is not saved there"
        with unless_unwritable(self._progress.warn, said):
            write_sealed(self.path, content)
