"""Images per second from JPEG files to model-size tensors: this project's way against Pillow and torchvision's.

    python benchmarks/decode_speed.py [--images 2000] [--workers 2] [--model local-dir:FOLDER]

Both ways load the same files with the same number of worker processes in alternating rounds. With a model, the cosine
between the embeddings of the two ways is printed. The larger photographs are decoded at half their size. On a busy
machine the images per second of processor time say more than those of wall time.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, cast

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clip_har.backbone import load_backbone
from clip_har.demo.scenes import ACTIONS, draw_action
from clip_har.images import Preprocessing, decode, decode_batches

CLIP = Preprocessing(
    image_size=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
BATCH_SIZE = 64


def usual_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """open_clip's own evaluation transform: Pillow's resizing, torchvision's crop, tensor and normalisation."""
    config = PreprocessCfg(
        size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        resize_mode=preprocessing.resize_mode,
        fill_color=preprocessing.fill_color,
    )
    transform: Callable[[Image.Image], Tensor] = image_transform_v2(config, is_train=False)
    return transform


class UsualDataset:
    """What most training scripts have."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths = paths
        self.transform = usual_transform(preprocessing)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def usual(paths: Sequence[Path], preprocessing: Preprocessing, workers: int) -> Iterator[Tensor]:
    """Normalised float32 batches by Pillow and torchvision."""
    dataset = cast("Dataset[Tensor]", UsualDataset(paths, preprocessing))
    yield from DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=workers)


def ours(paths: Sequence[Path], preprocessing: Preprocessing, workers: int) -> Iterator[Tensor]:
    """uint8 batches as the encoder and the training get them before they normalise."""
    batches = decode_batches(paths, preprocessing.pixel_transform(), batch_size=BATCH_SIZE, workers=workers)
    yield from (batch.images_BCHW for batch in batches)


def ours_normalised(paths: Sequence[Path], preprocessing: Preprocessing, workers: int) -> Iterator[Tensor]:
    """The same, normalised in this process."""
    yield from (preprocessing.normalise(images_BCHW) for images_BCHW in ours(paths, preprocessing, workers))


def write_photographs(folder: Path, count: int, size: tuple[int, int], given: Path | None) -> list[Path]:
    """Write JPEGs of one size: of the files in a folder, else of drawn scenes with a photograph's noise.

    There are at most 200 different ones; the others are copies under other names.
    """
    folder.mkdir()
    contents = [_as_jpeg(image, size) for image in _pictures(min(count, 200), given)]
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
    return paths


def _pictures(count: int, given: Path | None) -> Iterator[Image.Image]:
    if given is not None:
        found = sorted(given.rglob("*.jpg"))
        yield from (decode(path) for path in found[:: max(1, len(found) // count)][:count])
        return
    generator = np.random.default_rng(0)
    for seed in range(count):
        scene = np.asarray(draw_action(ACTIONS[seed % len(ACTIONS)], Random(seed)), dtype=np.float32)
        large = np.kron(scene, np.ones((4, 4, 1), dtype=np.float32))
        yield Image.fromarray((large + generator.normal(0, 8, large.shape)).clip(0, 255).astype(np.uint8))


def _as_jpeg(image: Image.Image, size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class Rate(NamedTuple):
    """Images per second, the start of the workers included."""

    wall: float
    """Of wall time."""
    cpu: float
    """Of processor time, this process and its workers together: what one core that does nothing else would do."""


def rate(batches: Iterator[Tensor]) -> Rate:
    """Take all batches, as fast as they come."""
    started, cpu_started, count = time.perf_counter(), _cpu_seconds(), 0
    for images_BCHW in batches:
        count += len(images_BCHW)
    return Rate(count / (time.perf_counter() - started), count / (_cpu_seconds() - cpu_started))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def report_speed(paths: Sequence[Path], workers: int, rounds: int) -> None:
    """Print the rates and their ratio."""
    ways = {"pillow + torchvision": usual, "clip-har, uint8": ours, "clip-har, normalised": ours_normalised}
    found: dict[str, list[Rate]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(rate(way(paths, CLIP, workers)))
    base = statistics.median(one.wall for one in found["pillow + torchvision"])
    for name, rates in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*rates, strict=True))
        print(f"  {name:22s} {wall:7.0f} images/s   x {wall / base:.2f}   {cpu:7.0f} images per second of one core")


def report_cosines(name: str, model: str, paths: Sequence[Path]) -> None:
    """Print how far the embeddings of the two ways are apart."""
    backbone = load_backbone(model, device="cpu", precision="float32")
    preprocessing = backbone.info.preprocessing
    one_ND, other_ND = (
        torch.cat([backbone.encode_images(images_BCHW).embedding_BD for images_BCHW in way(paths, preprocessing, 0)])
        for way in (usual, ours_normalised)
    )
    cosines_N = (one_ND * other_ND).sum(dim=-1)
    print(f"  {name}: cosine of {len(paths)} embeddings: least {cosines_N.min():.6f}, mean {cosines_N.mean():.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="folder of photographs to use in place of drawn scenes")
    parser.add_argument("--model", help="compare embeddings of this model")
    parser.add_argument("--compared", type=int, default=100, help="images whose embeddings are compared")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size, count in (((500, 333), given.images), ((3200, 2128), given.images // 20)):
            paths = write_photographs(Path(folder) / f"{size[0]}", count, size, given.photos)
            print(f"{count} JPEGs of {size[0]} x {size[1]}, {given.workers} workers, medians of {given.rounds} rounds")
            report_speed(paths, given.workers, given.rounds)
            if given.model:
                report_cosines(given.model, given.model, paths[: given.compared])


if __name__ == "__main__":
    main()
