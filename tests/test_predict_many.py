"""A Predictor with arrays, streams, other classes and several threads: the same answers as one image at a time."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError
from clip_har.predict import AbstentionPolicy, Prediction, Predictor
from samples import CLASSES, HUES, write_image

OTHERS = ["riding a bicycle", "sleeping", "playing chess"]


@pytest.fixture(scope="module")
def folders(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind of classifier: zero-shot, on cached features, with a fixed head, inside the encoders."""
    cache, found = tmp_path_factory.mktemp("module-cache"), {}
    for method in ("zero-shot", "lora", "clip-adapter", "prolip", "full", "linear-probe"):
        config = TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=cache),
            optimizer=OptimizerConfig(epochs=1) if method in ("lora", "full", "clip-adapter") else OptimizerConfig(),
            method=method,
            out=tmp_path_factory.mktemp("runs") / method,
        )
        found[method] = commands.train(config).folder
    return found


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for seed, label in enumerate(CLASSES):
        write_image(tmp_path / f"{label}.png", HUES[label], seed=4000 + seed)
    return [tmp_path / f"{label}.png" for label in CLASSES]


def unnamed(predictions: Iterator[Prediction] | list[Prediction]) -> list[Prediction]:
    return [dataclasses.replace(item, image="") for item in predictions]


def same(first: Prediction, second: Prediction) -> bool:
    """Whether two predictions agree up to rounding, which depends on how many images are in a batch."""
    close = all(
        one[0] == two[0] and math.isclose(one[1], two[1], abs_tol=1e-5)
        for one, two in zip(first.top, second.top, strict=True)
    )
    return close and (first.label, first.error) == (second.label, second.error)


def test_paths_bytes_pillow_images_and_arrays_are_answered_alike(folders: dict[str, Path], images: list[Path]) -> None:
    predictor = Predictor(folders["lora"], precision="float32")
    by_path = unnamed(predictor.predict(images))
    pictures = [Image.open(path).convert("RGB") for path in images]
    assert unnamed(predictor.predict([path.read_bytes() for path in images])) == by_path
    assert unnamed(predictor.predict(pictures)) == by_path
    arrays = [np.asarray(picture) for picture in pictures]
    assert unnamed(predictor.predict(arrays)) == by_path
    (alone,) = predictor.predict(arrays[0])
    assert same(alone, by_path[0])
    assert [item.image for item in predictor.predict(np.stack(arrays))] == ["image 0", "image 1", "image 2"]
    with pytest.raises(TypeError, match=r"shape \(40, 40\) and type uint8: pass H x W x 3 pixels"):
        list(predictor.predict([arrays[0][:, :, 0]]))
    with pytest.raises(TypeError, match=r"type float64"):
        list(predictor.predict([arrays[0] / 255]))  # type: ignore[list-item]


def test_a_stream_is_answered_as_its_images_come_and_no_more_than_two_batches_are_held(
    folders: dict[str, Path], images: list[Path]
) -> None:
    predictor = Predictor(folders["lora"], precision="float32")
    expected = list(predictor.predict(images))
    read = 0

    def endless() -> Iterator[Path]:
        nonlocal read
        while True:
            yield images[read % 3]
            read += 1

    stream = predictor.predict_stream(endless(), batch_size=4)
    for answered in range(1, 50):
        assert same(next(stream), expected[(answered - 1) % 3])
        assert read <= answered + 2 * 4
    assert list(predictor.predict_stream(iter(()))) == []


@pytest.mark.parametrize("method", ["zero-shot", "lora", "clip-adapter", "prolip", "full"])
def test_other_classes_are_answered(folders: dict[str, Path], images: list[Path], method: str) -> None:
    """The run's own classes, asked for in another order, must get the run's own probabilities."""
    predictor = Predictor(folders[method], precision="float32")
    own = list(predictor.predict(images))
    turned = list(predictor.predict(images, classes=list(reversed(CLASSES))))
    for one, other in zip(own, turned, strict=True):
        assert dict(other.top) == pytest.approx(dict(one.top), abs=1e-4)
    for prediction in predictor.predict(images, classes=OTHERS):
        assert sorted(name for name, _ in prediction.top) == sorted(OTHERS)
        assert sum(value for _, value in prediction.top) == pytest.approx(1, abs=1e-5)
        assert prediction.confidence is None
    assert list(predictor.predict(images)) == own, "the run's own classes are as before"


def test_a_method_with_a_fixed_head_says_so(folders: dict[str, Path], images: list[Path]) -> None:
    with pytest.raises(ConfigError, match=r"^linear-probe predicts only the classes it was trained on"):
        Predictor(folders["linear-probe"], precision="float32").predict(images, classes=OTHERS)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["one"], "Fewer than two"),
        (["one", " "], "is empty"),
        (["one", "two", " one"], "'one' is given twice"),
    ],
)
def test_classes_that_cannot_be_asked_for(folders: dict[str, Path], classes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Predictor(folders["zero-shot"], precision="float32").predict([], classes=classes)


def test_prediction_sets_of_other_classes_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="calibrated for the run's own classes only"):
        Predictor(folders["lora"], precision="float32").predict(
            [], classes=OTHERS, caution=AbstentionPolicy(coverage=0.9)
        )


@pytest.mark.parametrize("method", ["lora", "full", "linear-probe"])
def test_embeddings_are_given_on_request(folders: dict[str, Path], images: list[Path], method: str) -> None:
    predictor = Predictor(folders[method], precision="float32")
    assert next(predictor.predict(images)).embedding is None
    embedding = next(predictor.predict(images, embed=True)).embedding
    assert embedding is not None and len(embedding) == 24
    assert math.hypot(*embedding) == pytest.approx(1, abs=1e-5)


def test_an_unsure_answer_says_why(folders: dict[str, Path], images: list[Path]) -> None:
    predictor = Predictor(folders["lora"], precision="float32")
    prediction = next(predictor.predict(images, caution=AbstentionPolicy(abstain_below=1.0)))
    assert prediction.unsure and prediction.label is None
    assert prediction.reason == f"confidence {prediction.confidence:.2f} is below 1.00"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_threads_get_the_same_answers_as_one_after_the_other(
    folders: dict[str, Path], images: list[Path], method: str
) -> None:
    predictor = Predictor(folders[method], precision="float32")
    asked = [(images[number % 3], None if number % 2 else OTHERS[: 2 + number % 4 // 2]) for number in range(32)]

    def answer(of: tuple[Path, list[str] | None]) -> Prediction:
        return next(predictor.predict([of[0]], classes=of[1], embed=True))

    expected = [answer(of) for of in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, asked)) == expected


def test_a_loaded_backbone_is_shared_if_weights_and_activation_are_those_of_the_run(folders: dict[str, Path]) -> None:
    first = Predictor(folders["lora"], device="cpu", precision="float32")
    loaded = first.backbone
    shared = Predictor(folders["zero-shot"], device="cpu", precision="float32", backbones=[loaded])
    assert shared.backbone is loaded
    for change in ({"activation": "QuickGELU"}, {"weights_hash": "other"}):
        other = copy.copy(loaded)
        other.info = dataclasses.replace(loaded.info, **change)  # type: ignore[arg-type]
        own = Predictor(folders["zero-shot"], device="cpu", precision="float32", backbones=[other])
        assert own.backbone is not other and own.backbone.info == loaded.info
