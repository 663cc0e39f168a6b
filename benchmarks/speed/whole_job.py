"""The whole job of the predecessor: encode HAR's 12,600 images, train LoRA for 15 epochs, evaluate.

A slice of the images is encoded and the time scaled; the 15 epochs are trained at full size, on random embeddings; all
else (start, loading of the weights, evaluation, report) is the time of the real command with its embeddings cached.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clip_har.backbone import Backbone, load_backbone
from clip_har.config import DataConfig, TrainConfig
from clip_har.config.settings import resolve
from clip_har.dataset import ImageRecord
from clip_har.encoder_speed import images_per_second
from clip_har.features import FeatureStore
from clip_har.images.workers import worker_count
from clip_har.methods import LabelledImages, Task, method_class
from clip_har.trainer import fit
from speed.harness import Row, in_pairs, multiplies, row, seconds_of
from speed.material import CLASSES, write_model, write_photos
from speed.plain_loops import PlainImages

IMAGES, TRAIN, VAL, TEST = 12_600, 8_820, 1_890, 1_890
SLICE_SECONDS = 6.0
"""How long encoding the slice takes, about."""
EPOCHS = 15
BATCH = 64
PASSES = EPOCHS * (TRAIN + VAL) + TEST
"""Images that a loop encodes which keeps no features: training and validation split in each epoch, then the test's."""


def rows(folder: Path, *, pairs: int = 3) -> list[Row]:
    """Whole job and, from the same figures, the rate of encoding."""
    model = write_model("ViT-B-32", folder / "model")
    backbone = load_backbone(model)
    paths, few = slices(backbone, folder)
    images = len(paths)
    ours_each, plain_each = in_pairs(
        lambda: encoding_seconds(backbone, paths) / images, plain_epoch(few, captions=True), pairs
    )
    _, silent_each = in_pairs(lambda: 0.0, plain_epoch(few, captions=False), pairs)
    rest = command_seconds(model, folder)
    trained = training_seconds(backbone.info.embed_dim)
    ours = [IMAGES * each + trained + rest for each in ours_each]
    note = (
        f"scaled from {images} images, the loop from {len(few)}; encoding {IMAGES * min(ours_each):.0f} s, "
        f"15 epochs {trained:.1f} s, start, loading, evaluation and report {rest:.1f} s"
    )
    return [
        row(
            "whole job: encode, LoRA for 15 epochs, evaluate",
            "s",
            ours,
            [PASSES * each for each in plain_each],
            "loop that encodes images and captions again in every epoch, float32",
            target=_target(),
            note=note,
        ),
        row(
            "the same against a loop without captions",
            "s",
            ours,
            [PASSES * each for each in silent_each],
            "loop that encodes the images again in every epoch, float32",
            note=note,
        ),
    ]


def slices(backbone: Backbone, folder: Path) -> tuple[list[Path], list[Path]]:
    """Images that the encoder reads in several seconds, and a part of them for slower loops."""
    rate = images_per_second(backbone)
    count = min(640, max(BATCH, round(SLICE_SECONDS * rate / BATCH) * BATCH))
    paths = write_photos(folder / "photos", count)
    return paths, paths[: 2 * BATCH if count > 2 * BATCH else BATCH]


def _target() -> float:
    return {"AMX bfloat16": 100.0, "AVX-512 bfloat16": 50.0}.get(multiplies(), 15.0)


def encoding_seconds(backbone: Backbone, paths: list[Path]) -> float:
    """Seconds of reading, decoding and encoding the files into a new feature store, by the defaults."""
    records = [
        ImageRecord(path=path, name=path.name, sha256=f"{index:064x}", label="running", split="train")
        for index, path in enumerate(paths)
    ]
    with tempfile.TemporaryDirectory() as cache:
        store = FeatureStore(Path(cache), backbone, workers=worker_count(-1))
        return seconds_of(lambda: store.encode(records))


def plain_epoch(paths: list[Path], *, captions: bool) -> Callable[[], float]:
    """Seconds per image of one epoch of the loop that keeps no features: open_clip, a DataLoader, LoRA on top."""
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", load_weights=False)
    model.eval()
    tokens_CL = open_clip.get_tokenizer("ViT-B-32")([f"a photo of a person number {n}" for n in range(CLASSES)])
    adapters = nn.ModuleList([PlainLora(512), PlainLora(512)])
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-3)
    labels = [index % CLASSES for index in range(len(paths))]
    loader = DataLoader(PlainImages(paths, labels, preprocess), batch_size=BATCH, num_workers=2)

    def epoch() -> float:
        started = time.perf_counter()
        for images_BCHW, labels_B in loader:
            with torch.no_grad():
                image_BD = F.normalize(model.encode_image(images_BCHW), dim=-1)
                class_CD = F.normalize(model.encode_text(tokens_CL), dim=-1)
                if captions:
                    model.encode_text(tokens_CL[labels_B])
            image_BD = F.normalize(adapters[0](image_BD), dim=-1)
            loss = F.cross_entropy(100 * image_BD @ F.normalize(adapters[1](class_CD), dim=-1).T, labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - started) / len(paths)

    return epoch


class PlainLora(nn.Module):
    """x + 2 B A x."""

    def __init__(self, width: int, rank: int = 16) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x_ND: Tensor) -> Tensor:
        update_ND: Tensor = self.up(self.down(x_ND))
        return x_ND + 2 * update_ND


def training_seconds(width: int) -> float:
    """Seconds of `EPOCHS` of `lora` on random embeddings of HAR's number."""
    task = random_task(width)
    config = TrainConfig(data=DataConfig(data=Path()))
    chosen = method_class("lora", config)
    method = chosen(resolve(config, chosen.defaults(config, None)))  # type: ignore[arg-type]
    classifier = method.build(task)

    def train() -> None:
        for state in fit(method, classifier, task, method.settings):
            if state.epoch_end:
                classifier.probabilities(task.val)

    return seconds_of(train)


class RandomTable:
    """Stands in for features.FeatureTable."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = self.hidden = embedding
        self.hashes = tuple(map(str, range(len(embedding))))

    def __len__(self) -> int:
        return len(self.embedding)


def random_task(width: int) -> Task:
    """Random unit-length embeddings and prompts: the time does not depend on their values."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    def split(count: int) -> LabelledImages:
        labels_N = torch.randint(CLASSES, (count,), generator=generator)
        return LabelledImages(table=RandomTable(unit(count, width)), labels_N=labels_N)  # type: ignore[arg-type]

    prompts_CD = unit(CLASSES, width)
    return Task(
        classes=tuple(map(str, range(CLASSES))),
        templates=("a photo of a person {}",),
        captions_CTD=prompts_CD[:, None],
        prompts_CD=prompts_CD,
        logit_scale=100.0,
        load_backbone=None,  # type: ignore[arg-type]
        train=split(TRAIN),
        val=split(VAL),
        seed=0,
    )


def command_seconds(model: str, folder: Path) -> float:
    """Seconds of `clip-har compare --methods lora` on a few images that are encoded already, start to end."""
    photos = folder / "few"
    write_photos(photos, 10 * CLASSES, splits=True)
    words = [sys.executable, "-m", "clip_har", "compare", "--data", str(photos), "--model", model]
    words += ["--methods", "lora", "--cache", str(folder / "cache"), "--out"]
    for name in ("first", "second"):
        started = time.perf_counter()
        subprocess.run([*words, str(folder / name)], check=True, capture_output=True)
        seconds = time.perf_counter() - started
    return seconds
