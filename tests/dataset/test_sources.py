"""Datasets that load without conversion: tables, hub datasets, tar shards; and how their form is guessed."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip_har.audit.inventory import read_inventory
from clip_har.audit.plan import manifest_csv
from clip_har.dataset import load_dataset
from clip_har.dataset.sources import find_source, locate, remember
from clip_har.errors import DataError, UnreadableImageError
from clip_har.images import PackedImage, ParquetImage, decode, decode_batches
from clip_har.images.addresses import address_text, parse_address
from image_folders import class_counts, fill_classes, names, refusal
from packed import hub_features, hub_table, jpeg, labelled, write_jpegs, write_kaggle_flat, write_parquet, write_tar

CLASSES = ("running", "sitting")
ROWS = labelled(CLASSES, 6)


def write_table(root: Path, *, name: str = "labels.csv", header: str = "filename,label", end: str = "") -> Path:
    """A table of twelve images in images/, with the separator of its header."""
    write_jpegs(root / "images", (number for number, _ in ROWS))
    separator = "\t" if "\t" in header else ";" if ";" in header else ","
    lines = [f"images/Image_{number}.jpg{separator}{label}{end}" for number, label in ROWS]
    (root / name).write_text("\n".join([header, *lines]) + "\n")
    return root / name


def expected() -> dict[str, str]:
    return {f"images/Image_{number}.jpg": label for number, label in ROWS}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("labels.csv", "filename,label"),
        ("LABELS.CSV", "File Path,Action"),
        ("labels.csv", "image_path;category"),
        ("labels.tsv", "path\tclass"),
    ],
)
@pytest.mark.parametrize("by_folder", [True, False])
def test_a_table_of_paths_and_classes_loads(name: str, header: str, by_folder: bool, tmp_path: Path) -> None:
    table = write_table(tmp_path, name=name, header=header)
    dataset = load_dataset(tmp_path if by_folder else table)
    assert {record.name: record.label for record in dataset.records} == expected()
    assert dataset.root == (tmp_path if by_folder else table).resolve()
    path, label = header.replace(";", ",").replace("\t", ",").split(",")
    assert dataset.form == f"a table of paths and classes, {name} (path: {path}, label: {label})"
    assert dataset.warnings == ()


def test_json_lines_and_parquet_tables_load(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    write_table(tmp_path / "csv")
    objects = [{"file_name": name, "label": label} for name, label in expected().items()]
    (tmp_path / "csv" / "metadata.jsonl").write_text("\n".join(map(json.dumps, objects)) + "\n")
    write_parquet(tmp_path / "csv" / "metadata.parquet", pyarrow.Table.from_pylist(objects))
    for name in ("metadata.jsonl", "metadata.parquet"):
        dataset = load_dataset(tmp_path / "csv" / name)
        assert {record.name: record.label for record in dataset.records} == expected()


def test_a_column_of_splits_is_kept(tmp_path: Path) -> None:
    write_jpegs(tmp_path, range(12))
    split = ["train"] * 6 + ["validation"] * 2 + ["Test"] * 2 + [""] * 2
    lines = [f"Image_{number}.jpg,{label},{split[number]}" for number, label in ROWS]
    (tmp_path / "all.csv").write_text("\n".join(["path,class,split", *lines]))
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 8, "val": 2, "test": 2}
    assert names(dataset, "test") == {"Image_8.jpg", "Image_9.jpg"}


def test_a_table_for_each_split_is_one_dataset(tmp_path: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        rows = labelled(CLASSES, 3, start=100 * start)
        write_jpegs(tmp_path / split, (number for number, _ in rows))
        lines = [f"Image_{number}.jpg,{label}" for number, label in rows]
        (tmp_path / f"{split}.csv").write_text("\n".join(["filename,label", *lines]))
    dataset = load_dataset(tmp_path)
    assert dataset.counts() == {"train": 6, "val": 6, "test": 6}
    assert names(dataset, "val") == {f"val/Image_{number}.jpg" for number in range(100, 106)}
    (tmp_path / "more.csv").write_text((tmp_path / "train.csv").read_text())
    assert "has several tables of images" not in str(load_dataset(tmp_path).warnings)
    assert load_dataset(tmp_path).counts() == {"train": 6, "val": 6, "test": 6}


def test_two_tables_of_no_split_are_ambiguous(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    shutil.copy(table, tmp_path / "other.csv")
    error = refusal(tmp_path)
    assert error.what == f"{tmp_path.resolve()} has several tables of images: labels.csv, other.csv"
    assert error.remedy == "Pass one of them with --data."


def test_files_that_do_not_exist_are_counted_and_the_first_three_named(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    for number in (3, 4, 5, 7):
        (tmp_path / "images" / f"Image_{number}.jpg").unlink()
    error = refusal(table)
    assert error.what == (
        f"{table.resolve()} lists 4 files of 12 that do not exist: images/Image_3.jpg, images/Image_4.jpg, "
        f"images/Image_5.jpg and 1 more (looked for in {tmp_path.resolve()})"
    )
    assert refusal(tmp_path).what == error.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label\n1,a\n", "has no column of image paths (its columns are id, label)"),
        ("filename,width\nimages/Image_0.jpg,3\n", "has no class column (path column: filename)"),
        ("filename,label\nimages/Image_0.jpg,\n", "has a class (of 1 listed)"),
        ("filename,label,split\nimages/Image_0.jpg,a,blue\n", "has in its column split 'blue', which is not a split"),
        (
            "filename,label\nimages/Image_0.jpg,a\nimages/Image_0.jpg,b\n",
            "lists 1 images under two classes or splits, such as images/Image_0.jpg (a, b)",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_refused(text: str, said: str, tmp_path: Path) -> None:
    table = write_table(tmp_path)
    table.write_text(text)
    assert said in refusal(table).what


def test_captions_are_not_taken_for_classes(tmp_path: Path) -> None:
    rows = write_jpegs(tmp_path, range(24))
    lines = [f"{name},a person number {name} doing something" for name in rows]
    (tmp_path / "captions.csv").write_text("\n".join(["filename,label", *lines]))
    assert "has 24 classes for 24 images, such as 'a person number Image_" in refusal(tmp_path).what


def test_images_without_a_class_are_said_and_left_out(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    with table.open("a") as stream:
        stream.write("images/more_0.jpg,\nimages/more_1.jpg,\nimages/Image_0.jpg,running\n")
    write_jpegs(tmp_path / "images", (50, 51), "more_{}.jpg")
    for number in (0, 1):
        (tmp_path / "images" / f"more_{50 + number}.jpg").rename(tmp_path / "images" / f"more_{number}.jpg")
    dataset = load_dataset(tmp_path)
    assert names(dataset) == set(expected())
    assert dataset.warnings == (
        "2 images have no class: they are skipped in training and evaluation (use clip-har predict)",
        "1 images are listed more than once: images/Image_0.jpg",
    )


def test_class_numbers_get_their_names_from_a_list_beside_them(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    table.write_text(table.read_text().replace("running", "0").replace("sitting", "1"))
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("0", "1") and dataset.warnings[0].startswith("Classes are numbers without names")
    (tmp_path / "classes.txt").write_text("running\nsitting\n")
    dataset = load_dataset(tmp_path)
    assert {record.name: record.label for record in dataset.records} == expected() and dataset.warnings == ()
    (tmp_path / "classes.txt").write_text("running\n")
    assert "is of class 1, but there are 1 class names, numbered from 0" in refusal(tmp_path).what


def test_a_listed_file_that_is_no_image_is_reported_whatever_its_name(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    (tmp_path / "images" / "notes").write_text("words")
    with table.open("a") as stream:
        stream.write("images/notes,running\n")
    (item,) = load_dataset(tmp_path).unreadable
    assert (item.name, item.reason) == ("images/notes", "not an image but text")


def test_class_folders_win_over_a_table_whose_images_are_elsewhere(tmp_path: Path) -> None:
    fill_classes(tmp_path, {"running": 3, "sitting": 3})
    (tmp_path / "log.csv").write_text("filename,label\nelsewhere/1.jpg,dancing\n")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == CLASSES and dataset.form == "class folders"
    assert dataset.warnings == (
        "log.csv lists images that do not exist and was not read; the classes are those of the folders",
    )


# The hub's files


@pytest.mark.parametrize("described", ["file", "card", "infos", "list", "nowhere"])
def test_class_numbers_of_a_parquet_file_are_named(described: str, tmp_path: Path) -> None:
    rows = [(number, CLASSES.index(label)) for number, label in ROWS]
    table = hub_table(rows, CLASSES if described == "file" else None)
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", table)
    if described == "card":
        names_by_number = "".join(f"          '{place}': {name}\n" for place, name in enumerate(CLASSES))
        head = "dataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: labels\n    dtype:\n"
        text = f"---\n{head}      class_label:\n        names:\n{names_by_number}---\n# Photos\n"
        (tmp_path / "README.md").write_text(text)
    elif described == "infos":
        (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {"features": hub_features(CLASSES)}}))
    elif described == "list":
        (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    dataset = load_dataset(tmp_path)
    if described == "nowhere":
        assert dataset.classes == ("0", "1") and "numbers without names" in dataset.warnings[0]
        return
    assert dataset.classes == CLASSES and dataset.warnings == ()
    labels = {record.name.rpartition("/")[2]: record.label for record in dataset.records}
    assert labels == {f"{number:06d}": label for number, label in ROWS}


def test_datasets_saved_to_disk_load_in_place(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))},
    )
    parts = {}
    for split, start in (("train", 0), ("test", 100)):
        rows = labelled(CLASSES, 6, start=start)
        images = [{"bytes": jpeg(number), "path": None} for number, _ in rows]
        columns = {"image": images, "label": [CLASSES.index(label) for _, label in rows]}
        parts[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    dataset = load_dataset(tmp_path / "saved")
    assert dataset.classes == CLASSES and class_counts(dataset, "test") == {"running": 6, "sitting": 6}
    for place, record in enumerate(dataset.split("test")):
        assert isinstance(record.path, PackedImage)
        assert record.path.read() == jpeg(100 + place) and record.label == CLASSES[place % 2]


def test_compressed_arrow_files_are_refused(tmp_path: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    feather.write_feather(hub_table([(1, 0), (2, 1)], CLASSES), tmp_path / "part.arrow", compression="zstd")
    assert "is compressed, so its images cannot be read in place" in refusal(tmp_path / "part.arrow").what


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    table = hub_table([(number, number % 2) for number in range(12)], CLASSES)
    path = write_parquet(tmp_path / "train.parquet", table)
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path).remedy == "Download the file again."


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("clip_har.images.parquet.importlib.import_module", missing)
    error = refusal(tmp_path / "train.parquet")
    assert (
        error.what == f"Reading {tmp_path.resolve()}/train.parquet requires the package pyarrow, which is not installed"
    )
    assert error.remedy == "pip install 'clip-har[parquet]'"


# Tar shards


def shard_members(split_start: int, kind: str) -> dict[str, bytes]:
    """A shard's files: an image and its class, as a number, a word or an object."""
    members: dict[str, bytes] = {}
    for number, label in labelled(CLASSES, 6, start=split_start):
        members[f"{number:06d}.jpg"] = jpeg(number)
        if kind == "json":
            members[f"{number:06d}.json"] = json.dumps({"label": label, "width": 12}).encode()
        else:
            word = str(CLASSES.index(label)) if kind == "cls" else label
            members[f"{number:06d}.{kind}"] = word.encode()
    return members


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_tar_shards_are_read_in_place(kind: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", shard_members(0, kind))
    elsewhere = write_tar(tmp_path.parent / f"{tmp_path.name}-disk2" / "000001.tar", shard_members(100, kind))
    (tmp_path / "train-000001.tar").symlink_to(elsewhere)
    write_tar(tmp_path / "test-000000.tar", shard_members(200, kind))
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    before = sorted(tmp_path.rglob("*"))
    dataset = load_dataset(tmp_path)
    assert dataset.form == "3 WebDataset tar shards, read in place"
    assert dataset.classes == CLASSES
    assert class_counts(dataset, "test") == {"running": 6, "sitting": 6} and len(dataset.records) == 36
    for record in dataset.records:
        shard, _, file = record.name.partition("/")
        number = int(file.removesuffix(".jpg"))
        assert isinstance(record.path, PackedImage) and record.path.file == tmp_path.resolve() / shard
        assert record.path.read() == jpeg(number) and record.label == CLASSES[number % 2]
    assert sorted(tmp_path.rglob("*")) == before


def test_shards_that_end_early_or_are_compressed_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a" / "train.tar", shard_members(0, "txt"))
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + 100])
    assert "ends in the middle of 000000.jpg" in refusal(path).what
    path.write_bytes(b"nothing of the kind")
    assert refusal(path).what.startswith(f"Cannot read the shard {path.resolve()}: ")
    path.rename(path.with_name("train.tar.gz"))
    assert "is a compressed archive, in which images cannot be read in place" in refusal(tmp_path / "a").what


