"""One flipped byte in any file of a run or of a cache is noticed, or changes nothing: asserted file by file.

A new kind of file takes part by itself: what is written and read back without a checksum fails here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_har import checkpoint, commands, training_states
from clip_har.config import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    LoraConfig,
    OptimizerConfig,
    TrainConfig,
)
from clip_har.errors import UserError
from clip_har.experiment import fit as fitting
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import prepare
from clip_har.predict import recorded_calibration
from clip_har.progress import Silent
from samples import write_dataset

POSITIONS = {"header": 9, "data": 0.6, "end": -1}


class Heard(Silent):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@dataclass(frozen=True)
class Outcome:
    """What a command gave: its result, or why there is none."""

    result: dict[str, Any] | None
    warnings: tuple[str, ...]
    error: str = ""


def flip(path: Path, position: float) -> bool:
    """Change one bit of one byte; False where the file has none."""
    content = bytearray(path.read_bytes())
    if not content:
        return False
    index = int(position * len(content)) if isinstance(position, float) else min(position, len(content) - 1)
    content[index] ^= 0x04
    path.write_bytes(content)
    return True


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, one of which cannot be read, so that the caches remember that too."""
    root = write_dataset(tmp_path_factory.mktemp("data"))
    broken = root / "train" / "running" / "running_003.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    return root


def config_of(data: Path, model: str, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=DataConfig(data=data, unreadable_limit=0.2),
        backbone=BackboneConfig(model=model, workers=0, precision="float32", cache=out.parent / "cache"),
        lora=LoraConfig(placement="attention", rank=2),
        optimizer=OptimizerConfig(epochs=3, batch_size=8),
        augmentation=AugmentConfig(augment="light"),
        engine=EngineConfig(decoded_cache=True),
        out=out,
    )
    return replace(config, **changes)


# --- a finished run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that reads images (so it saves its predictions), evaluated, and its cache."""
    home = tmp_path_factory.mktemp("finished")
    commands.train(config_of(data, tiny_model, home / "run"))
    backbone = BackboneConfig(workers=0, precision="float32", cache=home / "cache")
    given = DataConfig(data=data, unreadable_limit=0.2)
    commands.evaluate(EvaluateConfig(data=given, backbone=backbone, checkpoint=home / "run"))
    return home


def evaluated(home: Path, data: Path) -> Outcome:
    """What an evaluation takes from the run, without the plots and pages that it writes."""
    heard = Heard()
    backbone = BackboneConfig(workers=0, precision="float32", cache=home / "cache")
    given = DataConfig(data=data, unreadable_limit=0.2)
    try:
        run = checkpoint.load_run(home / "run")
        prepared = prepare(given, backbone, out=home / "out", progress=heard, run=run, for_training=False)
        answering, test = Predictions(run, prepared, heard), prepared.images("test")
        tuned_NC = answering.finetuned(test)
        saved = recorded_calibration(run)
    except UserError as error:
        return Outcome(None, tuple(heard.warnings), str(error))
    assert tuned_NC is not None and saved is not None
    baseline_NC = answering.baseline(test)
    classes = prepared.dataset.classes
    result = {"tuned": tuned_NC, "baseline": baseline_NC, "saved": saved.confidence(tuned_NC), "classes": classes}
    return Outcome(result, tuple(heard.warnings))


def damaged_copies(home: Path, inside: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Copies of `home` in each of which one byte of one file of the folder `inside` is flipped."""
    for name in files_below(home / inside):
        for place, position in POSITIONS.items():
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(home, copy)
            if flip(copy / inside / name, position):
                yield f"{name} ({place})", copy


def same(first: dict[str, Any] | None, second: dict[str, Any] | None) -> bool:
    assert first is not None and second is not None
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.slow  # an evaluation for each byte
def test_a_flipped_byte_in_a_finished_run_is_noticed_or_changes_nothing(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    whole = evaluated(finished, data)
    assert whole.result is not None
    passed, noticed = [], set()
    outputs = finished / "run" / "eval"
    kept_outputs = tmp_path / "eval"
    shutil.move(outputs, kept_outputs)  # what evaluate writes, nothing reads
    try:
        for where, copy in damaged_copies(finished, "run", tmp_path):
            found = evaluated(copy, data)
            if found.error or set(found.warnings) - set(whole.warnings):
                noticed.add(where.partition(" ")[0])
            if not found.error and not same(found.result, whole.result):
                passed.append(where)
    finally:
        shutil.move(kept_outputs, outputs)
    assert not passed, f"other predictions, without a word: {passed}"
    unread = {name for name in files_below(finished / "run") if name.startswith(("last/", "eval/", "answers/"))}
    assert any(name.startswith("answers/") for name in noticed), "the saved predictions of the test images are read"
    silent = set(files_below(finished / "run")) - unread - noticed
    assert not silent, f"damage to these passes without a word: {silent}"


@pytest.mark.parametrize("name", ["card.json", "manifest.csv", "prompts.safetensors", "adapter_model.safetensors"])
def test_a_missing_file_of_a_run_is_one_line(finished: Path, data: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "run" / name).unlink()
    found = evaluated(tmp_path / "copy", data)
    assert (name in found.error or "is an unfinished run" in found.error) and "\n" not in found.error


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"cycling"', '"cyclist"'),
        ('"rank": 2', '"rank": 4'),
        ('"mean"', '"mode"'),
        ('"format_version": 2', '"format_version": 1'),
    ],
)
def test_an_edited_card_is_refused(finished: Path, data: Path, tmp_path: Path, old: str, new: str) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    card = tmp_path / "copy" / "run" / "card.json"
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new, 1))
    assert "checksum does not match" in evaluated(tmp_path / "copy", data).error


# --- an unfinished run -----------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def unfinished(data: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A training killed after its second epoch, and the weights of one that was not."""
    home = tmp_path_factory.mktemp("unfinished")
    config = config_of(data, tiny_model, home / "run")
    whole = commands.train(replace(config, out=home.with_name("whole") / "run")).folder
    original, saves = training_states.save_state, []

    def dying(*arguments: Any, **options: Any) -> None:
        original(*arguments, **options)
        saves.append(1)
        if len(saves) == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "save_state", dying)
        with pytest.raises(Killed):
            commands.train(config)
    return home, (whole / "adapter_model.safetensors").read_bytes()


