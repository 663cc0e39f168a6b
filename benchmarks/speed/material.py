"""What is measured on: images of HAR's size, and models with random weights, which are as fast as trained ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image, ImageFilter
from safetensors.torch import save_file

SIZE = (300, 200)
"""Width and height of an image of HAR, by the most frequent ones."""
SHAPES = (25, 38), (200, 300)
"""Height and width of an image's coarse and fine noise."""
CLASSES = 15


def write_photos(folder: Path, count: int, *, splits: bool = False) -> list[Path]:
    """JPEGs of smoothed noise of some 20 kB, in class folders; with `splits`, half of them to train on."""
    draw = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse, grain = (Image.fromarray(draw.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in SHAPES)
        image = Image.blend(
            coarse.resize(SIZE, Image.Resampling.BICUBIC), grain.filter(ImageFilter.GaussianBlur(1)), 0.4
        )
        part = folder / ("train", "train", "train", "val", "test")[index // CLASSES % 5] if splits else folder
        path = part / f"class_{index % CLASSES}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
        paths.append(path)
    return paths


def write_model(architecture: str, folder: Path) -> str:
    """A folder with random weights of one of open_clip's architectures, and what `--model` calls it."""
    if not folder.exists():
        folder.mkdir(parents=True)
        model = open_clip.create_model(architecture, load_weights=False)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
        config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"local-dir:{folder}"
