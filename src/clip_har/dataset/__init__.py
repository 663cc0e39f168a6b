"""Labelled image folders -> `ActionDataset`: which image has which class and split, by content.

Reads file heads and hashes, never pixels; decoding is in images/. Never writes into the user's folder.
"""

from clip_har.dataset.classes import missing_classes_warning
from clip_har.dataset.layout import SPLIT_FOLDERS
from clip_har.dataset.loading import load_dataset, read_images
from clip_har.dataset.manifests import read_manifest, write_manifest, write_unreadable
from clip_har.dataset.novel_classes import merge_novel, novel_class_names, split_novel
from clip_har.dataset.records import (
    MANIFEST_COLUMNS,
    SPLITS,
    ActionDataset,
    ImageRecord,
    SplitName,
    UnreadableImage,
)
from clip_har.dataset.verifying import GivenManifest, Verification, verify

__all__ = [
    "MANIFEST_COLUMNS",
    "SPLITS",
    "SPLIT_FOLDERS",
    "ActionDataset",
    "GivenManifest",
    "ImageRecord",
    "SplitName",
    "UnreadableImage",
    "Verification",
    "load_dataset",
    "merge_novel",
    "missing_classes_warning",
    "novel_class_names",
    "read_images",
    "read_manifest",
    "split_novel",
    "verify",
    "write_manifest",
    "write_unreadable",
]
