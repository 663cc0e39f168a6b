"""Datasets of every form that loads without conversion -> the images they list, with classes and splits.

Reads names, tables and labels; whether a file is an image is decided in dataset/reading.py.
"""

from clip_har.dataset.sources.base import Source
from clip_har.dataset.sources.guessing import find_source
from clip_har.dataset.sources.locating import locate, remember

__all__ = ["Source", "find_source", "locate", "remember"]
