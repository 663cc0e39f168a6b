"""The feature store: what is computed, what is reused, and what a kill or damage costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clip_har import feature_shards, features
from clip_har.backbone import Backbone, ImageFeatures, load_backbone
from clip_har.dataset import ImageRecord, load_dataset
from clip_har.features import FeatureStore
from clip_har.images import decode
from samples import MODEL_CONFIG, write_image, write_model


@pytest.fixture
def backbone(tiny_model: str) -> Backbone:
    return load_backbone(tiny_model, precision="float32")


@pytest.fixture
def records(photos: Path) -> tuple[ImageRecord, ...]:
    return load_dataset(photos).records[:20]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of all batches that go through an image tower."""
    sizes: list[int] = []
    original = Backbone.encode_images

    def counting(self: Backbone, images_BCHW: torch.Tensor) -> ImageFeatures:
        sizes.append(len(images_BCHW))
        return original(self, images_BCHW)

    monkeypatch.setattr(Backbone, "encode_images", counting)
    yield sizes


def direct(backbone: Backbone, records: tuple[ImageRecord, ...]) -> torch.Tensor:
    transform = backbone.info.preprocessing.transform()
    return backbone.encode_images(torch.stack([transform(decode(r.path)) for r in records])).embedding_BD


def test_rows_are_the_images_own_features_in_the_order_asked(
    tmp_path: Path, backbone: Backbone, records: tuple[ImageRecord, ...]
) -> None:
    store = FeatureStore(tmp_path, backbone, batch_size=7)
    encoding = store.encode(records)
    assert (encoding.encoded, encoding.reused) == (20, 0)
    shuffled = tuple(reversed(records))
    torch.testing.assert_close(store.table(shuffled).embedding, direct(backbone, shuffled))
    assert store.table(records).hidden.shape == (20, 32)
    assert len(store.table(records)) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(
    tmp_path: Path, backbone: Backbone, records: tuple[ImageRecord, ...], workers: int
) -> None:
    store = FeatureStore(tmp_path, backbone, batch_size=6, workers=workers)
    store.encode(records)
    torch.testing.assert_close(store.table(records).embedding, direct(backbone, records))


def test_a_second_store_reuses_everything_and_a_new_image_is_all_that_is_encoded(
    tmp_path: Path, backbone: Backbone, records: tuple[ImageRecord, ...], encoded: list[int]
) -> None:
    FeatureStore(tmp_path, backbone).encode(records[:-1])
    encoded.clear()
    again = FeatureStore(tmp_path, backbone).encode(records[:-1])
    assert encoded == []
    assert (again.encoded, again.reused, again.seconds) == (0, 19, 0.0)
    added = FeatureStore(tmp_path, backbone).encode(records)
    assert sum(encoded) == 1
    assert (added.encoded, added.reused) == (1, 19)


def test_an_image_with_new_content_under_its_old_name_is_encoded_again(
    tmp_path: Path, backbone: Backbone, encoded: list[int]
) -> None:
    for label in ("a", "b"):
        for index in range(4):
            write_image(tmp_path / "data" / label / f"{index}.png", (90, 90, 90), seed=index * 7 + ord(label))
    store = tmp_path / "cache"
    FeatureStore(store, backbone).encode(load_dataset(tmp_path / "data").records)
    encoded.clear()
    write_image(tmp_path / "data" / "a" / "2.png", (200, 0, 0), seed=99)
    FeatureStore(store, backbone).encode(load_dataset(tmp_path / "data").records)
    assert sum(encoded) == 1


def test_other_weights_preprocessing_or_precision_have_stores_of_their_own(
    tmp_path: Path, backbone: Backbone, tiny_model: str
) -> None:
    other_weights = load_backbone(write_model(tmp_path, MODEL_CONFIG, seed=9), precision="float32")
    other_precision = load_backbone(tiny_model, precision="bfloat16")
    other_preprocessing = load_backbone(tiny_model, precision="float32")
    changed = dataclasses.replace(other_preprocessing.info.preprocessing, mean=(0.4, 0.5, 0.5))
    other_preprocessing.info = dataclasses.replace(other_preprocessing.info, preprocessing=changed)
    keys = {features.store_key(model) for model in (backbone, other_weights, other_precision, other_preprocessing)}
    assert len(keys) == 4
    assert features.store_key(load_backbone(tiny_model, precision="float32")) == features.store_key(backbone)