def test_members_that_are_no_regular_files_are_left_alone(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train.tar", shard_members(0, "txt"))
    with tarfile.open(path, "a") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "../link.jpg"),
            (tarfile.FIFOTYPE, "pipe.jpg"),
            (tarfile.DIRTYPE, "d.jpg"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert len(load_dataset(path).records) == 12


# Addresses


def test_packed_images_decode_in_worker_processes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [(number, number % 2) for number in range(20)]
    write_parquet(tmp_path / "hub" / "train-0.parquet", hub_table(rows, CLASSES))
    write_tar(tmp_path / "tars" / "train-0.tar", shard_members(0, "txt"))
    for folder in ("hub", "tars"):
        records = load_dataset(tmp_path / folder).records
        transform = _mean_colour
        batches = list(decode_batches([r.path for r in records], transform, batch_size=4, workers=2))
        assert [index for batch in batches for index in batch.indices] == list(range(len(records)))
        for batch in batches:
            for index, value in zip(batch.indices, batch.images_BCHW, strict=True):
                assert value.equal(_mean_colour(decode(jpeg(index))))


def _mean_colour(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)), dtype=torch.float32)


def test_addresses_survive_pickling_and_writing_into_a_table(tmp_path: Path) -> None:
    file = tmp_path / "with #bytes" / "shard.tar"
    for address in (
        PackedImage(file=file, start=512, length=99),
        ParquetImage(file=file, column="an image", row_group=2, row=7),
        file,
    ):
        assert pickle.loads(pickle.dumps(address)) == address
        for folder in (tmp_path, tmp_path / "elsewhere"):
            assert parse_address(address_text(address, folder), folder) == address


