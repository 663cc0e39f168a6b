"""Labelled image folders -> `ActionDataset`: which image has which class and split, by content.

Reads file heads and hashes, never pixels; decoding is in images/. Never writes into the user's folder.
"""

from clip_har.dataset.classes import missing_classes_warning
from clip_har.dataset.layout import SPLIT_FOLDERS
from clip_har.dataset.loading import load_dataset
from clip_har.dataset.manifests import write_manifest, write_unreadable
from clip_har.dataset.records import (
    MANIFEST_COLUMNS,
    SPLITS,
    ActionDataset,
    ImageRecord,
    SplitName,
    UnreadableImage,
)

__all__ = [
    "MANIFEST_COLUMNS",
    "SPLITS",
    "SPLIT_FOLDERS",
    "ActionDataset",
    "ImageRecord",
    "SplitName",
    "UnreadableImage",
    "load_dataset",
    "missing_classes_warning",
    "write_manifest",
    "write_unreadable",
]
