"""The decoded cache: the same views from fewer decodings, told before it is written, and safe from kills and damage."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

import hostile_images as hostile
from clip_har.backbone import load_backbone
from clip_har.commands import train
from clip_har.config import BackboneConfig, DataConfig, EngineConfig, OptimizerConfig, TrainConfig
from clip_har.demo.scenes import ACTIONS, draw_action
from clip_har.errors import ConfigError
from clip_har.images import DecodedCache, ImageFiles, PixelView, Preprocessing, decode, decoded_cache, view_seed
from clip_har.images.decoded_cache import stored_size
from noted import Notes

MODEL = Preprocessing(image_size=(24, 24), mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.4))
ENOUGH = PixelView(preprocessing=MODEL, augment="light").enough_pixels or 0


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Content hash -> one drawn scene each, of 90 x 60 pixels, which is more than enough."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, action in enumerate(ACTIONS):
        scene = draw_action(action, Random(number)).resize((90, 60))
        (folder / f"{number:02d}.png").write_bytes(hostile.encode(scene, "PNG"))
    return {f"hash {path.stem}": path for path in sorted(folder.iterdir())}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names(cache: DecodedCache) -> list[str]:
    return sorted(path.suffix for path in cache.folder.iterdir())


def test_images_are_kept_with_just_enough_pixels() -> None:
    assert ENOUGH == 1536
    assert stored_size((90, 60), ENOUGH) == (48, 32)
    assert stored_size((30, 40), ENOUGH) == (30, 40)
    assert stored_size((65535, 1), ENOUGH) == (10034, 1)


def test_what_is_stored_is_the_resized_image_in_every_process(root: Path, files: dict[str, Path]) -> None:
    cache = DecodedCache(root, ENOUGH)
    cache.fill(files, workers=0)
    for opened in (cache, DecodedCache(root, ENOUGH), pickle.loads(pickle.dumps(cache))):
        assert len(opened) == len(files)
        for sha256, path in files.items():
            expected = decode(path).resize((48, 32), Image.Resampling.BICUBIC)
            pixels_CHW = opened.pixels(sha256)
            assert (pixels_CHW.shape, pixels_CHW.dtype) == ((3, 32, 48), torch.uint8)
            difference = torch.frombuffer(bytearray(expected.tobytes()), dtype=torch.uint8).reshape(32, 48, 3).float()
            assert (pixels_CHW.permute(1, 2, 0) - difference).abs().max() <= 2
    assert names(cache) == [".bin", ".json"]


def test_small_images_give_the_very_views_of_their_files(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(hostile.encode(hostile.photograph().resize((40, 30)), "PNG"))
    files = ImageFiles(paths=(path,), preprocessing=MODEL, hashes=("a",))
    cache = DecodedCache(root, ENOUGH)
    cache.fill({"a": path}, workers=0)
    cached = dataclasses.replace(files, decoded=cache)
    for augment in ("light", "strong"):
        one, other = (
            list(which.training_batches([[0, 0]], augment=augment, image_size=None, seed=3))
            for which in (files, cached)
        )
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_come_from_the_cache_and_else_from_the_file(root: Path, files: dict[str, Path], workers: int) -> None:
    cache = DecodedCache(root, ENOUGH)
    cache.fill(dict(list(files.items())[:-1]), workers=workers)
    known = ImageFiles(
        paths=tuple(files.values()), preprocessing=MODEL, hashes=tuple(files), decoded=cache, workers=workers
    )
    for path in list(files.values())[:-1]:
        path.unlink()  # the cache alone can have shown them
    order = list(reversed(range(len(files))))
    (views,) = known.subset(order).training_batches([list(range(15))], augment="light", image_size=None, seed=1)
    assert views.shape == (15, 3, 24, 24)
    view = PixelView(preprocessing=MODEL, augment="light")
    expected = view.of_pixels(cache.pixels("hash 13"), view_seed(1, 1, 0))
    assert torch.equal(views[1], MODEL.normalise(expected))


def test_views_from_the_cache_mean_the_same_to_the_model(root: Path, tmp_path: Path) -> None:
    backbone = load_backbone("demo", device="cpu", precision="float32")
    preprocessing = backbone.info.preprocessing
    paths = []
    for number, action in enumerate(ACTIONS):
        paths.append(tmp_path / f"{number}.jpg")
        draw_action(action, Random(number)).resize((500, 333), Image.Resampling.LANCZOS).save(paths[-1], quality=90)
    hashes = tuple(str(number) for number in range(len(paths)))
    view = PixelView(preprocessing=preprocessing, augment="light")
    cache = DecodedCache(root, view.enough_pixels or 0)
    cache.fill(dict(zip(hashes, paths, strict=True)), workers=0)
    plain = ImageFiles(paths=tuple(paths), preprocessing=preprocessing, hashes=hashes)
    one, other = (
        backbone.encode_images(
            next(which.training_batches([list(range(15))], augment="light", image_size=None, seed=5))
        ).embedding_BD
        for which in (plain, dataclasses.replace(plain, decoded=cache))
    )
    cosines_N = (one * other).sum(dim=-1)
    assert cosines_N.mean() > 0.99
    shuffled_N = (one * other.roll(1, dims=0)).sum(dim=-1)
    assert cosines_N.min() > shuffled_N.max()


def test_the_size_is_said_before_and_a_full_disk_is_refused(
    root: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    cache = DecodedCache(root, ENOUGH)
    usage = type(shutil.disk_usage("."))(0, 0, 500_000_000)
    with monkeypatch.context() as patched, pytest.raises(ConfigError) as caught:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        cache.fill(files, workers=0, progress=notes)
    assert str(caught.value) == (
        f"The decoded cache does not fit: 15 images take about 0.00 GB in {cache.folder}, where 0.50 GB are free. "
        "Free some space, pass another folder with --cache, or train without --decoded-cache."
    )
    assert (list(cache.folder.iterdir()), notes.said) == ([], [])
    cache.fill(files, workers=0, progress=notes)
    assert notes.said[0].startswith("Decoded cache: 15 images take about 0.00 GB in ")
    written = sum(path.stat().st_size for path in cache.folder.glob("*.bin"))
    assert written == 15 * 3 * 48 * 32


def test_an_interrupted_filling_keeps_what_it_has_and_is_continued(
    root: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    original: Callable[..., Iterator[object]] = vars(decoded_cache)["decode_each"]

    def interrupted(*arguments: object, **options: object) -> Iterator[object]:
        for item in original(*arguments, **options):
            if len(taken) == 6:
                raise KeyboardInterrupt
            taken.append(1)
            yield item

    monkeypatch.setattr(decoded_cache, "decode_each", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DecodedCache(root, ENOUGH).fill(files, workers=0)
    monkeypatch.setattr(decoded_cache, "decode_each", original)
    again = DecodedCache(root, ENOUGH)
    assert len(again) == 6
    again.fill(files, workers=0)
    assert len(DecodedCache(root, ENOUGH)) == 15
    assert sum(path.stat().st_size for path in again.folder.glob("*.bin")) == 15 * 3 * 48 * 32


@pytest.mark.parametrize("damage", ["cut", "altered", "no pixels", "no index"])
def test_damaged_shards_do_not_count(root: Path, files: dict[str, Path], damage: str) -> None:
    cache = DecodedCache(root, ENOUGH)
    cache.fill(files, workers=0)
    (pixels,), (index,) = cache.folder.glob("*.bin"), cache.folder.glob("*.json")
    content = bytearray(pixels.read_bytes())
    if damage == "cut":
        pixels.write_bytes(content[:-1])
    elif damage == "altered":
        content[100] ^= 1
        pixels.write_bytes(content)
    elif damage == "no pixels":
        pixels.unlink()
    else:
        index.write_text(json.dumps({"bytes": len(content)}))
    again = DecodedCache(root, ENOUGH)
    assert len(again) == 0
    again.fill(files, workers=0)
    assert len(DecodedCache(root, ENOUGH)) == 15


def test_unreadable_files_are_left_to_the_one_who_reads_them(root: Path, files: dict[str, Path]) -> None:
    files["hash 03"].write_bytes(b"nonsense")
    cache = DecodedCache(root, ENOUGH)
    cache.fill(files, workers=0)
    assert len(cache) == 14
    assert "hash 03" not in cache


def config(photos: Path, tiny_model: str, out: Path, **changes: object) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, device="cpu", precision="float32", workers=0),
        method="full",
        optimizer=OptimizerConfig(epochs=1, batch_size=8),
        out=out,
        **changes,  # type: ignore[arg-type]
    )


def test_training_with_the_cache_gives_the_same_weights(
    tmp_path: Path, photos: Path, tiny_model: str, own_cache: Path
) -> None:
    """The photographs are small enough to be stored as they are."""
    train(config(photos, tiny_model, tmp_path / "plain"))
    train(config(photos, tiny_model, tmp_path / "cached", engine=EngineConfig(decoded_cache=True)))
    assert (tmp_path / "plain" / "classifier.safetensors").read_bytes() == (
        tmp_path / "cached" / "classifier.safetensors"
    ).read_bytes()
    folders = list((own_cache / "decoded").iterdir())
    assert len(folders) == 1 and {path.suffix for path in folders[0].iterdir()} == {".bin", ".json"}
