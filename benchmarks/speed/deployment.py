"""Serving and export against the bare forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from clip_har import Predictor
from clip_har.commands import export, train
from clip_har.config import BackboneConfig, DataConfig, ExportConfig, TrainConfig
from speed.harness import Row, in_pairs, row
from speed.material import CLASSES, write_model, write_photos

IMAGES = 64


def rows(folder: Path, *, pairs: int = 3) -> list[Row]:
    """ViT-B/32 with a ridge classifier: a `Predictor` on files, one photo, and ONNX Runtime."""
    photos = folder / "split"
    paths = [str(path) for path in write_photos(photos, 10 * CLASSES, splits=True)][:IMAGES]
    run = folder / "ridge"
    train(
        TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(
                model=write_model("ViT-B-32", folder / "model"), precision="float32", cache=folder / "cache"
            ),
            method="ridge",
            out=run,
        )
    )
    predictor = Predictor(str(run), precision="float32")
    encoder = predictor.backbone
    images_BCHW = torch.randn(16, 3, 224, 224)

    def bare(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count // 16 or 1):
            encoder.encode_images(images_BCHW[: min(count, 16)])
        return count / (time.perf_counter() - started)

    def predicted(count: int) -> float:
        started = time.perf_counter()
        list(predictor.predict(iter(paths[:count])))
        return count / (time.perf_counter() - started)

    many, many_bare = in_pairs(lambda: predicted(IMAGES), lambda: bare(IMAGES), pairs)
    one, one_bare = in_pairs(lambda: 1000 / predicted(1), lambda: 1000 / bare(1), 5 * pairs)
    found = [
        row(
            f"Predictor on {IMAGES} files",
            "images/s",
            many,
            many_bare,
            "bare forward pass, tensors in memory",
            more_is_better=True,
        ),
        row("Predictor on one file", "ms", one, one_bare, "bare forward pass, a tensor in memory"),
    ]
    return found + exported(run, folder, bare, pairs)


def exported(run: Path, folder: Path, bare: Callable[[int], float], pairs: int) -> list[Row]:
    """The run in ONNX Runtime, on tensors in memory."""
    import onnxruntime

    out = folder / "onnx"
    export(run, ExportConfig(format="onnx", out=out, certificate=False))
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    (name,) = (item.name for item in session.get_inputs())
    batch_BCHW = torch.randn(16, 3, 224, 224).numpy()

    def onnx() -> float:
        started = time.perf_counter()
        for _ in range(IMAGES // 16):
            session.run(None, {name: batch_BCHW})
        return IMAGES / (time.perf_counter() - started)

    own, other = in_pairs(onnx, lambda: bare(IMAGES), pairs)
    return [
        row(
            "exported to ONNX, in ONNX Runtime",
            "images/s",
            own,
            other,
            "bare forward pass in torch, tensors in memory",
            more_is_better=True,
            note="float32, batches of 16",
        )
    ]
