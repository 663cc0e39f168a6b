"""The audit of generated folders: every fault of single images and classes, limits, and the JSON of it all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.datasets import NO_MODEL, audited, fill, found, jpeg, names, put, scene
from clip_har.audit.audit import audit, read_images
from clip_har.audit.inventory import read_inventory
from clip_har.audit.records import Audit
from clip_har.commands.audit import audit_data
from clip_har.config import AuditLimits, AuditSettings, validate
from clip_har.errors import ConfigError, DataError, UserError
from clip_har.progress import SILENT


def test_unreadable_files_are_told_from_truncated_ones(tmp_path: Path) -> None:
    root = fill(tmp_path)
    whole = jpeg(scene(1))
    put(root, "train/running/cut.jpg", whole[: len(whole) // 2])
    put(root, "train/running/page.jpg", b"<!DOCTYPE html><p>Not found")
    put(root, "test/running/empty.jpg", b"")
    (root / "train/running/notes.txt").write_text("no image, and not one by its name")
    result = audited(root)
    assert [(f.kind, names(f), f.severity, f.why, f.action) for f in result.findings] == [
        ("unreadable", ["test/running/empty.jpg"], "error", "empty file", "Repair or drop it."),
        (
            "truncated",
            ["train/running/cut.jpg"],
            "error",
            "ends early (truncated JPEG)",
            "Download it again or drop it.",
        ),
        ("unreadable", ["train/running/page.jpg"], "error", "not an image but an HTML page", "Repair or drop it."),
    ]
    assert len(result.files) == 15
    assert result.counts()["train"] == {"cycling": 3, "running": 5}


def test_odd_images_are_found_by_size_shape_and_colour(tmp_path: Path) -> None:
    root = fill(tmp_path)
    put(root, "train/running/tiny.jpg", scene(1, (63, 90)))
    put(root, "train/running/just.jpg", scene(2, (64, 256)))
    put(root, "train/running/wide.jpg", scene(3, (330, 80)))
    put(root, "train/running/grey.jpg", scene(4).convert("L"))
    put(root, "train/running/flat.jpg", Image.new("RGB", (100, 100), (200, 30, 30)))
    result = audited(root)
    odd = {(finding.kind, *names(finding)): (finding.severity, finding.why) for finding in result.of("odd")}
    assert odd == {
        ("tiny", "train/running/tiny.jpg"): ("warning", "63 x 90 pixels, less than 64 on a side"),
        ("shape", "train/running/wide.jpg"): (
            "warning",
            "330 x 80 pixels: the model sees only its centre, or at low resolution",
        ),
        ("greyscale", "train/running/grey.jpg"): ("note", "without colour"),
        ("one-tone", "train/running/flat.jpg"): ("warning", "a single colour: it shows nothing"),
    }
    wider = audited(root, min_side=63, max_aspect=5.0)
    assert {finding.kind for finding in wider.of("odd")} == {"greyscale", "one-tone"}
    assert result.clean  # odd images are for information unless a limit is given


def test_sizes_of_large_images_are_told_by_their_shape_alone(tmp_path: Path) -> None:
    """A large JPEG is decoded at a fraction of its size, which changes neither its shape nor that it is large."""
    root = fill(tmp_path)
    put(root, "train/running/large.jpg", scene(1, (2000, 1500)))
    put(root, "train/running/panorama.jpg", scene(2, (4000, 500)))
    assert [names(finding) for finding in audited(root).of("odd")] == [["train/running/panorama.jpg"]]


def test_classes_that_a_split_lacks_or_has_few_of(tmp_path: Path) -> None:
    for label, count in {"cycling": 11, "eating": 12, "running": 1}.items():
        for index in range(count):
            put(tmp_path, f"train/{label}/{index}.jpg", 100 * len(label) + index)
    put(tmp_path, "test/cycling/0.jpg", 1)
    result = audited(tmp_path)
    assert [(f.kind, f.severity, f.why) for f in result.of("imbalance")] == [
        ("missing-class", "warning", "test has no image of eating"),
        ("missing-class", "warning", "test has no image of running"),
        ("imbalance", "note", "running has 1 image in train; the median class has 11"),
    ]
    assert result.counts() == {
        "train": {"cycling": 11, "eating": 12, "running": 1},
        "test": {"cycling": 1, "eating": 0, "running": 0},
    }


def test_without_splits_the_dataset_is_counted_as_a_whole(tmp_path: Path) -> None:
    for label in ("cycling", "running"):
        put(tmp_path, f"{label}/0.jpg", len(label))
    assert audited(tmp_path).counts() == {"all": {"cycling": 1, "running": 1}}


def faulty(root: Path) -> Path:
    """Two leaks, a conflict of two images, one duplicate, one cut-off image and one in grey."""
    fill(root)
    put(root, "train/cycling/leak.jpg", (root / "test/cycling/0.jpg").read_bytes())
    put(root, "train/running/leak.jpg", (root / "test/running/0.jpg").read_bytes())
    put(root, "test/running/twice.jpg", (root / "test/cycling/1.jpg").read_bytes())
    put(root, "train/running/cut.jpg", jpeg(scene(9))[:-900])
    put(root, "train/running/grey.jpg", scene(8).convert("L"))
    return root


def above(result: Audit) -> set[str]:
    return {check.name for check in result.checks if check.above}


def test_limits_decide_what_is_clean(tmp_path: Path) -> None:
    root = faulty(tmp_path)
    result = audited(root)
    counted = {
        "unreadable": 1,
        "leaks": 2,
        "conflicts": 2,
        "duplicates": 1,
        "label_errors": 0,
        "odd": 1,
        "imbalance": 0,
    }
    assert {check.name: check.found for check in result.checks} == counted
    assert above(result) == {"unreadable", "leaks", "conflicts", "duplicates"} and not result.clean
    assert above(audited(root, limits=AuditLimits(max_leaks=1, max_conflicts=2, max_unreadable=1))) == {
        "leaks",
        "duplicates",
    }
    borne = AuditLimits(max_leaks=2, max_conflicts=2, max_unreadable=1, max_duplicates=1)
    assert audited(root, limits=borne).clean
    assert above(audited(root, limits=replace(borne, max_odd=0))) == {"odd"}
    assert audited(root, limits=replace(borne, max_leaks=None)).clean


def test_labels_that_were_not_examined_are_within_no_limit(tmp_path: Path) -> None:
    root = fill(tmp_path)
    (check,) = (check for check in audited(root).checks if check.name == "label_errors")
    assert not check.performed and not check.above
    with pytest.raises(ConfigError) as caught:
        audited(root, limits=AuditLimits(max_label_errors=0))
    assert str(caught.value) == (
        "--max-label-errors cannot be combined with --no-embeddings: label errors are detected from embeddings. "
        "Remove one of the two."
    )


def test_findings_come_worst_first(tmp_path: Path) -> None:
    severities = [finding.severity for finding in audited(faulty(tmp_path)).findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    assert set(severities) == {"error", "warning", "note"}


def test_the_json_holds_everything_that_was_found(tmp_path: Path) -> None:
    root = faulty(tmp_path / "data")
    put(root, "train/cycling/ünnamed.jpg", b"")
    out = tmp_path / "out" / "audit.json"
    result = audit_data(root, settings=NO_MODEL, json_file=out)
    text = out.read_text(encoding="utf-8")
    assert "ünnamed" in text
    stored = json.loads(text)
    assert stored == json.loads(json.dumps(result.to_json()))
    assert set(stored) == {"data", "images", "model", "clean", "counts", "checks", "warnings", "findings"}
    assert (stored["data"], stored["images"], stored["model"], stored["clean"]) == (str(root), 18, None, False)
    assert stored["checks"]["leaks"] == {"found": 2, "limit": 0, "above": True}
    assert stored["checks"]["label_errors"] == {"found": None, "limit": None, "above": False}
    assert stored["counts"]["test"] == {"cycling": 3, "running": 4}
    leak = next(finding for finding in stored["findings"] if finding["kind"] == "leak")
    same = {file.name: file.sha256 for file in result.files}
    assert leak == {
        "kind": "leak",
        "severity": "error",
        "why": "The same file in test and train: metrics on test are too optimistic",
        "action": "Drop the duplicate outside test.",
        "count": 1,
        "files": [
            {
                "path": "test/cycling/0.jpg",
                "sha256": same["test/cycling/0.jpg"],
                "class": "cycling",
                "split": "test",
            },
            {
                "path": "train/cycling/leak.jpg",
                "sha256": same["train/cycling/leak.jpg"],
                "class": "cycling",
                "split": "train",
                "note": "same bytes",
            },
        ],
    }
    (empty,) = (f for f in stored["findings"] if f["files"] and f["files"][0]["path"] == "train/cycling/ünnamed.jpg")
    assert empty["files"][0]["sha256"] is None


def test_given_features_find_what_looks_alike_and_doubt_labels(tmp_path: Path) -> None:
    """Features of the caller's: one cluster per class, two images alike, one in the other class's cluster."""
    for label in ("cycling", "running"):
        for index in range(12):
            put(tmp_path, f"{label}/{index:02d}.jpg", 100 * len(label) + 1000 * (label == "running") + index)
    settings = replace(NO_MODEL, similarity=0.95)
    inventory = read_inventory(tmp_path)
    readable, prints, reasons = read_images(inventory, settings, tmp_path / "cache", SILENT)
    random = np.random.default_rng(0)
    features = random.normal(size=(24, 16)).astype(np.float32)
    features[:12, 0] += 6
    features[12:, 0] -= 6
    features[5] = features[2] + 0.01  # alike
    features[7, 0] -= 12  # a runner among the cyclists
    result = audit(
        inventory,
        readable,
        prints,
        reasons,
        settings=settings,
        limits=AuditLimits(),
        features_NH=features,
        model="made up",
    )
    (duplicate,) = found(result, "duplicate")
    assert names(duplicate) == ["cycling/02.jpg", "cycling/05.jpg"]
    assert duplicate.why == "Images with similar features: 2 images"
    (suspect,) = found(result, "label")
    assert names(suspect) == ["cycling/07.jpg"] and suspect.doubt is not None
    assert suspect.action == "Review it: keep, relabel as running, or drop."
    assert suspect.why == (
        f"cycling has probability {suspect.doubt.given_probability:.2f}, "
        f"running {suspect.doubt.suggested_probability:.2f}"
    )
    stored = suspect.to_json()
    assert stored["given"] == {"class": "cycling", "probability": round(suspect.doubt.given_probability, 6)}
    assert stored["suggested"]["class"] == "running"
    assert result.model == "made up"


def test_a_dataset_of_nothing_but_damaged_images_is_audited(tmp_path: Path) -> None:
    for label in ("cycling", "running"):
        put(tmp_path, f"{label}/cut.jpg", jpeg(scene(len(label)))[:-700])
    result = audited(tmp_path)
    assert [finding.kind for finding in result.findings] == ["truncated", "truncated"]


def test_an_audit_leaves_the_dataset_as_it_is(tmp_path: Path) -> None:
    root = faulty(tmp_path / "data")

    def state() -> dict[str, tuple[bytes, int]]:
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}

    before = state()
    audit_data(root, settings=NO_MODEL, json_file=tmp_path / "a.json", html_file=tmp_path / "a.html")
    assert state() == before


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Dataset not found"):
        audited(tmp_path / "none")
    put(tmp_path, "cycling/page.jpg", b"<html>")
    put(tmp_path, "running/page.jpg", b"<html>")
    with pytest.raises(DataError, match="contains no readable image"):
        audited(tmp_path)


def test_settings_out_of_range_are_refused_all_at_once() -> None:
    settings = AuditSettings(distance=17, similarity=0, min_side=129, max_aspect=0.5, workers=-2, encode_batch_size=0)
    with pytest.raises(ConfigError) as caught:
        validate(settings)
    assert str(caught.value) == (
        "--encode-batch-size must be from 1 to 1000000, not 0; --distance must be in [0, 16], not 17; "
        "--similarity must be in (0, 1], not 0; --min-side must be in [1, 128], not 129; "
        "--max-aspect must be at least 1, not 0.5; --workers must be from -1 to 256, not -2. "
        "See --help for the allowed values."
    )


def test_limits_below_zero_are_refused() -> None:
    validate(AuditLimits(max_leaks=0, max_odd=None))
    with pytest.raises(ConfigError) as caught:
        validate(AuditLimits(max_leaks=-1, max_odd=-2))
    assert str(caught.value) == (
        "--max-leaks must be at least 0, or none for any number, not -1; "
        "--max-odd must be at least 0, or none for any number, not -2. See --help for the allowed values."
    )


def test_outputs_in_the_datasets_folder_are_refused(tmp_path: Path) -> None:
    root = fill(tmp_path)
    refused = "is in the dataset directory, which is never modified"
    with pytest.raises(ConfigError, match=refused):
        audit_data(root, settings=NO_MODEL, json_file=root / "train" / "a.json")
    with pytest.raises(ConfigError, match=refused):
        audit_data(root, settings=NO_MODEL, html_file=root / "a.html")


def test_a_missing_cleanlab_is_said_before_any_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_har.audit.label_errors.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"cleanlab, which is not installed\. pip install 'clip-har\[audit\]'"):
        audit_data(fill(tmp_path / "data"), settings=AuditSettings(model="demo", workers=0, cache=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    assert audited(tmp_path / "data").clean
