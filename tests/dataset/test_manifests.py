"""Published manifests: written and read back, compared with copies of the data, and followed by a dataset."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from clip_har.dataset import (
    SPLITS,
    ActionDataset,
    GivenManifest,
    SplitName,
    Verification,
    load_dataset,
    read_images,
    read_manifest,
    verify,
    write_manifest,
)
from clip_har.dataset.verifying import ENOUGH
from clip_har.errors import DataError
from image_folders import content, fill, fill_classes

DIGEST = "0" * 64
HEADER = "path,sha256,class,split"
REMEDY = "Create one with clip-har data split, or download the file again."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 images of running and 20 of sitting, without splits."""
    return fill_classes(tmp_path / "data", {"running": 40, "sitting": 20})


@pytest.fixture
def dataset(data: Path) -> ActionDataset:
    return load_dataset(data, split_seed=1)


@pytest.fixture
def manifest(dataset: ActionDataset, tmp_path: Path) -> Path:
    write_manifest(dataset, tmp_path / "manifest.csv")
    return tmp_path / "manifest.csv"


def of_split(dataset: ActionDataset, split: SplitName) -> list[str]:
    """Names, sorted."""
    return sorted(record.name for record in dataset.split(split))


def by_content(dataset: ActionDataset) -> dict[str, tuple[str, str]]:
    return {record.sha256: (record.label, record.split) for record in dataset.records}


def verified(data: Path, manifest: Path) -> Verification:
    _, images, unreadable = read_images(data)
    return verify(read_manifest(manifest), images, unreadable)


# The file


def test_a_manifest_is_read_as_it_was_written(dataset: ActionDataset, manifest: Path) -> None:
    rows = read_manifest(manifest)
    wanted = [(record.name, record.sha256, record.label, record.split) for record in dataset.records]
    assert [(row.name, row.sha256, row.label, row.split) for row in rows] == wanted
    windows = manifest.with_name("windows.csv")
    windows.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_manifest(windows) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is empty, not path,sha256,class,split"),
        ("name,label\n", "its first line is 'name,label', not path,sha256,class,split"),
        ("x" * 90 + "\n", f"its first line is '{'x' * 60}...', not path,sha256,class,split"),
        (f"{HEADER}\na.jpg,{DIGEST},run\n", "line 2 has 3 columns, not 4"),
        (
            f"{HEADER}\n\na.jpg,{DIGEST[1:]},run,train\n",
            f"line 3 has the hash '{DIGEST[1:61]}...', which is not a SHA-256",
        ),
        (f"{HEADER}\na.jpg,{DIGEST},run,dev\n", "line 2 has the split 'dev', not train, val, test"),
        (f"{HEADER}\na.jpg,{DIGEST}, ,train\n", "line 2 has no class"),
        (f'{HEADER}\n"a.jpg,{DIGEST},run,train\n', "unexpected end of data"),
    ],
)
def test_malformed_manifests_are_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path} is not a split manifest: {said}. {REMEDY}"


def test_other_files_than_manifests_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for make, said in (
        (lambda: None, f"The manifest {path} does not exist"),
        (lambda: path.write_bytes(b"\xff\xfe\x00"), f"{path} is not a split manifest: it is not UTF-8 text"),
        (lambda: path.write_text(f"{HEADER}\n\n"), f"{path} is a split manifest without images"),
    ):
        make()
        with pytest.raises(DataError) as caught:
            read_manifest(path)
        assert str(caught.value) == f"{said}. {REMEDY}"
    with pytest.raises(DataError, match=f"The manifest {tmp_path} is a folder, not a split manifest"):
        read_manifest(tmp_path)


def test_one_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"{HEADER}\na.jpg,{DIGEST},run,train\nb.jpg,{DIGEST},run,test\n")
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value) == (
        f"{path} has one image in two splits: a.jpg in train, b.jpg in test, of equal content. "
        "Remove one of the two lines."
    )


# Comparing a copy


