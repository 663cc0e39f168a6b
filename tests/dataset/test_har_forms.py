"""HAR in its three forms, of generated images: each loads, and what each of them hides is refused or said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageChops

from clip_har.audit.inventory import read_inventory
from clip_har.cli import main
from clip_har.dataset import load_dataset, read_manifest
from clip_har.images import decode
from image_folders import class_counts, names, refusal
from packed import HAR, jpeg, labelled, write_hub, write_jpegs, write_kaggle_flat


def write_structured(root: Path) -> Path:
    """Class folders under train/ and test/, whose test lacks calling and has 22 texting of 126, scaled down."""
    start = 0
    for split, each in (("train", 12), ("test", 6)):
        for label in HAR:
            count = {"calling": 0, "texting": 1}.get(label, each) if split == "test" else each
            if count:
                write_jpegs(root / "Structured" / split / label, range(start, start + count))
            start += count
    return root


def test_the_flat_form_takes_its_test_split_out_of_the_labelled_images(tmp_path: Path) -> None:
    root = write_kaggle_flat(tmp_path / "Human Action Recognition")
    dataset = load_dataset(tmp_path, test_fraction=0.25, val_fraction=0.25)
    assert dataset.root == root.resolve() and dataset.classes == HAR
    assert dataset.form == "Kaggle's flat format (Training_set.csv with the columns filename, label)"
    assert dataset.own_splits == frozenset()
    assert names(dataset) == {f"train/Image_{number}.jpg" for number, _ in labelled(HAR, 4, start=1)}
    assert class_counts(dataset, "test") == dict.fromkeys(HAR, 1)
    assert {r.name: r.label for r in dataset.records} == {f"train/Image_{n}.jpg": c for n, c in labelled(HAR, 4, 1)}
    assert dataset.warnings == (
        "Testing_set.csv gives its 5 images no classes: test/ is only for clip-har predict, never for evaluation; "
        "the test split is created from the labelled images",
    )


def test_the_structured_form_loads_and_says_what_its_test_split_lacks(tmp_path: Path) -> None:
    dataset = load_dataset(write_structured(tmp_path))
    assert dataset.classes == HAR
    assert class_counts(dataset, "test") == {label: 6 for label in HAR if label not in ("calling", "texting")} | {
        "texting": 1
    }
    assert dataset.form == "class folders under train/, test/"
    assert dataset.warnings == (
        "calling has no images in the test split and is excluded from macro averages, which are over the other 14 "
        "classes.",
        "The test split has few images of texting (1); half of its classes have 6 or more images",
    )


def test_the_hub_forms_placeholder_test_split_is_refused(tmp_path: Path) -> None:
    root = write_hub(tmp_path)
    error = refusal(root)
    assert error.what == (
        f"All 6 images of the test split of {root.resolve()} have the class 'calling', while train has 15 classes: "
        "these look like placeholders, not labels, and cannot be used for evaluation"
    )
    assert error.remedy == (
        "Fix its labels, or pass --set-aside test to ignore it and create a new test split from the training images."
    )
    assert refusal(root, pooled=True).what == error.what


def test_the_hub_form_trains_with_its_test_split_set_aside(tmp_path: Path) -> None:
    dataset = load_dataset(write_hub(tmp_path), set_aside=["test"], test_fraction=0.25)
    assert len(dataset.records) == 60 and dataset.classes == HAR
    assert class_counts(dataset, "test") == dict.fromkeys(HAR, 1)
    assert not any("test-0000" in name for name in names(dataset))
    assert dataset.warnings == ("The dataset's own test split is ignored (6 images)",)
    assert dataset.form == "a Hugging Face dataset, 3 Parquet files (image: image, label: labels)"


def test_the_hub_forms_images_are_those_of_its_rows(tmp_path: Path) -> None:
    dataset = load_dataset(write_hub(tmp_path), set_aside=["test"])
    rows = labelled(HAR, 4)
    half = len(rows) // 2
    expected = {
        f"data/train-0000{number // half}-of-00002-ab12.parquet/{number % half:06d}": (number, label)
        for number, label in rows
    }
    assert names(dataset) == set(expected)
    for record in dataset.records:
        number, label = expected[record.name]
        assert record.label == label
        assert ImageChops.difference(decode(record.path), decode(jpeg(number))).getbbox() is None


@pytest.mark.parametrize("name", ["test-00000-of-00001-cd34.parquet", None])
def test_the_hub_forms_test_split_alone_cannot_be_scored_by_a_run(name: str | None, tmp_path: Path) -> None:
    root = write_hub(tmp_path)
    if name is None:
        for path in (root / "data").glob("train-*"):
            path.unlink()
    data = root / "data" / name if name else root
    assert "these look like placeholders, not labels" in refusal(data, classes=HAR).what


def test_the_commands_refuse_placeholders_and_work_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_hub(tmp_path / "hub")
    command = ["data", "split", str(root), "--out", str(tmp_path / "manifest.csv"), "--group-by", "none"]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert (
        said.count("\n") == 0 and "these look like placeholders, not labels, and cannot be used for evaluation" in said
    )
    assert main([*command, "--set-aside", "test"]) == 0
    assert {row.split for row in read_manifest(tmp_path / "manifest.csv")} == {"train", "val", "test"}
    assert "test-00000" not in (tmp_path / "manifest.csv").read_text()
    assert main(["data", "split", str(root), "--set-aside", "train"]) == 2
    assert "cannot be ignored: choose from test and val" in capsys.readouterr().err


def test_an_audit_says_that_labels_cannot_be_true(tmp_path: Path) -> None:
    (warning,) = read_inventory(write_hub(tmp_path)).warnings
    assert "these look like placeholders" in warning
