"""Tables of groups: paths matched by their endings, gaps said, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_har.dataset import ImageRecord
from clip_har.dataset.group_tables import read_groups
from clip_har.dataset.groups import join_groups
from clip_har.errors import DataError

NAMES = ("train/run/1.jpg", "train/run/2.jpg", "train/sit/1.jpg", "test/sit/3.jpg")
RECORDS = [
    ImageRecord(path=Path("/d", name), name=name, sha256=f"{number:064x}", label=name.split("/")[1], split="train")
    for number, name in enumerate(NAMES)
]


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "groups.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def groups(tmp_path: Path, text: str, records: list[ImageRecord] = RECORDS) -> tuple[list[set[str]], list[str]]:
    """The names that are together, and the warnings without the file's path."""
    path = table(tmp_path, text)
    grouping, warnings = read_groups(path, records)
    joined = join_groups(records, [grouping])
    together = [{r.name for r in records if joined[r.sha256] == group} for group in sorted(set(joined.values()))]
    return [names for names in together if len(names) > 1], [said.replace(str(path), "TABLE") for said in warnings]


def test_paths_are_matched_by_as_much_of_their_end_as_tells_them_apart(tmp_path: Path) -> None:
    text = "camera,Group,PATH\nx,ann,./run\\1.jpg\nx,ann,3.jpg\ny,bob,train/sit/1.jpg\ny,bob,2.jpg\n"
    assert groups(tmp_path, text) == ([{NAMES[0], NAMES[3]}, {NAMES[1], NAMES[2]}], [])


def test_an_exact_path_wins_over_longer_ones_with_its_ending(tmp_path: Path) -> None:
    inner = ImageRecord(path=Path("/d/x"), name="run/1.jpg", sha256="f" * 64, label="run", split="train")
    text = "path,group\nrun/1.jpg,g\ntrain/run/2.jpg,g\n"
    assert groups(tmp_path, text, [*RECORDS, inner])[0] == [{"run/1.jpg", NAMES[1]}]


def test_images_without_a_group_and_strange_paths_are_said(tmp_path: Path) -> None:
    text = "path,group\ntrain/run/1.jpg,\n\ntrain/run/2.jpg,g\nelse.jpg,g\n"
    together, warnings = groups(tmp_path, text)
    assert together == []
    assert warnings == [
        "1 paths in TABLE are not images of the dataset: else.jpg",
        "2 images have no line in TABLE and are in no group: train/sit/1.jpg, test/sit/3.jpg",
    ]


def test_copies_in_several_groups_join_these(tmp_path: Path) -> None:
    copy = ImageRecord(
        path=Path("/d/c"), name="train/run/copy.jpg", sha256=RECORDS[0].sha256, label="run", split="train"
    )
    text = "path,group\ntrain/run/1.jpg,a\ncopy.jpg,b\n2.jpg,a\n3.jpg,b\ntrain/sit/1.jpg,c\n"
    together, _ = groups(tmp_path, text, [*RECORDS, copy])
    assert together == [{NAMES[0], "train/run/copy.jpg", NAMES[1], NAMES[3]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\n", "is not a table of groups: its first line does not contain the columns path and group"),
        ("path,group,group\n", "is not a table of groups: its first line does not contain the columns path and group"),
        ("", "is not a table of groups: its first line does not contain the columns path and group"),
        ("path,group\n1.jpg\n", "is not a table of groups: line 2 has 1 columns, not 2"),
        (b"path,group\n\xff,x\n", "is not a table of groups: it is not UTF-8 text"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_groups(path, RECORDS)
    assert str(caught.value) == f"{path} {said}. Write a CSV whose first line is path,group."


def test_ambiguous_and_wholly_foreign_paths_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "path,group\n2.jpg,g\n1.jpg,g\n")
    with pytest.raises(DataError) as caught:
        read_groups(path, RECORDS)
    assert str(caught.value) == (
        f"{path} line 3: '1.jpg' may be any of train/run/1.jpg, train/sit/1.jpg. "
        "Use paths relative to the dataset directory."
    )
    path = table(tmp_path, "path,group\nx.jpg,g\ny.jpg,g\n")
    with pytest.raises(DataError) as caught:
        read_groups(path, RECORDS)
    assert str(caught.value) == (
        f"None of the 2 paths in {path} is an image of the dataset: x.jpg, y.jpg. "
        "Use paths relative to the dataset directory."
    )
