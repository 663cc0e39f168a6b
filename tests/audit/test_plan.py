"""The cleaning plan: what is proposed and why, what a person may write into it, and the manifest that comes of it."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit.datasets import NO_MODEL, audited, file, fill, jpeg, put, scene
from clip_har.audit.copies import CopyGroups, copy_findings
from clip_har.audit.inventory import read_inventory
from clip_har.audit.label_errors import LabelDoubt
from clip_har.audit.plan import PLAN_COLUMNS, PlanRow, apply_plan, proposed_plan, read_plan, write_plan
from clip_har.audit.records import Audit, Finding
from clip_har.commands.audit import apply_cleaning, propose_cleaning
from clip_har.dataset import load_dataset, read_manifest
from clip_har.dataset.verifying import GivenManifest
from clip_har.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A leak, a duplicate, a conflict within train, a cut-off and an empty file, a tiny image; and 12 good images."""
    root = fill(tmp_path / "data")
    put(root, "train/cycling/leak.jpg", (root / "test/cycling/0.jpg").read_bytes())
    put(root, "train/running/twice.jpg", (root / "train/running/0.jpg").read_bytes())
    put(root, "train/running/other class.jpg", (root / "train/cycling/1.jpg").read_bytes())
    put(root, "train/running/cut.jpg", jpeg(scene(9))[:-900])
    put(root, "test/running/empty.jpg", b"")
    put(root, "test/running/tiny.jpg", scene(10, (40, 30)))
    return root


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def edited(path: Path, changes: Mapping[str, Mapping[str, str]]) -> None:
    """Write a plan's cells anew, as a spreadsheet would."""
    table = rows(path)
    for name, cells in changes.items():
        table[name].update(cells)
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, PLAN_COLUMNS)
        writer.writeheader()
        writer.writerows(table.values())


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


# Proposing


