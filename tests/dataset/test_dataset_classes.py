"""A dataset has the classes of its training images, or those of a run; what does not fit them is said."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from clip_har.dataset import SPLITS, load_dataset
from image_folders import class_counts, fill, fill_classes, names, refusal


def write_splits(root: Path, train: dict[str, int], test: dict[str, int]) -> Path:
    fill_classes(root / "train", train)
    fill_classes(root / "test", test, start=1000)
    return root


def test_classes_are_those_of_train_sorted(tmp_path: Path) -> None:
    train = dict.fromkeys(("walking", "Zumba", "running", "été"), 4)
    dataset = load_dataset(write_splits(tmp_path, train, dict.fromkeys(reversed(train), 2)))
    assert dataset.classes == ("Zumba", "running", "walking", "été")
    for split in SPLITS:
        targets = dataset.targets(split)
        assert targets.dtype == np.int64 and len(targets) > 0
        labels = [record.label for record in dataset.split(split)]
        assert [dataset.classes[target] for target in targets] == labels


def test_a_test_class_that_was_not_trained_on_is_left_out_and_said(tmp_path: Path) -> None:
    dataset = load_dataset(
        write_splits(tmp_path, {"running": 4, "sitting": 4}, {"running": 3, "sitting": 3, "flying": 5})
    )
    assert dataset.classes == ("running", "sitting")
    assert class_counts(dataset, "test") == {"running": 3, "sitting": 3}
    assert dataset.warnings == ("Images of classes that were not trained on are excluded: flying (5)",)


def test_a_training_class_without_test_images_stays_and_is_said(tmp_path: Path) -> None:
    dataset = load_dataset(
        write_splits(tmp_path, {"running": 4, "sitting": 4, "flying": 4}, {"running": 3, "sitting": 3})
    )
    assert dataset.classes == ("flying", "running", "sitting")
    (warning,) = dataset.warnings
    assert warning.startswith("flying has no images in the test split and is excluded from macro averages")


def test_an_empty_class_folder_in_test_is_a_class_without_test_images(tmp_path: Path) -> None:
    write_splits(tmp_path, {"cycling": 4, "running": 4, "sitting": 4}, {"cycling": 3, "running": 3})
    (tmp_path / "test" / "sitting").mkdir()
    (warning,) = load_dataset(tmp_path).warnings
    assert warning.startswith("sitting has no images in the test split and is excluded from macro averages")


@pytest.mark.parametrize(
    "spelling",
    ["Using Laptop", "using-laptop", "USING_LAPTOP", "using laptop ", "UsingLaptop", "Using.Laptop"],
)
def test_spellings_of_train_and_test_are_matched_and_said(spelling: str, tmp_path: Path) -> None:
    dataset = load_dataset(write_splits(tmp_path, {"using_laptop": 4, "sitting": 4}, {spelling: 3, "sitting": 3}))
    assert dataset.classes == ("sitting", "using_laptop")
    assert class_counts(dataset, "test") == {"using_laptop": 3, "sitting": 3}
    assert dataset.warnings == (f"Class folders read {spelling!r} as 'using_laptop'",)


def test_two_ways_of_unicode_to_write_a_letter_are_matched(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    dataset = load_dataset(write_splits(tmp_path, {composed: 4, "bar": 4}, {decomposed: 3, "bar": 3}))
    assert dataset.classes == ("bar", composed)
    assert class_counts(dataset, "test") == {composed: 3, "bar": 3}


def test_names_that_differ_in_more_than_spelling_are_not_matched(tmp_path: Path) -> None:
    dataset = load_dataset(write_splits(tmp_path, {"C": 4, "D": 4}, {"C++": 3, "C": 3, "D": 3}))
    assert class_counts(dataset, "test") == {"C": 3, "D": 3}


def test_training_classes_that_differ_only_in_spelling_are_refused(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"using_laptop": 4, "Using Laptop": 4, "sitting": 4})
    error = refusal(tmp_path)
    assert "'Using Laptop' and 'using_laptop' differ only in spelling" in error.what


def test_one_class_is_refused(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 4})
    assert refusal(tmp_path).what == "The dataset has only the class 'running'"


@pytest.mark.parametrize("split", ["", "train"])
def test_an_empty_class_folder_is_refused(split: str, tmp_path: Path) -> None:
    root = fill_classes(tmp_path / split, {"running": 4, "sitting": 4})
    for name in ("flying", "zumba"):
        (root / name / "deeper").mkdir(parents=True)
        (root / name / "notes.txt").write_text("to do")
    folder = (root / "flying").resolve()
    assert refusal(tmp_path).what == f"No image in the class folder {folder} and 1 more"


def test_a_class_folder_that_is_empty_in_train_alone_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, {"running": 4, "sitting": 4}, {"running": 3, "sitting": 3, "flying": 3})
    (tmp_path / "train" / "flying").mkdir()
    assert refusal(tmp_path).what == f"No image in the class folder {(tmp_path / 'train' / 'flying').resolve()}"


def test_a_class_folder_of_unreadable_files_is_refused_with_a_reason(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 4, "sitting": 4})
    (tmp_path / "flying").mkdir()
    (tmp_path / "flying" / "a.jpg").write_bytes(b"<html>")
    assert refusal(tmp_path).what.endswith("flying (flying/a.jpg: not an image but an HTML page)")


def test_a_dataset_without_any_image_is_refused(tmp_path: Path) -> None:
    for label in ("running", "sitting"):
        (tmp_path / "test" / label).mkdir(parents=True)
        (tmp_path / "test" / label / "a.jpg").write_bytes(b"")
    assert refusal(tmp_path).what == "The dataset has no class with readable images"


# The classes of a run


def test_the_classes_of_a_run_decide_in_their_order(tmp_path: Path) -> None:
    write_splits(tmp_path, {"running": 4, "sitting": 4, "flying": 4}, {"Running": 3, "sitting": 3, "flying": 2})
    dataset = load_dataset(tmp_path, classes=["sitting", "running", "eating"])
    assert dataset.classes == ("sitting", "running", "eating")
    assert class_counts(dataset, "test") == {"running": 3, "sitting": 3}
    assert sorted(set(dataset.targets("test").tolist())) == [0, 1]
    said = "\n".join(dataset.warnings)
    assert (
        "'Running' as 'running'" in said and "flying (6)" in said and "eating has no images in the test split" in said
    )


def test_a_folder_without_the_runs_classes_is_refused(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"cats": 4, "dogs": 4})
    error = refusal(tmp_path, classes=["running", "sitting", "eating", "flying"])
    assert error.what == "The dataset has none of the run's classes (running, sitting, eating and 1 more)"


def test_one_class_is_enough_to_score_a_run(tmp_path: Path) -> None:
    fill(tmp_path / "test" / "running", range(3))
    dataset = load_dataset(tmp_path, classes=["running", "sitting"])
    assert dataset.classes == ("running", "sitting") and len(names(dataset, "test")) == 3
