"""A finished run answers for new photographs, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clip_har import workflows
from clip_har.config import BackboneConfig, DataConfig, TrainConfig
from clip_har.errors import RunError
from clip_har.predict import Predictor
from samples import CLASSES, HUES, write_image


@pytest.fixture(scope="module", params=["linear-probe", "lora", "zero-shot"])
def run(
    request: pytest.FixtureRequest, photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / request.param
    cache = tmp_path_factory.mktemp("module-cache")
    backbone = BackboneConfig(model=tiny_model, workers=0, cache=cache)
    config = TrainConfig(data=DataConfig(data=photos), backbone=backbone, method=request.param, out=folder)
    return workflows.train(config).folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for seed, label in enumerate(CLASSES):
        write_image(tmp_path / f"{label}.png", HUES[label], seed=4000 + seed)
    return [tmp_path / f"{label}.png" for label in CLASSES]


def test_answers_agree_with_the_evaluation(run: Path, photos: Path) -> None:
    """The same images give the same answers through files as through cached features."""
    from clip_har.config import EvaluateConfig

    config = EvaluateConfig(data=DataConfig(data=photos), backbone=BackboneConfig(workers=0), checkpoint=run)
    result, _ = workflows.evaluate(config)
    predictions = list(Predictor(run).predict([photos / path for path in result.paths], top=3))
    for prediction, row_C in zip(predictions, result.best.probabilities_NC, strict=True):
        answers = dict(prediction.top)
        assert [answers[name] for name in result.classes] == pytest.approx(row_C.tolist(), abs=1e-4)


def test_the_top_is_sorted_and_its_head_is_the_answer(run: Path, images: list[Path]) -> None:
    for prediction in Predictor(run).predict(images, top=2):
        assert len(prediction.top) == 2
        assert prediction.top[0] == (prediction.label, prediction.probability)
        assert prediction.top[0][1] >= prediction.top[1][1]
        assert prediction.error is None


def test_bad_images_are_answered_with_the_reason_and_do_not_disturb_the_good(
    run: Path, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html><body>not found</body></html>")
    mixed = [tmp_path / "empty.jpg", images[0], tmp_path / "missing.jpg", tmp_path / "page.jpg", images[1]]
    predictor = Predictor(run)
    alone = list(predictor.predict([images[0], images[1]]))
    empty, first, missing, page, second = predictor.predict(mixed)
    assert [first.label, second.label] == [item.label for item in alone]
    assert empty.error == "empty file"
    assert "HTML" in (page.error or "")
    assert missing.error is not None and missing.label is None
    assert set(page.to_json()) == {"image", "error"}


def test_a_photograph_that_ends_early_is_answered_with_a_warning(run: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "whole.jpg", HUES["running"], seed=1, size=120)
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) * 2 // 3])
    (prediction,) = Predictor(run).predict([tmp_path / "half.jpg"])
    assert prediction.label in CLASSES
    assert "ends early" in (prediction.warning or "")
    assert json.loads(json.dumps(prediction.to_json()))["warning"] == prediction.warning


def test_more_images_than_a_batch(run: Path, images: list[Path]) -> None:
    many = images * 7
    assert [prediction.image for prediction in Predictor(run).predict(many)] == [str(path) for path in many]


def test_odd_shapes_are_answered(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 60, 50)).save(tmp_path / "one.png")
    Image.new("RGB", (2000, 3), (200, 60, 50)).save(tmp_path / "wide.png")
    for prediction in Predictor(run).predict([tmp_path / "one.png", tmp_path / "wide.png"]):
        assert prediction.label in CLASSES


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        Predictor(tmp_path)
