"""Encoding files end to end against the model alone, and against a plain loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from torch.utils.data import DataLoader

from clip_har.backbone import load_backbone
from clip_har.encoder_speed import images_per_second
from speed.harness import Row, in_pairs, row
from speed.material import write_model
from speed.plain_loops import PlainImages
from speed.whole_job import encoding_seconds, slices


def rows(folder: Path, *, pairs: int = 3) -> list[Row]:
    """ViT-B/32: files to embeddings."""
    backbone = load_backbone(write_model("ViT-B-32", folder / "model"))
    paths, few = slices(backbone, folder)
    images = len(paths)

    def end_to_end() -> float:
        return images / encoding_seconds(backbone, paths)

    ours, alone = in_pairs(end_to_end, lambda: images_per_second(backbone, seconds=5.0), pairs)
    again, plain = in_pairs(end_to_end, plain_loop(few), pairs)
    said = f"{images} JPEGs of 300 x 200 pixels, {backbone.precision}"
    return [
        row(
            "encoding files, of what the encoder alone does",
            "images/s",
            ours,
            alone,
            "the same encoder on tensors in memory",
            more_is_better=True,
            target=0.95,
            note=said,
        ),
        row(
            "encoding files",
            "images/s",
            again,
            plain,
            "open_clip and a DataLoader of two workers, float32",
            more_is_better=True,
            note=said,
        ),
    ]


def plain_loop(paths: list[Path]) -> Callable[[], float]:
    """Images per second of open_clip's model and transform behind a DataLoader."""
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", load_weights=False)
    model.eval()
    loader = DataLoader(PlainImages(paths, [0] * len(paths), preprocess), batch_size=64, num_workers=2)

    def measure() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for images_BCHW, _ in loader:
                model.encode_image(images_BCHW)
        return len(paths) / (time.perf_counter() - started)

    return measure
