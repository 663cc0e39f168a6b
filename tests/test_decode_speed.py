"""The fast way from a JPEG to a model's pixels changes nothing that the model sees.

How fast it is, benchmarks/decode_speed.py measures.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from torch import Tensor

import hostile_images as hostile
from clip_har.backbone import Backbone, load_backbone
from clip_har.demo.scenes import ACTIONS, draw_action
from clip_har.images import decode, decode_batches
from test_images import open_clip_transform


@pytest.fixture(scope="module")
def demo() -> Backbone:
    return load_backbone("demo", device="cpu", precision="float32")


def scenes(folder: Path, size: tuple[int, int]) -> list[Path]:
    """One drawn scene of each action, as a JPEG of some size."""
    paths = []
    for number, action in enumerate(ACTIONS):
        scene = draw_action(action, Random(number)).resize(size, Image.Resampling.LANCZOS)
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(hostile.encode(scene, "JPEG", quality=90))
    return paths


def fast(paths: list[Path], backbone: Backbone) -> Tensor:
    preprocessing = backbone.info.preprocessing
    batches = list(decode_batches(paths, preprocessing.pixel_transform(), batch_size=4, workers=0))
    assert all(batch.images_BCHW.dtype == torch.uint8 for batch in batches)
    pixels_BCHW = torch.cat([batch.images_BCHW for batch in batches])
    return backbone.encode_images(preprocessing.normalise(pixels_BCHW)).embedding_BD


def exact(paths: list[Path], backbone: Backbone) -> Tensor:
    transform = open_clip_transform(backbone.info.preprocessing)
    images_BCHW = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    return backbone.encode_images(images_BCHW).embedding_BD


@pytest.mark.parametrize("size", [(500, 333), (800, 600), (600, 1200), (1201, 801)])
def test_embeddings_are_those_of_pillow_and_torchvision(tmp_path: Path, demo: Backbone, size: tuple[int, int]) -> None:
    paths = scenes(tmp_path, size)
    cosines_N = (fast(paths, demo) * exact(paths, demo)).sum(dim=-1)
    assert cosines_N.min() > 0.9995


def test_large_photographs_are_decoded_at_a_fraction(tmp_path: Path, demo: Backbone) -> None:
    side = demo.info.preprocessing.pixel_transform().enough_side
    assert side == 288
    shrunk = {size: decode(scenes(tmp_path, size)[0], enough_side=side).size for size in ((800, 600), (640, 480))}
    assert shrunk == {(800, 600): (400, 300), (640, 480): (640, 480)}
