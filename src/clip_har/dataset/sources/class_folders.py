"""Class folders as a source: one subfolder of images per class, below train/, val/ and test/ or without these.

Which folder means what is decided in layout.py.
"""

from __future__ import annotations

from pathlib import Path

from clip_har.dataset.layout import find_layout
from clip_har.dataset.records import SPLITS
from clip_har.dataset.sources.base import Source


def read_class_folders(root: Path) -> Source:
    """Find the class folders of a dataset and the files in them.

    Raises:
        DataError: there are none, or what is there can be read in more than one way.
    """
    layout = find_layout(root)
    splits = [split for split in SPLITS if split in layout.splits()]
    return Source(
        root=layout.root,
        form="class folders" + (f" under {', '.join(f'{split}/' for split in splits)}" if splits else ""),
        files=tuple(layout.files()),
        warnings=layout.warnings,
        class_folders=layout.training_classes(),
        split_folders=layout.splits(),
    )
