"""Whether the frozen layers of a training are worth computing once, and doing so, before its first epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clip_har import distributed
from clip_har.backbone import Backbone
from clip_har.config import Settings
from clip_har.experiment.setup import Experiment
from clip_har.features import store_key
from clip_har.files import unless_unwritable
from clip_har.layer_cache import LayerCache
from clip_har.methods import Classifier, LabelledImages, SplitTower, Task, Towers, split_tower
from clip_har.progress import Progress

TOLERANCE = 1e-3
"""Largest difference between unit-length embeddings through the split and the whole encoder, on the device."""


def with_frozen_layers(
    classifier: Classifier, task: Task, settings: Settings, experiment: Experiment, progress: Progress
) -> Task:
    """The same task, its images as tokens of the layers that stay as they are, where that pays and fits on the disk.

    Args:
        classifier: before any training; on return it takes such tokens in place of images.
    """
    split = _worthwhile(classifier, settings)
    if split is None:
        return task
    assert isinstance(classifier, Towers)
    classifier.to(experiment.model.backbone.device)
    shape = _shape(classifier, split, experiment.model.backbone)
    if shape is None:
        return task
    cache = LayerCache(
        experiment.model.store.cache,
        {"features": store_key(experiment.model.backbone), "depth": split.depth},
        shape=shape,
        dtype=np.float32 if settings.backbone.precision in ("auto", "float32") else np.float16,
        progress=progress,
    )
    if not _fill(cache, classifier, split, (task.train, task.val), progress):
        return task
    classifier.split = split
    train, val = (dataclasses.replace(images, layers=cache) for images in (task.train, task.val))
    return dataclasses.replace(task, train=train, val=val)


def _worthwhile(classifier: Classifier, settings: Settings) -> SplitTower | None:
    """The split, if the images look the same in several epochs and the steps run in one piece."""
    fixed = settings.augmentation.augment == "none" and settings.augmentation.mixup == 0
    fixed = fixed and settings.augmentation.train_image_size is None and not settings.optimizer.train_batchnorm
    plain = settings.engine.layer_cache and not settings.engine.fsdp and settings.backbone.precision != "fp16-pure"
    if not (isinstance(classifier, Towers) and fixed and plain and settings.optimizer.epochs > 1):
        return None
    return split_tower(classifier.model)


@torch.no_grad()
def _shape(classifier: Towers, split: SplitTower, backbone: Backbone) -> tuple[int, int] | None:
    """Tokens and width behind the frozen layers; None if the two parts are not the whole, which is tried."""
    height, width = backbone.info.preprocessing.image_size
    noise_BCHW = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(classifier.device)
    classifier.eval()
    tokens_BLW = split.below(noise_BCHW)
    parts_BD = torch.nn.functional.normalize(split.rest(tokens_BLW), dim=-1)
    same = torch.allclose(parts_BD, classifier.encode_images(noise_BCHW), rtol=0, atol=TOLERANCE)
    return (tokens_BLW.shape[1], tokens_BLW.shape[2]) if same else None


def _fill(
    cache: LayerCache, classifier: Towers, split: SplitTower, splits: tuple[LabelledImages, ...], progress: Progress
) -> bool:
    """Compute what is missing, each process its share; False if it does not fit or cannot be written."""
    files = {sha256: (images, row) for images in splits for row, sha256 in enumerate(images.table.hashes)}
    missing: list[str] = distributed.gather_objects(cache.missing(list(files)))[0]
    needed = len(missing) * cache.image_bytes
    if missing:
        what = f"layers 1 to {split.depth} of {split.layers}"
        said = f"{len(missing):,} images take {needed / 1e9:.2f} GB in {cache.folder}"
        free = distributed.gather_objects(cache.free_bytes())[0]
        if needed > free:
            progress.note(f"No cache of frozen layers: {said}, where {free / 1e9:.2f} GB are free")
            return False
        progress.note(f"Cache of frozen layers ({what}): {said}; {free / 1e9:.0f} GB are free")
    warned = f"{cache.folder} cannot be written to: the frozen layers are computed in every epoch"
    with unless_unwritable(progress.warn, warned):
        own = missing[distributed.rank() :: distributed.world_size()]
        cache.write(_tokens(classifier, split, files, own, progress))
    distributed.barrier()
    if distributed.world_size() > 1:
        cache.reopen()
    return not any(distributed.gather_objects(bool(cache.missing(list(files)))))


@torch.no_grad()
def _tokens(
    classifier: Towers,
    split: SplitTower,
    files: dict[str, tuple[LabelledImages, int]],
    wanted: list[str],
    progress: Progress,
) -> Iterator[tuple[list[str], Tensor]]:
    """Yield the hashes and the tokens [B, L, W] of the images wanted, on the CPU."""
    classifier.eval()
    with progress.bar("Computing frozen layers", total=len(wanted), unit="images") as bar:
        for images in {id(images): images for images, _ in files.values()}.values():
            rows = {files[sha256][1]: sha256 for sha256 in wanted if files[sha256][0] is images}
            assert images.files is not None
            for indices, images_BCHW in images.files.evaluation_batches(rows):
                yield [rows[index] for index in indices], split.below(images_BCHW.to(classifier.device)).float().cpu()
                bar.advance(len(indices))