def test_a_copy_is_the_same_whatever_its_files_are_called(data: Path, manifest: Path, tmp_path: Path) -> None:
    same = verified(data, manifest)
    assert (same.rows, same.in_place, same.complete, list(same.table())) == (60, 60, True, [])
    assert list(same.lines()) == ["In place: 60"]
    copy = tmp_path / "copy"
    for path in data.rglob("*.jpg"):
        target = copy / path.parent.name / f"IMG {path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    moved = verified(copy, manifest)
    assert (moved.in_place, len(moved.moved), moved.complete, moved.extra) == (0, 60, True, ())
    assert all(here == row.name.replace("/", "/IMG ") for row, here in moved.moved)
    assert not moved.relabelled


def test_all_that_differs_is_found_and_said(data: Path, manifest: Path) -> None:
    running = sorted((data / "running").iterdir())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in running}
    splits = {row.name: row.split for row in read_manifest(manifest)}
    running[0].write_bytes(content(900))
    running[1].write_bytes(b"<html>gone</html>")
    running[2].unlink()
    running[3].rename(data / "sitting" / running[3].name)
    fill(data / "sitting", [901])
    found = verified(data, manifest)
    assert (found.rows, found.in_place, found.complete) == (60, 56, False)
    altered = f"SHA-256 {hashlib.sha256(content(900)).hexdigest()[:12]}..."
    names = [f"running/0000{n}.jpg" for n in range(4)]

    def line(finding: str, n: int, here: str) -> tuple[str, str, str, str, str]:
        return finding, names[n], here, digests[running[n].name], splits[names[n]]

    assert list(found.table()) == [
        line("moved", 3, "sitting/00003.jpg"),
        line("other class", 3, "sitting"),
        line("altered", 0, altered),
        line("altered", 1, "not an image but an HTML page"),
        line("missing", 2, ""),
        ("extra", "", "sitting/00901.jpg", "", ""),
    ]
    assert list(found.lines()) == [
        "In place: 56",
        "Under another name, of equal content: 1 (running/00003.jpg is sitting/00003.jpg)",
        "Of these, of another class than in the manifest, which counts: 1 (running/00003.jpg: running, here sitting)",
        f"Altered, of other content: 2 (running/00000.jpg: {altered}, "
        "running/00001.jpg: not an image but an HTML page)",
        "Missing: 1 (running/00002.jpg)",
        "Extra, not in the manifest and not used with it: 1 (sitting/00901.jpg)",
    ]


