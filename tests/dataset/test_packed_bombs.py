"""Parquet and Arrow files that unpack to far more than they are end in one line, before the memory is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clip_har.dataset import load_dataset
from clip_har.errors import UnreadableImageError
from clip_har.images import ParquetImage, parquet
from clip_har.images.parquet import SMALLER_ROW_GROUPS, TooLargeError, image_values, text_values
from image_folders import refusal
from packed import hub_table, jpeg

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
CLASSES = ("running", "sitting")
MB = 1_000_000


def images_of(contents: list[bytes], labels: list[Any] | None = None) -> Any:
    images = [{"bytes": content, "path": None} for content in contents]
    return pa.table({"image": images, "label": labels or [place % 2 for place in range(len(contents))]})


def refused(path: Path) -> str:
    error = refusal(path)
    assert error.remedy == SMALLER_ROW_GROUPS
    return error.what


def test_images_that_shrank_as_none_do_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(images_of([bytes(MB)] * 100), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < MB / 10
    assert "row group 0 unpacks to" in refused(path) and "times the bytes that its images take" in refused(path)
    address = ParquetImage(file=path, column="image", row_group=0, row=3)
    with pytest.raises(UnreadableImageError, match="row group 0 unpacks to"):
        address.read()


def test_a_row_group_above_the_limit_is_refused_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.parquet"
    pq.write_table(images_of([jpeg(number) for number in range(40)]), path)
    assert len(image_values(path, "image", 0)) == 40
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 9_000)
    assert "row group 0 unpacks to 27.1 kB of images" in refused(path)


def test_a_repeated_image_is_counted_as_often_as_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary states its one value's size: the metadata say 1 MB where the rows are 200 MB."""
    path = tmp_path / "repeated.parquet"
    pq.write_table(images_of([bytes(MB)] * 200), path, compression="zstd")
    opened = pq.ParquetFile(path)
    parquet.require_affordable_images(opened, "image", 0)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 50 * MB)
    with pytest.raises(TooLargeError, match=r"more than 50\.0 MB of images"):
        image_values(path, "image", 0)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "RLE_DICTIONARY"])
def test_labels_that_unpack_to_much_are_refused(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every label shares a long beginning with the one before, which the file stores once."""
    monkeypatch.setattr(parquet, "MAX_TEXT_BYTES", 20 * MB)
    labels = ["x" * 100_000 + f"{number:04d}" for number in range(1000)]
    path = tmp_path / "labels.parquet"
    table = images_of([jpeg(number) for number in range(1000)], labels)
    options: dict[str, Any] = (
        {"use_dictionary": ["label"]} if encoding == "RLE_DICTIONARY" else {"use_dictionary": False}
    )
    if encoding == "DELTA_BYTE_ARRAY":
        options["column_encoding"] = {"label": encoding}
    pq.write_table(table, path, compression="zstd", **options)
    assert "MB of text" in refused(path)


def test_a_repeated_label_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    label = "x" * MB
    labels = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array([label]))  # text would be 3 GB
    table = images_of([jpeg(number) for number in range(3000)]).set_column(1, "label", labels)
    pq.write_table(table, path, store_schema=False)
    assert pq.read_schema(path).field("label").type == pa.string()
    rows = [row for _, row in parquet.text_rows(path, ["label"], row_bytes=1)]
    assert len(rows) == 3000 and rows[0] == (label,)
    assert len({id(row[0]) for row in rows}) <= 3  # one for each batch


@pytest.mark.parametrize("kind", ["parquet", "table", "arrow"])
def test_more_rows_than_bytes_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FEW_ROWS", 1_000)
    count = 50_000
    path = tmp_path / f"rows.{'arrow' if kind == 'arrow' else 'parquet'}"
    if kind == "table":
        pq.write_table(pa.table({"filename": ["a.jpg"] * count, "label": [1] * count}), path, compression="zstd")
    elif kind == "parquet":
        pq.write_table(images_of([b"x"] * count), path, compression="zstd")
    else:
        table = pa.table({"image": pa.array([b""] * count, pa.binary()), "label": pa.array([1] * count, pa.int8())})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    assert f"it states {count:,} rows" in refused(path)


@pytest.mark.parametrize("form", ["file", "stream", "dictionary"])
def test_compressed_arrow_files_are_refused_before_they_are_unpacked(tmp_path: Path, form: str) -> None:
    """64 MB of zeros in a few kilobytes, and a limit on memory that they would break."""
    path = tmp_path / "bomb.arrow"
    labels = pa.array(["running", "sitting"] * 4)
    contents = [jpeg(number) for number in range(8)] if form == "dictionary" else [bytes(8 * MB)] * 8
    if form == "dictionary":
        labels = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 4), pa.array(["x" * 30 * MB, "y" * 30 * MB]))
    table = pa.table({"image": pa.array(contents, pa.binary()), "label": labels})
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    before = pa.total_allocated_bytes()
    error = refusal(path)
    assert "is compressed, so its images cannot be read in place" in error.what
    assert pa.total_allocated_bytes() - before < 10 * MB


def test_uncompressed_arrow_files_are_not_taken_for_compressed(tmp_path: Path) -> None:
    table = hub_table([(number, number % 2) for number in range(24)], CLASSES)
    for name, make in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        path = tmp_path / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table)
        assert len(load_dataset(path).records) == 24


@pytest.mark.parametrize(
    "values",
    [pa.array([["a"], ["b"]]), pa.array([{"a": 1}, {"a": 2}]), pa.RunEndEncodedArray.from_arrays([2], ["running"])],
    ids=["list", "struct", "run ends"],
)
def test_labels_are_text_or_numbers(values: Any) -> None:
    with pytest.raises(ValueError, match="neither text nor numbers"):
        text_values(values)


def test_the_memory_is_not_taken(tmp_path: Path) -> None:
    """A file of 200 kB that stands for 2 GB: the process that refuses it stays small."""
    path = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(path, images_of([b""]).schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(images_of([bytes(20 * MB)] * 20))
    for make in (f"ParquetImage(file=Path({str(path)!r}), column='image', row_group=0, row=0).read()",):
        script = (
            "import resource\nfrom pathlib import Path\nimport pyarrow.parquet\n"
            "from clip_har.images import ParquetImage\nfrom clip_har.errors import UnreadableImageError\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            f"try:\n    {make}\nexcept UnreadableImageError as error:\n    print(error)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        said, grown = done.stdout.splitlines()
        assert "unpacks to" in said and int(grown) < 60_000  # kB
