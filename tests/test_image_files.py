"""Batches of a split's image files: the right images in their order, and views that an interruption cannot change."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clip_har.errors import DataError
from clip_har.images import ImageFiles, Preprocessing, decode
from clip_har.images.addresses import file_of

AUGMENTS: tuple[Literal["none", "light", "strong"], ...] = ("none", "light", "strong")
PREPROCESSING = Preprocessing(image_size=(24, 24), mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.4))


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    generator = np.random.default_rng(0)
    for number in range(9):
        pixels = generator.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", quality=95)
    return ImageFiles(paths=tuple(sorted(tmp_path.iterdir())), preprocessing=PREPROCESSING, workers=0)


def with_workers(files: ImageFiles, workers: int) -> ImageFiles:
    return ImageFiles(paths=files.paths, preprocessing=files.preprocessing, workers=workers)


def train(
    files: ImageFiles,
    batches: Sequence[Sequence[int]],
    *,
    augment: Literal["none", "light", "strong"] = "light",
    image_size: int | None = None,
    seed: int = 0,
) -> list[Tensor]:
    return list(files.training_batches(batches, augment=augment, image_size=image_size, seed=seed))


def global_state() -> tuple[list[int], bytes, object]:
    """Return where the global generators of torch, numpy and Python stand."""
    return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()  # noqa: NPY002


# Evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_the_models_own_frames_in_the_order_asked(files: ImageFiles, workers: int) -> None:
    order = [7, 2, 2, 8, 0]
    batches = list(with_workers(files, workers).evaluation_batches(iter(order), batch_size=2))
    assert [indices for indices, _ in batches] == [[7, 2], [2, 8], [0]]
    transform = PREPROCESSING.transform()
    for indices, images_BCHW in batches:
        expected_BCHW = torch.stack([transform(decode(files.paths[index])) for index in indices])
        assert torch.equal(images_BCHW, expected_BCHW)


def test_no_indices_give_no_batches(files: ImageFiles) -> None:
    assert list(with_workers(files, 2).evaluation_batches([])) == []
    assert train(with_workers(files, 2), []) == []


def test_a_subset_is_in_the_order_given(files: ImageFiles) -> None:
    subset = files.subset([5, 1])
    assert subset.paths == (files.paths[5], files.paths[1])
    assert len(subset) == 2
    assert (subset.preprocessing, subset.workers) == (files.preprocessing, files.workers)


# Training


@pytest.mark.parametrize("workers", [0, 2])
def test_training_without_augmentation_shows_the_evaluation_frames(files: ImageFiles, workers: int) -> None:
    batches = [[3, 1, 3], [8], [], [0, 2]]
    shown = train(with_workers(files, workers), batches, augment="none")
    frames: dict[int, Tensor] = {}
    for [index], images_BCHW in files.evaluation_batches(range(9), batch_size=1):
        frames[index] = images_BCHW[0]
    assert [len(images_BCHW) for images_BCHW in shown] == [3, 1, 0, 2]
    for batch, images_BCHW in zip(batches, shown, strict=True):
        assert all(torch.equal(image, frames[index]) for index, image in zip(batch, images_BCHW, strict=True))


@pytest.mark.parametrize("augment", AUGMENTS)
def test_the_image_size_holds(files: ImageFiles, augment: Literal["none", "light", "strong"]) -> None:
    (images_BCHW,) = train(files, [[0, 1]], augment=augment, image_size=16)
    assert images_BCHW.shape == (2, 3, 16, 16)
    assert images_BCHW.dtype == torch.float32


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_workers_do_not_change_the_views(files: ImageFiles, augment: Literal["light", "strong"]) -> None:
    batches = [[0, 1, 2], [3, 4, 4], [5, 6], [7, 8, 0]]
    alone = train(files, batches, augment=augment)
    for workers in (1, 2):
        together = train(with_workers(files, workers), batches, augment=augment)
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rest_of_an_interrupted_epoch_is_what_it_would_have_been(files: ImageFiles, workers: int) -> None:
    batches = [[0, 1, 2], [3, 4, 0], [5, 6, 5], [7, 8, 2]]
    files = with_workers(files, workers)
    whole = train(files, batches)
    for done in range(1, 4):
        rest = train(files, batches[done:])
        assert all(torch.equal(one, other) for one, other in zip(whole[done:], rest, strict=True))


def test_views_differ_by_seed_and_by_repetition(files: ImageFiles) -> None:
    (first,), (other_seed,) = train(files, [[4, 4, 4]], seed=1), train(files, [[4, 4, 4]], seed=2)
    shown = [*first, *other_seed]
    assert all(not torch.equal(shown[i], shown[j]) for i in range(6) for j in range(i))
    (with_others,) = train(files, [[0, 4, 1, 4, 4]], seed=1)
    assert torch.equal(with_others[[1, 3, 4]], first)


def test_indices_may_be_tensors(files: ImageFiles) -> None:
    batches = [[0, 4], [4, 2]]
    from_tensors = train(files, list(torch.tensor(batches)))
    assert all(torch.equal(one, other) for one, other in zip(train(files, batches), from_tensors, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_neither_read_nor_changed(files: ImageFiles, workers: int) -> None:
    files = with_workers(files, workers)
    torch.manual_seed(1)
    one = train(files, [[0, 1], [2]], augment="strong")
    torch.manual_seed(2)
    before = global_state()
    two = train(files, [[0, 1], [2]], augment="strong")
    list(files.evaluation_batches([0, 1, 2], batch_size=2))
    after = global_state()
    assert before == after
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# Files that are gone


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_became_unreadable_is_named(files: ImageFiles, workers: int) -> None:
    file_of(files.paths[6]).write_bytes(file_of(files.paths[6]).read_bytes()[:300])
    files = with_workers(files, workers)
    with pytest.raises(DataError, match=r"6\.jpg .*ends early"):
        train(files, [[0, 1], [5, 6]])
    file_of(files.paths[6]).unlink()
    with pytest.raises(DataError, match=r"6\.jpg .*no such file"):
        list(files.evaluation_batches([8, 6], batch_size=2))
    assert len(train(files, [[0, 1], [5]])) == 2


def test_scarce_shared_memory_still_loads(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = type(shutil.disk_usage("."))(0, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    batches = [[0, 1], [2, 3]]
    shown = train(with_workers(files, 2), batches)
    assert all(torch.equal(one, other) for one, other in zip(shown, train(files, batches), strict=True))
