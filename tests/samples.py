"""Generated models and images that the tests share: a tiny random CLIP, and photographs told apart by colour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

CLASSES = ("cycling", "drinking", "running")
HUES = {"cycling": (200, 60, 50), "drinking": (60, 190, 70), "running": (60, 70, 200)}
MODEL_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def write_model(folder: Path, config: dict[str, Any], *, seed: int) -> str:
    """Write a randomly initialised model of any configuration; returns its name."""
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def write_image(path: Path, colour: tuple[int, int, int], *, seed: int, size: int = 40) -> None:
    """A noisy square of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 25, (size, size, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def write_colours(root: Path, colours: Mapping[str, tuple[int, int, int]], *, train: int, test: int = 6) -> Path:
    """Write class folders of noisy images, each class in its colour."""
    for split, count in (("train", train), ("test", test)):
        for number, (label, colour) in enumerate(colours.items()):
            for index in range(count):
                seed = 100 * number + index + 5000 * (split == "test")
                write_image(root / split / label / f"{index}.jpg", colour, seed=seed)
    return root


def write_dataset(root: Path, *, train: int = 12, test: int = 6) -> Path:
    """Class folders under train/ and test/, three classes told apart by colour."""
    for split, count in (("train", train), ("test", test)):
        for number, label in enumerate(CLASSES):
            for index in range(count):
                seed = number * 1000 + index + (500 if split == "test" else 0)
                write_image(root / split / label / f"{label}_{index:03d}.jpg", HUES[label], seed=seed)
    return root