def test_every_image_has_a_row_and_every_proposal_a_reason(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    propose_cleaning(root, plan, settings=NO_MODEL)
    table = rows(plan)
    said = {name: (row["action"], row["reason"]) for name, row in table.items() if row["reason"]}
    conflict = "conflict: The same file, in 2 classes: cycling, running"
    assert said == {
        "train/cycling/leak.jpg": ("drop", "same file as test/cycling/0.jpg in test"),
        "train/running/twice.jpg": ("drop", "same file as train/running/0.jpg"),
        "train/cycling/1.jpg": ("keep", conflict),
        "train/running/other class.jpg": ("keep", f"{conflict}; same file as train/cycling/1.jpg"),
        "train/running/cut.jpg": ("drop", "cannot be read: ends early (truncated JPEG)"),
        "test/running/empty.jpg": ("drop", "cannot be read: empty file"),
        "test/running/tiny.jpg": ("keep", "40 x 30 pixels, less than 64 on a side"),
    }
    assert list(table) == [*sorted(said), *sorted(table.keys() - said.keys())]  # those with a reason first
    assert {row["action"] for name, row in table.items() if name not in said} == {"keep"}
    assert len(table) == 18
    good = table["train/cycling/0.jpg"]
    assert good["sha256"] == hashlib.sha256((root / "train/cycling/0.jpg").read_bytes()).hexdigest()
    assert (good["class"], good["split"], good["new_class"], good["new_split"]) == ("cycling", "train", "", "")
    assert table["test/running/empty.jpg"]["sha256"] == ""


def test_suspects_are_kept_unless_they_are_to_be_relabelled(tmp_path: Path) -> None:
    image = file("run/a.jpg", sha256="0" * 64)
    doubt = LabelDoubt(
        index=0, given="run", given_probability=0.1, suggested="sit", suggested_probability=0.8, top=(("sit", 0.8),)
    )
    finding = Finding(kind="label", severity="warning", files=(image,), why="run has 0.10", action="", doubt=doubt)
    unreadable = Finding(kind="truncated", severity="error", files=(image,), why="ends early", action="")

    def proposed(*findings: Finding, relabel: bool) -> PlanRow:
        audit = Audit(root=tmp_path, files=(image,), findings=findings, checks=(), warnings=(), model="m")
        (row,) = proposed_plan(audit, relabel_suspects=relabel)
        return row

    kept = proposed(finding, relabel=False)
    assert (kept.action, kept.new_class, kept.reason) == ("keep", "", "suspected label error: run has 0.10")
    moved = proposed(finding, relabel=True)
    assert (moved.action, moved.new_class) == ("relabel", "sit")
    for order in ((finding, unreadable), (unreadable, finding)):  # what is dropped needs no new class
        dropped = proposed(*order, relabel=True)
        assert (dropped.action, dropped.new_class) == ("drop", "")
        assert set(dropped.reason.split("; ")) == {"suspected label error: run has 0.10", "cannot be read: ends early"}


def test_of_copies_over_three_splits_only_the_held_out_one_is_kept(tmp_path: Path) -> None:
    root = fill(tmp_path, splits=("train", "val", "test"))
    content = (root / "test/cycling/0.jpg").read_bytes()
    for name in ("test/cycling/again.jpg", "val/cycling/c.jpg", "train/cycling/a.jpg", "train/cycling/b.jpg"):
        put(root, name, content)
    actions = {row.path: row.action for row in proposed_plan(audited(root)) if row.reason}
    assert actions == {
        "test/cycling/again.jpg": "drop",
        "val/cycling/c.jpg": "drop",
        "train/cycling/a.jpg": "drop",
        "train/cycling/b.jpg": "drop",
    }


def test_of_equal_bytes_one_is_kept_whatever_the_group_begins_with(tmp_path: Path) -> None:
    """Six copies of one picture: the first alone in its bytes, then two pairs and one of another class."""
    contents = {"run/a": "1", "run/b": "2", "run/c": "2", "run/d": "1", "sit/e": "2", "sit/f": "2"}
    files = tuple(replace(file(name), sha256=sha256) for name, sha256 in contents.items())
    content_N = np.array([int(sha256) for sha256 in contents.values()])
    alike_N = np.zeros(len(files), dtype=int)
    findings = tuple(copy_findings(files, CopyGroups(content_N=content_N, hash_N=alike_N, all_N=alike_N)))
    plan = {row.path: row for row in proposed_plan(replace(audited(fill(tmp_path)), files=files, findings=findings))}
    assert {name: row.action for name, row in plan.items()} == {
        "run/a": "keep",
        "run/b": "keep",
        "run/c": "drop",
        "run/d": "drop",
        "sit/e": "keep",
        "sit/f": "drop",
    }
    assert plan["run/b"].reason.endswith("; same picture as run/a")
    assert plan["run/c"].reason.endswith("; same file as run/b")
    assert plan["run/d"].reason.endswith("; same file as run/a")
    assert plan["sit/f"].reason.endswith("; same file as sit/e")


# Reading back and applying


def test_a_plan_is_made_edited_and_applied(root: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.csv", tmp_path / "clean.csv"
    before = state(root)
    propose_cleaning(root, plan, settings=NO_MODEL)
    edited(
        plan,
        {
            "train/running/other class.jpg": {"action": " Drop "},
            "train/cycling/2.jpg": {"action": "relabel", "new_class": "running"},
            "test/running/2.jpg": {"action": "move", "new_split": "Train"},
            "test/running/1.jpg": {"action": "move", "new_split": "val", "new_class": "cycling"},
        },
    )
    cleaned = apply_cleaning(root, plan, out)
    assert cleaned.done == {"keep": 10, "drop": 4, "relabel": 1, "move": 2} and not cleaned.warnings
    assert state(root) == before
    made = {row.name: row for row in read_manifest(out)}
    dropped = {f"train/{name}.jpg" for name in ("cycling/leak", "running/twice", "running/cut", "running/other class")}
    every = {str(path.relative_to(root)) for path in root.rglob("*.jpg")} - {"test/running/empty.jpg"}
    assert set(made) == {f"data/{name}" for name in every - dropped}
    where = {name: (row.label, row.split) for name, row in made.items()}
    assert where["data/train/cycling/2.jpg"] == ("running", "train")
    assert where["data/test/running/2.jpg"] == ("running", "train")
    assert where["data/test/running/1.jpg"] == ("cycling", "val")
    assert where["data/test/cycling/0.jpg"] == ("cycling", "test")
    dataset = load_dataset(root, manifest=GivenManifest(path=out))
    assert dataset.counts() == {"train": 7, "val": 1, "test": 5}


def test_images_that_the_plan_does_not_list_are_kept(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    digest = hashlib.sha256((root / "train/cycling/0.jpg").read_bytes()).hexdigest()
    plan.write_text(f"path,sha256,action\ntrain/cycling/0.jpg,{digest},drop\n")
    cleaned = apply_cleaning(root, plan, tmp_path / "clean.csv")
    assert cleaned.done == {"keep": 16, "drop": 1}
    assert {path.removeprefix("data/") for path in rows(tmp_path / "clean.csv")} == {
        image.name for image in read_inventory(root).images if image.name != "train/cycling/0.jpg"
    }


def test_manifest_paths_are_relative_to_the_manifest_where_they_can_be(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    write_plan([], plan)
    for out, start in ((tmp_path / "m.csv", "data/"), (tmp_path / "else" / "m.csv", f"{root.resolve()}/")):
        apply_cleaning(root, plan, out)
        with out.open(encoding="utf-8") as stream:
            assert all(row["path"].startswith(start) for row in csv.DictReader(stream))


def refusal(root: Path, text: str) -> str:
    plan = root.parent / "plan.csv"
    plan.write_text(text, encoding="utf-8")
    out = root.parent / "clean.csv"
    with pytest.raises(DataError) as caught:
        apply_cleaning(root, plan, out)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(plan), "PLAN")


HEADER = ",".join(PLAN_COLUMNS)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("train/cycling/no.jpg,,,,keep,,,", "the dataset has no 'train/cycling/no.jpg'"),
        (f"train/cycling/0.jpg,{'0' * 64},,,drop,,,", "train/cycling/0.jpg has changed since the plan was made"),
        ("train/cycling/0.jpg,,,,delete,,,", "unknown action 'delete'; it is keep, drop, relabel or move"),
        ("train/cycling/0.jpg,,,,,,,", "unknown action ''; it is keep, drop, relabel or move"),
        ("train/cycling/0.jpg,,,,relabel,,,", "relabel needs a new_class"),
        ("train/cycling/0.jpg,,,,move,,,", "move needs a new_split"),
        ("train/cycling/0.jpg,,,,keep,running,,", "new_class or new_split is given, but the action is keep"),
        ("train/cycling/0.jpg,,,,drop,,val,", "new_class or new_split is given, but the action is drop"),
        ("train/cycling/0.jpg,,,,relabel,runing,,", "there is no class 'runing'"),
        ("train/cycling/0.jpg,,,,move,,dev,", "there is no split 'dev'; it is train, val or test"),
    ],
)
def test_a_row_that_cannot_be_carried_out_is_named(root: Path, row: str, said: str) -> None:
    assert refusal(root, f"{HEADER}\n{row}\n") == (
        f"PLAN cannot be applied: line 2: {said}. Fix these lines; nothing was written."
    )


def test_all_bad_rows_are_named_together_up_to_a_number(root: Path) -> None:
    text = refusal(root, f"{HEADER}\ntrain/cycling/0.jpg,,,,keep,,,\ntrain/cycling/0.jpg,,,,drop,,,\nx,,,,move,,,\n")
    assert text == (
        "PLAN cannot be applied: line 2: train/cycling/0.jpg is listed 2 times; "
        "line 3: train/cycling/0.jpg is listed 2 times; line 4: the dataset has no 'x'; "
        "line 4: move needs a new_split. Fix these lines; nothing was written."
    )
    many = refusal(root, HEADER + "\n" + "".join(f"{number},,,,keep,,,\n" for number in range(25)))
    assert "line 21: the dataset has no '19'; and 5 more." in many


def test_files_that_are_no_plan_are_refused(root: Path) -> None:
    assert (
        refusal(root, "path,sha256\na,b\n")
        == "PLAN has no column 'action'. Delete it and run the command again to create a new one."
    )
    assert refusal(root, "") == "PLAN has no column 'path'. Delete it and run the command again to create a new one."
    plan = root.parent / "plan.csv"
    plan.write_bytes(b"path,sha256,action\n\xff\xfe,,keep\n")
    with pytest.raises(DataError, match=r"is not a plan: .*Save it as CSV in UTF-8\."):
        read_plan(plan, read_inventory(root))


def test_a_spreadsheets_semicolons_and_empty_lines_are_read(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("path;sha256;action\r\n\r\ntrain/cycling/0.jpg;;drop\r\n;;\r\n", encoding="utf-8-sig")
    (row,) = read_plan(plan, read_inventory(root))
    assert (row.path, row.action) == ("train/cycling/0.jpg", "drop")


def test_a_plan_that_drops_everything_is_refused(root: Path) -> None:
    inventory = read_inventory(root)
    drop = [
        PlanRow(path=image.name, sha256="", label="", split="", action="drop", reason="") for image in inventory.images
    ]
    with pytest.raises(DataError, match=r"The plan drops every image\. Keep some images\."):
        apply_plan(drop, inventory)


def test_what_the_manifest_still_lacks_or_leaks_is_warned_of(root: Path, tmp_path: Path) -> None:
    inventory = read_inventory(root)
    lines = [HEADER, "test/running/empty.jpg,,,,keep,,,"]
    lines += [f"{image.name},,,,drop,,," for image in inventory.images if image.label == "running"]
    plan = tmp_path / "plan.csv"
    plan.write_text("\n".join(lines))
    cleaned = apply_cleaning(root, plan, tmp_path / "clean.csv")
    assert cleaned.warnings == (
        "1 files that are not images cannot be listed, such as test/running/empty.jpg",
        "1 images still are in several splits",
        "No image remains of running",
    )


def test_nothing_is_overwritten_or_written_into_the_dataset(root: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.csv", tmp_path / "clean.csv"
    with pytest.raises(ConfigError, match=r"Plan .* not found\. Create it first: run the same command without --out\."):
        apply_cleaning(root, plan, out)
    write_plan([], plan)
    with pytest.raises(
        ConfigError, match=r"exists\. Apply it with --out MANIFEST\.csv, or delete it to create a new one\."
    ):
        propose_cleaning(root, plan, settings=NO_MODEL)
    inside = r"is in the dataset directory, which is never modified\. Pass a path outside /.+/data\."
    with pytest.raises(ConfigError, match=inside):
        propose_cleaning(root, root / "plan.csv", settings=NO_MODEL)
    with pytest.raises(ConfigError, match=inside):
        apply_cleaning(root, plan, root / "clean.csv")
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists\. Pass a new file with --out, or delete this one\."):
        apply_cleaning(root, plan, out)
    assert out.read_text() == "mine"


def test_a_plan_fits_a_copy_of_the_dataset_elsewhere(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    propose_cleaning(root, plan, settings=NO_MODEL)
    copy = shutil.copytree(root, tmp_path / "copy")
    assert apply_cleaning(copy, plan, tmp_path / "clean.csv").done == {"keep": 14, "drop": 3}
