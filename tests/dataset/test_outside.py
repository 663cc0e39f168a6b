"""Images outside their dataset's folder: said for the user's own data, refused for what was fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_har.audit.inventory import read_inventory
from clip_har.dataset import load_dataset
from clip_har.dataset.sources import find_source, remember
from clip_har.errors import DataError
from image_folders import fill, fill_classes, refusal


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP_HAR_CACHE", str(tmp_path / "cache"))


def with_links(tmp_path: Path) -> Path:
    """Two classes in place, one that is a link, and one link to a single file."""
    data = fill_classes(tmp_path / "data", {"running": 12, "sitting": 12})
    fill(tmp_path / "elsewhere" / "eating", range(100, 112))
    (data / "eating").symlink_to(tmp_path / "elsewhere" / "eating")
    fill(tmp_path / "elsewhere" / "single", [200])
    (data / "running" / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "single" / "00200.jpg")
    return data


def test_images_that_links_lead_to_are_counted_and_said(tmp_path: Path) -> None:
    data = with_links(tmp_path)
    dataset = load_dataset(data)
    said = [warning for warning in dataset.warnings if "outside" in warning]
    assert len(said) == 1
    assert said[0].startswith(f"13 of 37 images are outside {data}, reached through links or a table's paths, in ")
    assert str(tmp_path / "elsewhere") in said[0] and "eating/00100.jpg" in said[0]
    assert [warning for warning in read_inventory(data).warnings if "13 of 37 images" in warning]


def test_links_inside_the_folder_and_to_it_say_nothing(tmp_path: Path) -> None:
    data = fill_classes(tmp_path / "real", {"running": 12, "sitting": 12})
    (data / "sitting" / "again.jpg").symlink_to("00012.jpg")
    (tmp_path / "data").symlink_to(data)
    assert not [warning for warning in find_source(tmp_path / "data").warnings if "outside" in warning]


@pytest.mark.parametrize("form", ["absolute", "upwards"])
def test_a_tables_paths_outside_are_said(tmp_path: Path, form: str) -> None:
    data = fill_classes(tmp_path / "data", {"running": 12, "sitting": 12})
    fill(tmp_path / "secret", [300])
    start = str(tmp_path / "secret") if form == "absolute" else "../secret"
    lines = [f"{path.relative_to(data)},{path.parent.name}" for path in sorted(data.rglob("*.jpg"))]
    table = data / "labels.csv"
    table.write_text("\n".join(["filename,label", *lines, f"{start}/00300.jpg,running"]) + "\n")
    for given in (table, data):
        source = find_source(given)
        said = [warning for warning in source.warnings if "outside" in warning]
        assert len(source.files) == 25 and len(said) == 1
        assert said[0].startswith(f"1 of 25 images are outside {data}") and str(tmp_path / "secret") in said[0]


def test_a_table_apart_from_its_images_says_where_they_lie(tmp_path: Path) -> None:
    """Tables that `data split` writes into a folder of their own are no cause for a warning."""
    data = fill_classes(tmp_path / "data", {"running": 12, "sitting": 12})
    lines = [f"{path},{path.parent.name}" for path in sorted(data.rglob("*.jpg"))]
    table = tmp_path / "splits" / "split.csv"
    table.parent.mkdir()
    table.write_text("\n".join(["filename,label", *lines]) + "\n")
    source = find_source(table)
    assert source.warnings == () and source.form.endswith(f"; all images are outside its folder, in {data}")


def test_fetched_data_with_images_outside_is_refused(tmp_path: Path) -> None:
    data = with_links(tmp_path)
    remember("har", data)
    for given in (data, Path("har")):
        with pytest.raises(DataError, match="outside that folder") as caught:
            find_source(given)
        assert caught.value.remedy.startswith("Downloaded data has no such images")
    (data / "eating").unlink()
    (data / "running" / "linked.jpg").unlink()
    assert len(find_source(Path("har")).files) == 24


def test_what_is_fetched_just_now_is_refused_before_it_is_remembered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="13 images of"):
        find_source(with_links(tmp_path), fetched=True)
    assert "Dataset not found" in refusal(tmp_path / "elsewhere" / "nothing").what
