"""Cells that a spreadsheet would run are written so that it does not, and read back as they were."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from clip_har.csv_cells import csv_text, safe_cell, true_cell
from clip_har.dataset import load_dataset
from clip_har.dataset.manifests import read_manifest, write_manifest

NAMES = ["=1+1", "+cmd", "-rm", "@SUM", "\tx", "\rx", "'=x", "''=x", "'quoted'", "running", "", "'", "a=b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_inert_and_reads_back(name: str) -> None:
    (cell,) = next(csv.reader(io.StringIO(csv_text([name], []), newline="")))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert true_cell(cell) == name


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+3", "-1e-05", "running", "'quoted'", 7, None])
def test_numbers_and_ordinary_names_stay(value: object) -> None:
    assert safe_cell(value) == value


def test_a_manifest_of_formulas_reads_back(photos: Path, tmp_path: Path) -> None:
    folders = sorted(path for path in (photos / "train" if (photos / "train").is_dir() else photos).iterdir())
    data = tmp_path / "data"
    for folder, name in zip(folders[:2], ("=HYPERLINK(1)", "'@sit"), strict=True):
        shutil.copytree(folder, data / name)
    dataset = load_dataset(data)
    write_manifest(dataset, tmp_path / "manifest.csv")
    assert "\n=" not in (tmp_path / "manifest.csv").read_text()
    rows = read_manifest(tmp_path / "manifest.csv")
    assert {(row.name, row.label) for row in rows} == {(record.name, record.label) for record in dataset.records}
