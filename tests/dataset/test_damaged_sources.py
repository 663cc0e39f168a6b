"""Damaged data files of every form: each loads what it can or ends in one line, and none crashes or hangs."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clip_har.dataset import load_dataset
from clip_har.errors import DataError
from packed import hub_features, hub_table, jpeg, labelled, write_jpegs, write_parquet, write_tar

CLASSES = ("running", "sitting")
ROWS = labelled(CLASSES, 6)


def write(form: str, folder: Path) -> Path:
    """A small dataset of the form; returns the file to damage."""
    if form == "tar":
        members = {f"{n:04d}.{s}": jpeg(n) if s == "jpg" else c.encode() for n, c in ROWS for s in ("jpg", "cls")}
        return write_tar(folder / "train.tar", members)
    if form in ("csv", "jsonl"):
        write_jpegs(folder, (number for number, _ in ROWS))
        path = folder / f"labels.{form}"
        lines = [f"Image_{n}.jpg,{c}" for n, c in ROWS]
        objects = [json.dumps({"file_name": f"Image_{n}.jpg", "label": c}) for n, c in ROWS]
        path.write_text("\n".join(["filename,label", *lines] if form == "csv" else objects) + "\n")
        return path
    table = hub_table([(number, CLASSES.index(label)) for number, label in ROWS], CLASSES)
    if form == "parquet":
        return write_parquet(folder / "train.parquet", table)
    if form == "arrow":
        pyarrow = pytest.importorskip("pyarrow")
        path = folder / "train.arrow"
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return path
    write_parquet(folder / "train.parquet", hub_table([(n, CLASSES.index(c)) for n, c in ROWS], None))
    path = folder / "dataset_infos.json"
    path.write_text(json.dumps({"default": {"features": hub_features(CLASSES)}}))
    return path


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, or a piece cut out, doubled, or cut off."""
    found = bytearray(content)
    kind = rng.integers(4)
    start, stop = sorted(int(place) for place in rng.integers(0, len(found), 2))
    if kind == 0:
        for place in rng.integers(0, len(found), int(rng.integers(1, 8))):
            found[place] = int(rng.integers(256))
    elif kind == 1:
        del found[start:stop]
    elif kind == 2:
        found[start:start] = found[start:stop]
    else:
        del found[stop:]
    return bytes(found)


def run(form: str, folder: Path, seeds: range) -> None:
    for seed in seeds:
        case = folder / str(seed)
        case.mkdir()
        path = write(form, case)
        path.write_bytes(damage(path.read_bytes(), np.random.default_rng(seed)))
        with contextlib.suppress(DataError):
            for record in load_dataset(case if seed % 2 else path if form != "infos" else case).records:
                record.name.encode()
        shutil.rmtree(case)


FORMS = ["tar", "csv", "jsonl", "parquet", "arrow", "infos"]


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_one_line_or_nothing(form: str, tmp_path: Path) -> None:
    run(form, tmp_path, range(20))


@pytest.mark.slow  # writes and reads some thousands of files
@pytest.mark.parametrize("form", FORMS)
def test_much_damage_is_one_line_or_nothing(form: str, tmp_path: Path) -> None:
    run(form, tmp_path, range(100, 200))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "\0" * 100, "\xff", "filename,label\n" + "x" * (1 << 21)]
)
@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.tsv"])
def test_absurd_tables_are_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    for data in (tmp_path, tmp_path / name):
        with pytest.raises(DataError) as caught:
            load_dataset(data)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