def test_what_is_not_there_any_more_is_unreadable(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "short.tar").write_bytes(b"abc")
    for address, reason in (
        (PackedImage(file=tmp_path / "gone.tar", start=0, length=9), "No such file"),
        (PackedImage(file=tmp_path / "short.tar", start=0, length=9), "short.tar ends early"),
        (PackedImage(file=tmp_path / "short.tar", start=0, length=1 << 40), "more than 134,217,728 bytes"),
        (ParquetImage(file=tmp_path / "gone.parquet", column="image", row_group=0, row=0), "cannot be read from gone"),
    ):
        with pytest.raises(UnreadableImageError, match=reason):
            decode(address)


def test_a_cleaned_manifest_of_packed_images_loads_as_data(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars" / "shard-0.tar", shard_members(0, "txt"))
    inventory = read_inventory(tmp_path / "tars")
    table = tmp_path / "clean.csv"
    table.write_text(manifest_csv(inventory.images[2:], tmp_path))
    dataset = load_dataset(table)
    assert {(r.sha256, r.label) for r in dataset.records} == {(f.sha256, f.label) for f in inventory.images[2:]}


# Names of datasets


def test_har_is_where_it_was_fetched_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        locate(Path("har"))
    assert caught.value.what == "The dataset har has not been fetched"
    assert caught.value.remedy == "Run clip-har data fetch har --source kaggle --out DIR"
    fetched = write_kaggle_flat(tmp_path / "somewhere" / "HAR")
    remember("har", Path("somewhere/HAR"))
    assert locate(Path("har")) == fetched and find_source(Path("har")).root == fetched.resolve()
    shutil.rmtree(fetched)
    with pytest.raises(DataError, match="The dataset har is no longer in"):
        locate(Path("har"))
    (tmp_path / "har").mkdir()
    assert locate(Path("har")) == Path("har")


def test_separators_that_are_mixed_are_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path;label,split\na.jpg;run,train\nb.jpg;sit,train\n")
    assert refusal(table).remedy == "Some cells contain semicolons: separate all columns with one character."
    table.write_text("path,label\na.jpg,run\nb.jpg;sit\n")
    assert refusal(table).remedy == "Some cells contain semicolons: separate all columns with one character."
    table.write_text("path,label\na.jpg,run\nb.jpg\tsit\n")
    assert refusal(table).remedy == "Some cells contain tabs: separate all columns with one character."
    table.write_text("path,label\na.jpg,run\nb.jpg,sit\n")
    assert "Move the images" in refusal(table).remedy