def test_files_that_exchanged_their_content_are_moved_not_altered(data: Path, manifest: Path) -> None:
    one, other = sorted((data / "running").iterdir())[:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    found = verified(data, manifest)
    assert found.complete and found.in_place == 58 and not found.altered
    assert {(row.name, here) for row, here in found.moved} == {
        ("running/00000.jpg", "running/00001.jpg"),
        ("running/00001.jpg", "running/00000.jpg"),
    }


def test_copies_are_matched_one_to_one_name_before_class(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("running/a.jpg", "running/b.jpg", "sitting/c.jpg", "sitting/d.jpg"):
        fill(root / name.split("/")[0], [7 if "d" not in name else 8], pattern=name.split("/")[1])
    digest = hashlib.sha256(content(7)).hexdigest()
    path = tmp_path / "m.csv"
    lines = [f"running/b.jpg,{digest},running,train", f"sitting/x.jpg,{digest},sitting,train"]
    path.write_text("\n".join([HEADER, *lines, f"running/y.jpg,{digest},running,train"]))
    found = verified(root, path)
    assert found.in_place == 1 and not found.relabelled and not found.missing
    assert {(row.name, here) for row, here in found.moved} == {
        ("sitting/x.jpg", "sitting/c.jpg"),
        ("running/y.jpg", "running/a.jpg"),
    }
    assert found.extra == ("sitting/d.jpg",)


# Following a manifest


def test_a_renamed_copy_follows_the_manifest(
    data: Path, dataset: ActionDataset, manifest: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    order = random.Random(0)
    for number, path in enumerate(sorted(data.rglob("*.jpg"), key=lambda _: order.random())):
        target = copy / path.parent.name / f"{number}.jpeg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    followed = load_dataset(copy, split_seed=99, manifest=GivenManifest(path=manifest))
    assert by_content(followed) == by_content(dataset)
    assert followed.own_splits == frozenset(SPLITS) and not followed.warnings


def test_the_manifests_classes_and_splits_win_over_the_folders(data: Path, manifest: Path, tmp_path: Path) -> None:
    rows = read_manifest(manifest)
    text = manifest.read_text().replace("running/00000.jpg", "elsewhere/x.jpg")
    lines = text.splitlines()
    index = next(n for n, text_line in enumerate(lines) if "elsewhere" in text_line)
    name, digest, _, _ = lines[index].split(",")
    lines[index] = f"{name},{digest},sitting,val"
    manifest.write_text("\n".join(lines))
    root = tmp_path / "split"
    shutil.copytree(data, root / "train")
    (root / "test").mkdir()
    shutil.move(root / "train" / "sitting", root / "test" / "sitting")
    followed = load_dataset(root, manifest=GivenManifest(path=manifest))
    assert by_content(followed)[digest] == ("sitting", "val")
    counts = Counter(row.split for row in rows if row.name != "running/00000.jpg") + Counter(["val"])
    assert followed.counts() == {split: counts[split] for split in SPLITS}


def test_images_that_the_manifest_does_not_have_are_left_out_and_said(
    data: Path, dataset: ActionDataset, manifest: Path
) -> None:
    fill(data / "running", [950, 951])
    followed = load_dataset(data, manifest=GivenManifest(path=manifest))
    assert by_content(followed) == by_content(dataset)
    assert followed.warnings == (
        f"2 images are not in {manifest} and were skipped: running/00950.jpg, running/00951.jpg",
    )


def test_a_few_missing_images_are_said_and_unreadable_ones_counted(
    data: Path, dataset: ActionDataset, manifest: Path
) -> None:
    gone, broken = of_split(dataset, "train")[:2]
    (data / gone).unlink()
    (data / broken).write_bytes(b"<html>")
    followed = load_dataset(data, manifest=GivenManifest(path=manifest))
    assert followed.counts()["train"] == dataset.counts()["train"] - 2
    assert [(item.name, item.split) for item in followed.unreadable] == [(broken, "train")]
    assert followed.warnings == (f"2 of the 60 images of {manifest} are not in the data (train 2): {gone}, {broken}",)


def test_too_many_missing_images_stop_a_binding_manifest(data: Path, dataset: ActionDataset, manifest: Path) -> None:
    missing = [*of_split(dataset, "test")[:2], *of_split(dataset, "train")[:2]]
    for name in missing[:3]:
        (data / name).unlink()
    assert len(load_dataset(data, manifest=GivenManifest(path=manifest)).records) == 57  # exactly 95 %
    (data / missing[3]).unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(data, manifest=GivenManifest(path=manifest))
    names = sorted(missing)
    assert ENOUGH == 0.95
    assert str(caught.value) == (
        f"4 of the 60 images of {manifest} are not in the data (93.3% are, 95% are needed): train 2, test 2, such as "
        f"{', '.join(names[:3])} and 1 more. Pass the --data it was created from; "
        "clip-har data verify lists the differences."
    )


def test_only_the_splits_that_are_needed_must_be_there(data: Path, dataset: ActionDataset, manifest: Path) -> None:
    for name in of_split(dataset, "train")[::2]:
        (data / name).unlink()
    needed: tuple[SplitName, ...] = ("test",)
    followed = load_dataset(data, manifest=GivenManifest(path=manifest, splits=needed))
    assert followed.counts()["test"] == dataset.counts()["test"] and not followed.warnings


def test_a_manifest_that_is_not_binding_is_left_aside_for_other_data(
    dataset: ActionDataset, manifest: Path, tmp_path: Path
) -> None:
    other = fill_classes(tmp_path / "other", {"running": 30, "sitting": 30}, start=5000)
    with pytest.raises(DataError, match="60 of the 60 images"):
        load_dataset(other, manifest=GivenManifest(path=manifest))
    loose = load_dataset(other, split_seed=3, manifest=GivenManifest(path=manifest, binding=False))
    assert by_content(loose) == by_content(load_dataset(other, split_seed=3))
    same = load_dataset(dataset.root, split_seed=3, manifest=GivenManifest(path=manifest, binding=False))
    assert by_content(same) == by_content(dataset)
