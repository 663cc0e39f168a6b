"""Peak memory of a training against what `clip-har models` states for it, each in a process of its own.

    python benchmarks/training_memory.py [--models demo,ViT-B-32,RN50] [--methods lora-attention,full] [--batch 16]

Random weights and noise images are used, so nothing is downloaded. Stated and measured are what the training adds to a
process that has imported everything.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, OptimizerConfig, TrainConfig
from clip_har.memory import PeakMemory
from clip_har.pretrained.architectures import known_architecture
from clip_har.pretrained.training_memory import training_memory

CLASSES = 5
FAMILY = {"linear-probe": "cached", "lora-attention": "lora", "full": "full"}


def write_model(architecture: str, folder: Path) -> str:
    """A folder with random weights of one of open_clip's architectures."""
    if architecture == "demo":
        return architecture
    folder.mkdir()
    model = open_clip.create_model(architecture)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def write_images(folder: Path, training: int) -> None:
    """Noise images in class folders: `training` of them to train on, few to validate and test."""
    draw = np.random.default_rng(0)
    for split, count in (("train", training), ("val", CLASSES), ("test", CLASSES)):
        for index in range(max(count, CLASSES)):
            path = folder / split / f"class {index % CLASSES}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)


def measure(model: str, method: str, batch: int, folder: Path) -> int:
    """Bytes that a training of three steps adds to this process."""
    for name in ("accelerate", "peft", "scipy.optimize", "sklearn.linear_model", "transformers", "matplotlib.pyplot"):
        importlib.import_module(name)  # they are no part of what the training takes
    write_images(folder / "images", 3 * batch)
    before = PeakMemory(torch.device("cpu")).bytes() or 0
    peak = PeakMemory(torch.device("cpu"))
    commands.train(
        TrainConfig(
            data=DataConfig(data=folder / "images"),
            backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0, cache=folder / "cache"),
            method="lora" if method == "lora-attention" else method,
            preset="lora-attention" if method == "lora-attention" else None,
            optimizer=OptimizerConfig(epochs=1, batch_size=None if method == "linear-probe" else batch),
            out=folder / "run",
        )
    )
    return (peak.bytes() or 0) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="demo,ViT-B-32,RN50")
    parser.add_argument("--methods", default=",".join(FAMILY))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, method, place = given.one.split("|")
        print(measure(name, method, given.batch, Path(place)))
        return
    for architecture in given.models.split(","):
        with tempfile.TemporaryDirectory() as place:
            name = write_model(architecture, Path(place) / "model")
            for method in given.methods.split(","):
                folder = Path(place) / method
                command = [sys.executable, __file__, f"--batch={given.batch}", f"--one={name}|{method}|{folder}"]
                printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                measured, known = int(printed.split()[-1]), known_architecture(architecture)
                known = known or known_architecture(f"{architecture}-quickgelu")
                assert known is not None
                stated = getattr(
                    training_memory(known, batch_size=given.batch, classes=CLASSES, on_cpu=True), FAMILY[method]
                )
                print(
                    f"{architecture:10} {method:15} batch {given.batch}: measured {measured / 2**20:7.0f} MiB, "
                    f"stated {stated / 2**20:7.0f} MiB, ratio {stated / measured:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
