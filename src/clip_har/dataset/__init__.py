"""Labelled image folders -> `ActionDataset`: which image has which class and split, by content.

Reads file heads and hashes, never pixels; decoding is in images/. Never writes into the user's folder.
"""

from clip_har.dataset.classes import missing_classes_warning
from clip_har.dataset.holding_out import divided, held_out_classes, united
from clip_har.dataset.layout import SPLIT_FOLDERS
from clip_har.dataset.loading import load_dataset, read_images
from clip_har.dataset.manifests import read_manifest, write_manifest, write_unreadable
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
    "divided",
    "held_out_classes",
    "load_dataset",
    "missing_classes_warning",
    "read_images",
    "read_manifest",
    "united",
    "verify",
    "write_manifest",
    "write_unreadable",
]
