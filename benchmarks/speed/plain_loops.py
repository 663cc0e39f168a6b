"""The references: what one writes with open_clip, torch and PEFT alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Image files through open_clip's own transform."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], preprocess: Callable[[Any], Tensor]) -> None:
        self.paths, self.labels, self.preprocess = paths, labels, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.preprocess(image.convert("RGB")), self.labels[index]
