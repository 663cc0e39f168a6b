"""Copies as findings: leaks, conflicts and duplicates; how sure each is said to be, and which copy comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ImageOps

from audit.datasets import NO_MODEL, audited, file, fill, found, names, put, scene
from clip_har.audit.audit import audit as examine
from clip_har.audit.audit import read_images
from clip_har.audit.copies import LOOKS_ALIKE, SAME_BYTES, SAME_PICTURE, CopyGroups, copy_findings
from clip_har.audit.inventory import read_inventory
from clip_har.audit.plan import proposed_plan
from clip_har.audit.records import Audit, Finding
from clip_har.config import AuditLimits
from clip_har.dataset import SplitName
from clip_har.progress import SILENT


def findings(images: Sequence[tuple[str, SplitName | None]], content: str, hashes: str, likeness: str) -> list[Finding]:
    """Findings among images whose groups are said by letters, one for each image."""
    groups = (np.array([ord(letter) for letter in letters]) for letters in (content, hashes, likeness))
    by_content, by_hash, by_likeness = groups
    files = [file(name, split=split) for name, split in images]
    return list(copy_findings(files, CopyGroups(content_N=by_content, hash_N=by_hash, all_N=by_likeness)))


def test_a_leak_names_the_held_out_image_first_and_counts_the_others() -> None:
    images: list[tuple[str, SplitName | None]] = [
        ("train/run/b.jpg", "train"),
        ("val/run/c.jpg", "val"),
        ("train/run/a.jpg", "train"),
        ("test/run/d.jpg", "test"),
        ("train/run/other.jpg", "train"),
    ]
    leak, duplicate = findings(images, "abacx", "abaax", "aaaax")
    assert (leak.kind, leak.severity, leak.count) == ("leak", "error", 3)
    assert names(leak) == ["test/run/d.jpg", "val/run/c.jpg", "train/run/a.jpg", "train/run/b.jpg"]
    assert leak.notes == ("", LOOKS_ALIKE, SAME_PICTURE, SAME_PICTURE)
    assert leak.why == "Images with similar features in test and val and train: metrics on test are too optimistic"
    assert leak.action == "Drop the 3 duplicates outside test."
    assert (duplicate.kind, duplicate.severity, duplicate.count) == ("duplicate", "warning", 1)
    assert names(duplicate) == ["train/run/a.jpg", "train/run/b.jpg"]
    assert duplicate.notes == ("", SAME_BYTES)
    assert duplicate.why == "The same file: 2 images in train"


def test_how_sure_a_finding_is_follows_its_weakest_link() -> None:
    images: list[tuple[str, SplitName | None]] = [(f"run/{name}.jpg", None) for name in "abc"]
    said = {
        ("aaa", "aaa", "aaa"): ("The same file: 3 images", ("", SAME_BYTES, SAME_BYTES)),
        ("aab", "aaa", "aaa"): ("The same picture: 3 images", ("", SAME_BYTES, SAME_PICTURE)),
        ("abb", "abb", "aaa"): ("Images with similar features: 3 images", ("", LOOKS_ALIKE, LOOKS_ALIKE)),
    }
    for groups, (why, notes) in said.items():
        (finding,) = findings(images, *groups)
        assert (finding.kind, finding.why, finding.notes, finding.count) == ("duplicate", why, notes, 2)
        assert finding.action == "Drop all but one, or keep them in one split: clip-har data split."


def test_copies_under_several_classes_conflict_and_are_duplicates_as_well() -> None:
    images: list[tuple[str, SplitName | None]] = [("run/b.jpg", None), ("sit/a.jpg", None), ("eat/c.jpg", None)]
    conflict, duplicate = findings(images, "aax", "aax", "aax")
    assert (conflict.kind, conflict.severity, conflict.count) == ("conflict", "error", 2)
    assert conflict.why == "The same file, in 2 classes: run, sit"
    assert conflict.action == "Decide which class is right, and relabel or drop the others."
    assert names(conflict) == names(duplicate) == ["run/b.jpg", "sit/a.jpg"]


def test_one_copy_is_named_in_the_singular() -> None:
    (leak,) = findings([("train/run/a.jpg", "train"), ("test/run/b.jpg", "test")], "aa", "aa", "aa")
    assert leak.why == "The same file in test and train: metrics on test are too optimistic"
    assert (leak.action, leak.count) == ("Drop the duplicate outside test.", 1)


def test_images_without_copies_are_no_findings() -> None:
    assert findings([("run/a.jpg", None), ("run/b.jpg", None)], "ab", "ab", "ab") == []


def test_altered_copies_in_folders_are_found_and_clean_folders_are_clean(tmp_path: Path) -> None:
    clean = audited(fill(tmp_path / "clean"))
    assert clean.findings == () and clean.clean and len(clean.files) == 12
    root = fill(tmp_path / "data")
    put(root, "test/running/smaller.jpg", scene(1000).resize((105, 70)))  # of train/cycling/0
    put(root, "train/running/mirrored.jpg", ImageOps.mirror(scene(2001)))  # of train/running/1
    put(root, "train/cycling/same bytes.jpg", (root / "train/cycling/2.jpg").read_bytes())
    audit = audited(root)
    (leak,) = found(audit, "leak")
    (conflict,) = found(audit, "conflict")
    assert names(leak) == names(conflict) == ["test/running/smaller.jpg", "train/cycling/0.jpg"]
    assert leak.notes == ("", SAME_PICTURE)
    duplicates = {tuple(names(finding)): finding.notes[1] for finding in found(audit, "duplicate")}
    assert duplicates == {
        ("train/running/1.jpg", "train/running/mirrored.jpg"): SAME_PICTURE,
        ("train/cycling/2.jpg", "train/cycling/same bytes.jpg"): SAME_BYTES,
    }
    assert {check.name: check.found for check in audit.checks if check.found} == {
        "leaks": 1,
        "conflicts": 2,
        "duplicates": 2,
    }


def test_leaks_that_only_look_alike_are_left_to_a_person(tmp_path: Path) -> None:
    images: list[tuple[str, SplitName | None]] = [("test/run/a.jpg", "test"), ("train/run/b.jpg", "train")]
    images.append(("val/run/c.jpg", "val"))
    found_now = findings(images, "abc", "aab", "aaa")
    audit = Audit(
        root=tmp_path,
        files=tuple(file(name, split=split) for name, split in images),
        findings=tuple(found_now),
        checks=(),
        warnings=(),
        model="demo",
    )
    actions = {row.path: (row.action, row.reason.partition(";")[0]) for row in proposed_plan(audit)}
    assert actions["train/run/b.jpg"] == ("drop", "same picture as test/run/a.jpg in test")
    assert actions["val/run/c.jpg"] == ("keep", "looks like test/run/a.jpg in test")


def test_a_model_to_which_most_images_look_alike_is_doubted(tmp_path: Path) -> None:
    root = fill(tmp_path)
    inventory = read_inventory(root)
    readable, prints, reasons = read_images(inventory, NO_MODEL, tmp_path / "cache", SILENT)
    pairs = np.repeat(np.eye(len(readable) // 2, dtype=np.float32), 2, axis=0)  # every two alike
    for features_NH, doubted in ((pairs, True), (np.eye(len(readable), dtype=np.float32), False)):
        made = examine(
            inventory,
            readable,
            prints,
            reasons,
            settings=NO_MODEL,
            limits=AuditLimits(),
            features_NH=features_NH,
            model="m",
        )
        said = [warning for warning in made.warnings if "have similar features in m but different hashes" in warning]
        assert bool(said) is doubted
