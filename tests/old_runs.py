"""The model and images of the runs in fixtures/old_runs, and the script that made these runs.

    python tests/old_runs.py OUT

Weights and pixels come from whole numbers alone, so they are the same on every machine and in every version of torch;
the runs stay as the version that trained them wrote them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, LoraConfig, OptimizerConfig, TrainConfig
from clip_har.predict import Predictor
from samples import CLASSES, HUES, MODEL_CONFIG

# As narrow as can be: the vocabulary is most of the weights.
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1}
CONFIG = {**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"], "text_cfg": TEXT}}
FIXTURES = Path(__file__).parent / "fixtures" / "old_runs"
RUNS: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": "zero-shot"},
    "lora": {"method": "lora"},
    "lora-attention": {"method": "lora", "lora": LoraConfig(placement="attention", rank=2)},
    "linear-probe": {"method": "linear-probe"},
    "full": {"method": "full"},
    "two-tier": {"method": "two-tier"},
    "lp-ft": {"method": "lp-ft"},
    "wise-ft": {"method": "wise-ft"},
    "coop": {"method": "coop"},
    "clip-adapter": {"method": "clip-adapter"},
    "tip-adapter": {"method": "tip-adapter"},
    "tip-adapter-f": {"method": "tip-adapter-f"},
}
"""Folder -> what its TrainConfig has of its own."""


def write_counted_model(folder: Path) -> str:
    """Write a tiny CLIP whose weights are counted, not drawn; returns its name."""
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    tensors, start = {}, 1
    for key, old in sorted(model.state_dict().items()):
        numbers = np.arange(start, start + old.numel(), dtype=np.uint64) * 2_654_435_761 % 2**32
        spread = (numbers.astype(np.float64) / 2**32 - 0.5).astype(np.float32) * np.float32(0.25)
        start += old.numel()
        if key.endswith("logit_scale"):
            tensors[key] = torch.tensor(3.0)
        elif key.endswith(".weight") and old.ndim == 1:  # layer norms
            tensors[key] = torch.from_numpy(1 + spread).reshape(old.shape)
        elif key.startswith("token_embedding"):  # few values, which compress
            tensors[key] = torch.from_numpy((numbers % 17).astype(np.float32) / 64 - 0.125).reshape(old.shape)
        else:
            tensors[key] = torch.from_numpy(spread).reshape(old.shape)
    save_file(tensors, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def write_counted_image(path: Path, label: str, number: int) -> None:
    """Write a PNG of the class's colour with counted noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = np.arange(40 * 40 * 3, dtype=np.uint64) + number * 7919 + 1
    noise = (count * 2_654_435_761 % 2**32 // 2**26).astype(np.int64) - 32
    pixels = np.clip(np.array(HUES[label]) + noise.reshape(40, 40, 3), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_counted_images(folder: Path) -> Path:
    """Write the dataset the runs were trained on: three classes under train/ and test/."""
    for split, count in (("train", 10), ("test", 4)):
        for place, label in enumerate(CLASSES):
            for number in range(count):
                path = folder / split / label / f"{number}.png"
                write_counted_image(path, label, number + 100 * place + (1000 if split == "test" else 0))
    return folder


def scored_images(folder: Path) -> list[Path]:
    """The images for which the runs' answers are kept."""
    return sorted((folder / "test").rglob("*.png"))


def main(out: Path) -> None:
    """Train every run and write it, with its answers, into a folder."""
    with tempfile.TemporaryDirectory() as work:
        model, data = write_counted_model(Path(work) / "model"), write_counted_images(Path(work) / "data")
        backbone = BackboneConfig(model=model, workers=0, precision="float32", cache=Path(work) / "cache", device="cpu")
        for name, own in RUNS.items():
            given: dict[str, Any] = {"lora": LoraConfig(rank=2), **own}
            if own["method"] == "wise-ft":
                given["start_from"] = Path(work) / "lora-attention"
            config = TrainConfig(
                data=DataConfig(data=data),
                backbone=backbone,
                optimizer=OptimizerConfig(epochs=2, batch_size=8),
                out=Path(work) / name,
                **given,
            )
            run = commands.train(config)
            answers = Predictor(run.folder, model=model, device="cpu", precision="float32").predict(
                scored_images(data), top=len(CLASSES)
            )
            content = {Path(answer.image).relative_to(data).as_posix(): dict(answer.top) for answer in answers}
            shutil.rmtree(run.folder / "last", ignore_errors=True)
            shutil.rmtree(run.folder / "answers", ignore_errors=True)
            shutil.copytree(run.folder, out / name)
            (out / name / "answers.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
