"""Datasets in the forms that hold or list images otherwise than in class folders, made of generated images.

The images are JPEGs of one colour each, so that every one is different and can be decoded.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

HAR = (
    *("calling", "clapping", "cycling", "dancing", "drinking", "eating", "fighting", "hugging", "laughing"),
    *("listening_to_music", "running", "sitting", "sleeping", "texting", "using_laptop"),
)


def jpeg(number: int) -> bytes:
    """A small JPEG whose bytes follow from the number."""
    stream = io.BytesIO()
    colour = (number * 7 % 256, number * 13 % 256, number // 256 * 29 % 256)
    Image.new("RGB", (12, 8), colour).save(stream, "JPEG", comment=str(number).encode())
    return stream.getvalue()


def write_jpegs(folder: Path, numbers: Iterable[int], pattern: str = "Image_{}.jpg") -> list[str]:
    """Write an image for each number; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in numbers:
        names.append(pattern.format(number))
        (folder / names[-1]).write_bytes(jpeg(number))
    return names


def labelled(classes: Sequence[str], each: int, start: int = 0) -> list[tuple[int, str]]:
    """Numbers with classes, the classes in turn as HAR's tables have them."""
    return [(start + place, classes[place % len(classes)]) for place in range(each * len(classes))]


def write_kaggle_flat(root: Path, classes: Sequence[str] = HAR, each: int = 4, unlabelled: int = 5) -> Path:
    """HAR as meetnagadia/human-action-recognition-har-dataset has it: tables, and a test/ without labels."""
    rows = labelled(classes, each, start=1)
    write_jpegs(root / "train", (number for number, _ in rows))
    lines = [f"Image_{number}.jpg,{label}" for number, label in rows]
    (root / "Training_set.csv").write_text("\n".join(["filename,label", *lines]) + "\n")
    names = write_jpegs(root / "test", range(10_001, 10_001 + unlabelled))
    (root / "Testing_set.csv").write_text("\n".join(["filename", *names]) + "\n")
    return root


def hub_features(classes: Sequence[str]) -> dict[str, Any]:
    """What `datasets` writes of an image column and a ClassLabel."""
    return {"image": {"_type": "Image"}, "labels": {"names": list(classes), "_type": "ClassLabel"}}


def hub_table(rows: Sequence[tuple[int, int]], classes: Sequence[str] | None) -> Any:
    """An Arrow table as the hub's image datasets have it: a struct of bytes and path, and class numbers.

    Args:
        rows: number of the image, and number of its class.
        classes: their names, written into the table's own metadata; None writes none.
    """
    pyarrow = pytest.importorskip("pyarrow")
    images = pyarrow.array(
        [{"bytes": jpeg(number), "path": f"Image_{number}.jpg"} for number, _ in rows],
        type=pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
    )
    table = pyarrow.table({"image": images, "labels": pyarrow.array([label for _, label in rows], pyarrow.int64())})
    if classes is None:
        return table
    info = json.dumps({"info": {"features": hub_features(classes)}})
    return table.replace_schema_metadata({"huggingface": info})


def write_parquet(path: Path, table: Any, *, row_group_size: int = 7) -> Path:
    """A table as a Parquet file with small row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=row_group_size)
    return path


def write_hub(root: Path, classes: Sequence[str] = HAR, each: int = 4, placeholders: int = 6) -> Path:
    """HAR as Bingsu/Human_Action_Recognition has it: Parquet files, and a test split of which all are class 0."""
    rows = [(number, classes.index(label)) for number, label in labelled(classes, each)]
    half = len(rows) // 2
    for part, part_rows in enumerate((rows[:half], rows[half:])):
        write_parquet(root / "data" / f"train-0000{part}-of-00002-ab12.parquet", hub_table(part_rows, classes))
    test = [(20_000 + number, 0) for number in range(placeholders)]
    write_parquet(root / "data" / "test-00000-of-00001-cd34.parquet", hub_table(test, classes))
    (root / "README.md").write_text("---\nlicense: odbl\n---\n# Human action recognition\n")
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar archive of files in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