def resumed(home: Path, data: Path, model: str) -> Outcome:
    heard = Heard()
    try:
        run = commands.train(config_of(data, model, home / "run", resume=True), progress=heard)
    except UserError as error:
        return Outcome(None, tuple(heard.warnings), str(error))
    return Outcome({"weights": (run.folder / run.weights_file).read_bytes()}, tuple(heard.warnings))


@pytest.mark.slow  # a training for each byte
def test_a_flipped_byte_in_an_unfinished_run_ends_in_the_same_weights_or_an_error(
    unfinished: tuple[Path, bytes], data: Path, tiny_model: str, tmp_path: Path
) -> None:
    home, expected = unfinished
    newest = max(name for name in files_below(home / "run") if name.startswith("last/step-"))
    best = max(name for name in files_below(home / "run") if name.startswith("last/best-"))
    for where, copy in damaged_copies(home, "run", tmp_path):
        found = resumed(copy, data, tiny_model)
        if found.error:
            assert where.startswith("config.json"), (where, found.error)
            continue
        assert found.result == {"weights": expected}, where
        checkpoint.load_run(copy / "run").weights_sha256()
        if where.startswith((newest, best)):
            assert any("damaged" in text for text in found.warnings), where


@pytest.mark.parametrize("damage", ["gone", "cut", "both states"])
def test_best_weights_that_are_lost_are_trained_again(
    unfinished: tuple[Path, bytes], data: Path, tiny_model: str, tmp_path: Path, damage: str
) -> None:
    home, expected = unfinished
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    for path in (copy / "run" / "last").glob("step-*" if damage == "both states" else "best-*"):
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:100])
    found = resumed(copy, data, tiny_model)
    assert found.result == {"weights": expected}
    assert any("restarts from the beginning" in text for text in found.warnings)


# --- the caches ------------------------------------------------------------------------------------------


@pytest.mark.slow  # a training for each byte
def test_a_flipped_byte_in_a_cache_is_noticed_and_the_result_is_the_same(
    finished: Path, data: Path, tiny_model: str, tmp_path: Path
) -> None:
    one_epoch = OptimizerConfig(epochs=1, batch_size=8)
    shutil.copytree(finished / "cache", tmp_path / "whole" / "cache")
    whole = commands.train(config_of(data, tiny_model, tmp_path / "whole" / "run", optimizer=one_epoch))
    expected = (whole.folder / whole.weights_file).read_bytes()
    kinds = {name.split("/")[0] for name in files_below(finished / "cache")}
    assert {"features", "splits", "decoded"} <= kinds
    for where, copy in damaged_copies(finished, "cache", tmp_path):
        shutil.rmtree(copy / "run")
        heard = Heard()
        run = commands.train(config_of(data, tiny_model, copy / "run", optimizer=one_epoch), progress=heard)
        assert (run.folder / run.weights_file).read_bytes() == expected, where
        assert any("damaged" in text for text in heard.warnings), where


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_torn_cached_split_is_created_again(
    finished: Path, data: Path, tiny_model: str, tmp_path: Path, share: float
) -> None:
    shutil.copytree(finished / "cache", tmp_path / "cache")
    (split,) = (tmp_path / "cache" / "splits").iterdir()
    split.write_bytes(split.read_bytes()[: int(share * split.stat().st_size)])
    heard = Heard()
    run = commands.train(config_of(data, tiny_model, tmp_path / "run"), progress=heard)
    assert any("saved split" in text for text in heard.warnings)
    assert (run.folder / "manifest.csv").read_bytes() == (finished / "run" / "manifest.csv").read_bytes()
