"""HAR from Kaggle or the Hugging Face hub, unpacked safely and arranged as class folders.

Reading the result is in dataset/; the command that ties the steps together is in commands/fetch.py.
"""

from clip_har.download.arranging import Arranged, arrange
from clip_har.download.har import HAR_CLASSES, SOURCES, FetchSource
from clip_har.download.hub import download_hub
from clip_har.download.kaggle import download_kaggle
from clip_har.download.unpacking import UnpackLimits, unpack

__all__ = [
    "HAR_CLASSES",
    "SOURCES",
    "Arranged",
    "FetchSource",
    "UnpackLimits",
    "arrange",
    "download_hub",
    "download_kaggle",
    "unpack",
]