def test_a_killed_encoding_is_continued(
    tmp_path: Path,
    backbone: Backbone,
    records: tuple[ImageRecord, ...],
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process dies without any cleaning up after its second shard: those images are kept, no others."""
    monkeypatch.setattr(feature_shards, "SHARD_ROWS", 6)
    written: list[int] = []
    original = feature_shards.write_shard

    def dying(*arguments: object) -> None:
        if len(written) == 2:
            raise SystemExit("killed")
        written.append(1)
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "write_shard", dying)
    with pytest.raises(SystemExit):
        FeatureStore(tmp_path, backbone, batch_size=3).encode(records)
    monkeypatch.setattr(features, "write_shard", original)
    encoded.clear()
    store = FeatureStore(tmp_path, backbone, batch_size=3)
    assert store.encode(records).reused == 12
    assert sum(encoded) == 8
    torch.testing.assert_close(store.table(records).embedding, direct(backbone, records))


def test_an_interrupted_encoding_keeps_what_it_has(
    tmp_path: Path, backbone: Backbone, records: tuple[ImageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Backbone.encode_images
    calls = []

    def interrupted(self: Backbone, images_BCHW: torch.Tensor) -> ImageFeatures:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images_BCHW)

    monkeypatch.setattr(Backbone, "encode_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, backbone, batch_size=5).encode(records)
    monkeypatch.setattr(Backbone, "encode_images", original)
    assert FeatureStore(tmp_path, backbone).encode(records).reused == 10


@pytest.mark.parametrize("damage", ["cut", "flip", "no index", "broken index"])
def test_a_damaged_shard_is_encoded_again_not_trusted(
    tmp_path: Path, backbone: Backbone, records: tuple[ImageRecord, ...], damage: str
) -> None:
    first = FeatureStore(tmp_path, backbone)
    first.encode(records)
    (array,) = first.folder.glob("*.embedding.npy")
    (index,) = first.folder.glob("*-*.json")
    content = bytearray(array.read_bytes())
    if damage == "cut":
        array.write_bytes(content[:-40])
    elif damage == "flip":
        content[-3] ^= 1
        array.write_bytes(content)
    elif damage == "no index":
        index.unlink()
    else:
        index.write_text(json.dumps({"sha256": 3}))
    store = FeatureStore(tmp_path, backbone)
    assert store.encode(records).encoded == 20
    torch.testing.assert_close(store.table(records).embedding, direct(backbone, records))


def test_unreadable_images_are_reported_and_not_tried_again(
    tmp_path: Path, backbone: Backbone, encoded: list[int]
) -> None:
    for label in ("a", "b"):
        for number in range(4):
            write_image(tmp_path / "data" / label / f"{number}.jpg", (90, 90, 90), seed=number + 50 * ord(label))
    broken = tmp_path / "data" / "a" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    dataset = load_dataset(tmp_path / "data")
    (bad,) = (record for record in dataset.records if record.name == "a/1.jpg")
    for _ in range(2):
        encoding = FeatureStore(tmp_path / "cache", backbone).encode(dataset.records)
        assert list(encoding.unreadable) == [bad.sha256]
        assert "ends early" in encoding.unreadable[bad.sha256]
    assert sum(encoded) == 7


def test_text_is_embedded_once_and_a_damaged_copy_is_not_trusted(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = ["someone running", "someone eating"]
    store = FeatureStore(tmp_path, backbone)
    expected = backbone.encode_text(sentences)
    torch.testing.assert_close(store.text(sentences), expected)
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_text", lambda *_: pytest.fail("embedded again"))
        torch.testing.assert_close(FeatureStore(tmp_path, backbone).text(sentences), expected)
    (array,) = (store.folder / "text").glob("*.npy")
    array.write_bytes(array.read_bytes()[:-4])
    torch.testing.assert_close(FeatureStore(tmp_path, backbone).text(sentences), expected)


def test_no_rows_is_an_empty_table(tmp_path: Path, backbone: Backbone) -> None:
    assert FeatureStore(tmp_path, backbone).table([]).embedding.shape == (0, 24)
