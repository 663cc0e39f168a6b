"""A finished run answers for new photographs, good and bad."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, TrainConfig
from clip_har.errors import ConfigError, RunError
from clip_har.integrity import SEAL_KEY, sealed
from clip_har.known_models import load_named
from clip_har.predict import AbstentionPolicy, Predictor
from clip_har.run_card import add_to_card
from samples import CLASSES, HUES, write_image


@pytest.fixture(scope="module", params=["linear-probe", "lora", "zero-shot"])
def run(
    request: pytest.FixtureRequest, photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / request.param
    cache = tmp_path_factory.mktemp("module-cache")
    backbone = BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=cache)
    config = TrainConfig(data=DataConfig(data=photos), backbone=backbone, method=request.param, out=folder)
    return commands.train(config).folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for seed, label in enumerate(CLASSES):
        write_image(tmp_path / f"{label}.png", HUES[label], seed=4000 + seed)
    return [tmp_path / f"{label}.png" for label in CLASSES]


def test_answers_agree_with_the_evaluation(run: Path, photos: Path) -> None:
    """The same images give the same answers through files as through cached features."""
    from clip_har.config import EvaluateConfig

    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=run
    )
    result, _ = commands.evaluate(config)
    predictions = list(Predictor(run, precision="float32").predict([photos / path for path in result.paths], top=3))
    for prediction, row_C in zip(predictions, result.best.probabilities_NC, strict=True):
        answers = dict(prediction.top)
        assert [answers[name] for name in result.classes] == pytest.approx(row_C.tolist(), abs=1e-4)


def test_the_top_is_sorted_and_its_head_is_the_answer(run: Path, images: list[Path]) -> None:
    for prediction in Predictor(run, precision="float32").predict(images, top=2):
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
    predictor = Predictor(run, precision="float32")
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
    (prediction,) = Predictor(run, precision="float32").predict([tmp_path / "half.jpg"])
    assert prediction.label in CLASSES
    assert "ends early" in (prediction.warning or "")
    assert json.loads(json.dumps(prediction.to_json()))["warning"] == prediction.warning


def test_more_images_than_a_batch(run: Path, images: list[Path]) -> None:
    many = images * 7
    assert [prediction.image for prediction in Predictor(run, precision="float32").predict(many)] == [
        str(path) for path in many
    ]


def test_odd_shapes_are_answered(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 60, 50)).save(tmp_path / "one.png")
    Image.new("RGB", (2000, 3), (200, 60, 50)).save(tmp_path / "wide.png")
    for prediction in Predictor(run, precision="float32").predict([tmp_path / "one.png", tmp_path / "wide.png"]):
        assert prediction.label in CLASSES


def test_scores_that_are_not_finite_are_no_answers(run: Path, images: list[Path]) -> None:
    predictor = Predictor(run)
    with torch.no_grad():
        for tensor in (*predictor.model._own.parameters(), *predictor.model._own.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    with pytest.raises(RunError, match="scores that are not finite"):
        list(predictor.predict(images))


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        Predictor(tmp_path, precision="float32")


# --- how far answers can be trusted ---------------------------------------------------------------------


@pytest.fixture
def sure_of(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the run whose card says what these tests need of its confidence."""

    def copy(**changes: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(run, folder)
        card = json.loads((folder / "card.json").read_text())
        add_to_card(folder, confidence={**card["confidence"], **changes})
        return folder

    return copy


def test_training_leaves_what_validation_told_of_the_confidence(run: Path) -> None:
    card = json.loads((run / "card.json").read_text())
    content = card["confidence"]
    assert set(content) == {"images", "temperature", "conformal", "selective"}
    if card["settings"]["refit"]:
        assert content["images"] == 36, "cross-validation answers for train and val"
        assert content["conformal"]["0.9"] < 1.0
    else:
        assert content["images"] == 6
        assert content["conformal"]["0.9"] == 1.0, "six images cannot promise 90 %"


def test_answers_carry_the_calibrated_confidence(sure_of: Callable[..., Path], images: list[Path]) -> None:
    flat = [
        prediction.confidence for prediction in Predictor(sure_of(temperature=1.0), precision="float32").predict(images)
    ]
    probabilities = [
        prediction.probability
        for prediction in Predictor(images[0].parent / "copy", precision="float32").predict(images)
    ]
    assert flat == pytest.approx(probabilities, abs=1e-5)


def test_the_possible_classes_are_those_within_the_threshold(sure_of: Callable[..., Path], images: list[Path]) -> None:
    folder = sure_of(temperature=1.0, conformal={"0.9": 0.7, "0.95": 1.0, "0.99": 0.0})
    for prediction in Predictor(folder, precision="float32").predict(images, caution=AbstentionPolicy(coverage=0.9)):
        expected = tuple(label for label, probability in prediction.top if probability >= 0.3)
        assert prediction.possible == expected
    for level, size in ((0.95, 3), (0.93, 3), (0.999, 3), (0.985, 0)):
        for prediction in Predictor(folder, precision="float32").predict(
            images, caution=AbstentionPolicy(coverage=level)
        ):
            assert prediction.possible is not None and len(prediction.possible) == size
            assert prediction.to_json()["possible"] == prediction.possible
            assert not prediction.unsure and prediction.label == prediction.top[0][0]


def test_below_the_threshold_a_run_is_unsure_instead_of_guessing(
    sure_of: Callable[..., Path], images: list[Path]
) -> None:
    folder = sure_of(temperature=1.0)
    predictor = Predictor(folder, precision="float32")
    confidences = sorted(prediction.confidence or 0.0 for prediction in predictor.predict(images))
    between = (confidences[0] + confidences[1]) / 2
    found = list(predictor.predict(images, caution=AbstentionPolicy(abstain_below=between)))
    assert [prediction.unsure for prediction in found].count(True) == 1
    for prediction in found:
        assert (prediction.label is None) == prediction.unsure == ((prediction.confidence or 0.0) < between)
        assert prediction.to_json().get("unsure", False) == prediction.unsure


def test_a_wished_accuracy_takes_the_threshold_that_promises_it(
    sure_of: Callable[..., Path], images: list[Path]
) -> None:
    steps = {"threshold": [0.999999, 0.0], "answered": [200, 400], "right": [199, 300]}
    predictor = Predictor(sure_of(selective=steps), precision="float32")
    assert all(item.unsure for item in predictor.predict(images, caution=AbstentionPolicy(accuracy=0.95)))
    assert not any(item.unsure for item in predictor.predict(images, caution=AbstentionPolicy(accuracy=0.7)))
    with pytest.raises(RunError, match=r"Cannot guarantee accuracy 0\.999 for .* with (6|36) val"):
        list(predictor.predict(images, caution=AbstentionPolicy(accuracy=0.999)))


def test_a_run_without_confidence_on_its_card_answers_but_promises_nothing(run: Path, images: list[Path]) -> None:
    card = json.loads((run / "card.json").read_text())
    bare = images[0].parent / "bare"
    shutil.copytree(run, bare)
    rest = {key: value for key, value in card.items() if key != "confidence"}
    (bare / "card.json").write_text(json.dumps(sealed(rest)))
    predictor = Predictor(bare, precision="float32")
    (answer,) = predictor.predict(images[:1])
    assert answer.label in CLASSES and set(answer.to_json()) == {"image", "label", "probability", "top"}
    with pytest.raises(RunError, match="has no calibration data") as caught:
        list(predictor.predict(images, caution=AbstentionPolicy(coverage=0.9)))
    assert "clip-har evaluate" in caught.value.remedy


@pytest.mark.parametrize("damage", [{"selective": {}}, {"temperature": "warm"}, {"conformal": [1]}])
def test_a_damaged_card_is_refused(sure_of: Callable[..., Path], images: list[Path], damage: dict[str, Any]) -> None:
    predictor = Predictor(sure_of(**damage), precision="float32")
    with pytest.raises(RunError, match=r'"confidence" in .*card\.json is not what clip-har writes'):
        list(predictor.predict(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coverage": 95.0}, "--coverage 95.0 is not between 0 and 1"),
        ({"accuracy": 1.0}, "--accuracy 1.0 is not between"),
        ({"abstain_below": -0.1}, "--abstain-below -0.1 is not between"),
        ({"accuracy": 0.9, "abstain_below": 0.5}, "cannot be combined"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AbstentionPolicy(**changes)


def test_an_evaluation_checks_the_confidence_and_gives_older_runs_theirs(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    from clip_har.config import EvaluateConfig

    older = tmp_path / "older"
    shutil.copytree(run, older)
    card = json.loads((older / "card.json").read_text())
    kept = card.pop("confidence")
    (older / "card.json").write_text(json.dumps(sealed(card)))
    config = EvaluateConfig(
        data=DataConfig(data=photos), backbone=BackboneConfig(workers=0, precision="float32"), checkpoint=older
    )
    result, out = commands.evaluate(config)
    again = json.loads((older / "card.json").read_text())["confidence"]
    assert again["temperature"] == pytest.approx(kept["temperature"], rel=1e-3)
    written = json.loads((out / "results.json").read_text())["confidence"]
    assert written["baseline"]["images"] == 6
    assert (written["finetuned"] is None) == (result.finetuned is None)
    if result.finetuned is not None:
        assert written["finetuned"]["temperature"] == pytest.approx(again["temperature"])
        assert [entry["level"] for entry in written["finetuned"]["conformal"]] == [0.8, 0.9, 0.95, 0.99]


def test_images_may_be_text_paths_bytes_or_pillow_images(run: Path, photos: Path) -> None:
    paths = sorted((photos / "test").rglob("*.jpg"))[:5]
    predictor = Predictor(str(run), precision="float32")
    expected = list(predictor.predict(paths))
    for given in (
        [str(path) for path in paths],
        [path.read_bytes() for path in paths],
        (Image.open(path) for path in paths),
        [Image.open(path).copy() for path in paths],
    ):
        found = list(predictor.predict(given))
        for answer, known in zip(found, expected, strict=True):
            assert dict(answer.top) == pytest.approx(dict(known.top), abs=1e-5)
    assert [answer.image for answer in predictor.predict([str(paths[0]), paths[1].read_bytes()])] == [
        str(paths[0]),
        "image 1",
    ]
    for one in (paths[0], str(paths[0]), paths[0].read_bytes(), Image.open(paths[0])):
        (only,) = predictor.predict(one)
        assert dict(only.top) == pytest.approx(dict(expected[0].top), abs=1e-5)


def test_a_pillow_image_is_turned_and_made_rgb(run: Path, photos: Path, tmp_path: Path) -> None:
    upright = Image.open(next((photos / "test").rglob("*.jpg"))).convert("RGB").resize((60, 40))
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    predictor = Predictor(run, precision="float32")
    opened = Image.open(turned)
    answers = list(predictor.predict([turned, opened, upright.convert("RGBA"), upright]))
    for answer in answers:
        assert dict(answer.top) == pytest.approx(dict(answers[0].top), abs=1e-5)
    assert opened.size == (40, 60)  # the caller's image stays as it was


def test_a_broken_pillow_image_is_an_error_of_its_own(run: Path, photos: Path) -> None:
    path = next((photos / "test").rglob("*.jpg"))
    short = Image.open(io.BytesIO(path.read_bytes()[: path.stat().st_size // 2]))
    broken, good = Predictor(run, precision="float32").predict([short, path])
    assert broken.error is not None and broken.error.startswith("cannot be read: ") and good.error is None


@pytest.mark.parametrize("given", [7, None, [3.5], [[b"a"]]])
def test_what_is_no_image_is_a_clear_type_error(run: Path, given: Any) -> None:
    said = r"not iterable|pass a path, the bytes of an image file, an array of RGB pixels, or a PIL\.Image"
    with pytest.raises(TypeError, match=said):
        list(Predictor(run, precision="float32").predict(given))


def test_a_model_that_has_moved_is_asked_for(run: Path, tiny_model: str, images: list[Path], tmp_path: Path) -> None:
    model, moved = tmp_path / "model", tmp_path / "moved"
    shutil.copytree(tiny_model.removeprefix("local-dir:"), model)
    load_named(f"local-dir:{model}", device="cpu", precision="float32")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    card = json.loads((copy / "card.json").read_text())
    card["backbone"]["name"] = f"local-dir:{model}"
    del card[SEAL_KEY]
    (copy / "card.json").write_text(json.dumps(sealed(card)))
    assert next(Predictor(copy, precision="float32").predict(images[:1])).label
    model.rename(moved)
    with pytest.raises(
        RunError, match=r"in .*/model, which is not there any more\. Pass its new path: --model local-dir"
    ):
        Predictor(copy, precision="float32")
    again = Predictor(copy, model=f"local-dir:{moved}", precision="float32")
    assert next(again.predict(images[:1])).label
