"""`data split` and `data verify` on drawn images, and manifests in train, evaluate and compare."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.datasets import put, scene
from clip_har import checkpoint, commands
from clip_har.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    OptimizerConfig,
    SplitConfig,
    TrainConfig,
)
from clip_har.dataset import load_dataset, read_manifest
from clip_har.dataset.manifests import ManifestRow
from clip_har.dataset.sources import remember
from clip_har.errors import ConfigError, DataError, RunError
from clip_har.progress import Silent
from image_folders import fill_classes
from samples import write_dataset

NO_GROUPS = SplitConfig(group_by=("none",))


class Heard(Silent):
    """Remembers what was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def split(data: Path, out: Path, config: SplitConfig | None = None) -> list[dict[str, ManifestRow]]:
    """Each manifest's rows by name."""
    made = commands.split(data, replace(config or SplitConfig(), out=out, workers=0))
    return [{row.name: row for row in read_manifest(path)} for path in made.files]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 images: eight scenes each, as taken, smaller, and saved anew."""
    root = tmp_path_factory.mktemp("pictures")
    for start, label in ((0, "running"), (100, "sitting")):
        for number in range(8):
            image = scene(start + number)
            put(root, f"{label}/{number} taken.jpg", image)
            put(root, f"{label}/small {number}.jpg", image.resize((90, 60)))
            put(root, f"{label}/{number} web.png", image.convert("L"))
    return root


def scene_of(name: str) -> str:
    return name.split("/")[0] + "".join(filter(str.isdigit, name))


# Splitting


def test_near_duplicates_never_cross_splits(pictures: Path, tmp_path: Path) -> None:
    for seed in range(4):
        config = SplitConfig(seed=seed, test_fraction=0.25, val_fraction=0.2)
        (rows,) = split(pictures, tmp_path / f"{seed}.csv", config)
        assert len(rows) == 48
        assert len({(scene_of(name), row.split) for name, row in rows.items()}) == 16
        assert Counter((row.label, row.split) for row in rows.values()) == {
            (label, name): count
            for label in ("running", "sitting")
            for name, count in (("test", 6), ("val", 3), ("train", 15))
        }


def test_without_groups_near_duplicates_are_torn_apart(pictures: Path, tmp_path: Path) -> None:
    (rows,) = split(pictures, tmp_path / "m.csv", NO_GROUPS)
    assert len({(scene_of(name), row.split) for name, row in rows.items()}) > 16


def test_folds_test_every_image_once_and_keep_groups_whole(pictures: Path, tmp_path: Path) -> None:
    folds = split(pictures, tmp_path / "m.csv", SplitConfig(folds=4))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"m-fold-{n}.csv" for n in (1, 2, 3, 4)]
    tested = Counter(name for rows in folds for name, row in rows.items() if row.split == "test")
    assert tested == dict.fromkeys(folds[0], 1)
    for rows in folds:
        assert len({(scene_of(name), row.split) for name, row in rows.items()}) == 16
        assert Counter(row.label for row in rows.values() if row.split == "test") == {"running": 6, "sitting": 6}


def test_the_split_is_the_same_on_a_renamed_copy(pictures: Path, tmp_path: Path) -> None:
    (rows,) = split(pictures, tmp_path / "m.csv")
    copy = tmp_path / "copy"
    for number, name in enumerate(sorted(rows, reverse=True)):
        put(copy, f"{rows[name].label}/{number}", (pictures / name).read_bytes())
    (renamed,) = split(copy, tmp_path / "copy.csv")
    wanted = {row.sha256: row.split for row in rows.values()}
    assert {row.sha256: row.split for row in renamed.values()} == wanted
    (other,) = split(pictures, tmp_path / "other.csv", SplitConfig(seed=1))
    assert {row.sha256: row.split for row in other.values()} != wanted


def test_groups_of_a_table_stay_together_with_near_duplicates(pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    lines = [f"{label}/{number} taken.jpg,{number % 4}" for label in ("running", "sitting") for number in range(8)]
    table.write_text("\n".join(["path,group", *lines]))
    config = SplitConfig(group_by=("near-duplicates", str(table)), test_fraction=0.25, val_fraction=0.3)
    made = commands.split(pictures, replace(config, out=tmp_path / "m.csv", workers=0))
    assert (made.groups, made.grouped) == (4, 48)
    (dataset,) = made.datasets
    assert len({(int(scene_of(r.name)[-1]) % 4, r.split) for r in dataset.records}) == 4
    assert dataset.counts() == {"train": 24, "val": 12, "test": 12}


def test_without_groups_the_split_is_the_one_that_train_makes(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 30, "b": 12})
    (rows,) = split(root, tmp_path / "m.csv", replace(NO_GROUPS, seed=5))
    assert {r.name: r.split for r in load_dataset(root, split_seed=5).records} == {
        name: row.split for name, row in rows.items()
    }


def test_the_folders_own_test_is_kept_unless_pooled(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(pictures, root / "train")
    for label in ("running", "sitting"):
        (root / "test" / label).mkdir(parents=True)
        for name in ("0 taken.jpg", "small 1.jpg"):
            (root / "train" / label / name).rename(root / "test" / label / name)
    heard = Heard()
    made = commands.split(root, SplitConfig(out=tmp_path / "own.csv", val_fraction=0.2, workers=0), progress=heard)
    (dataset,) = made.datasets
    assert {r.name for r in dataset.split("test")} == {
        f"test/{label}/{name}" for label in ("running", "sitting") for name in ("0 taken.jpg", "small 1.jpg")
    }
    assert len(dataset.records) == 40  # the eight other pictures of those four scenes are left out
    assert any("8 images of train or val are in a group with held-out images" in said for said in heard.warnings)
    pooled = split(root, tmp_path / "pooled.csv", SplitConfig(pool=True))[0]
    assert len(pooled) == 48 and not any("left out" in path.name for path in tmp_path.iterdir())
    assert len({(scene_of(name.split("/", 1)[1]), row.split) for name, row in pooled.items()}) == 16


def test_groups_too_large_for_an_even_split_are_said(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 20, "b": 20})
    table = tmp_path / "g.csv"
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    table.write_text("path,group\n" + "".join(f"{name},{name[0]}{n // 8}\n" for n, name in enumerate(names)))
    heard = Heard()
    config = SplitConfig(group_by=(str(table),), test_fraction=0.1)
    commands.split(root, replace(config, out=tmp_path / "m.csv"), progress=heard)
    assert any(said.startswith("Groups are too large for an even test split: ") for said in heard.warnings)


def test_the_splits_of_the_data_do_not_count_against_the_fraction_asked_for(tmp_path: Path) -> None:
    """Of 44 images a class, 22 are the data's own test: 15 % of the other 22 are no uneven validation split."""
    root = tmp_path / "data"
    fill_classes(root / "train", {"a": 22, "b": 22})
    fill_classes(root / "test", {"a": 22, "b": 22}, start=100)
    heard = Heard()
    made = commands.split(root, replace(NO_GROUPS, out=tmp_path / "m.csv"), progress=heard)
    assert made.datasets[0].counts() == {"train": 38, "val": 6, "test": 44}
    assert not [said for said in heard.warnings if "even" in said]


def test_few_images_are_not_called_large_groups(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 40, "b": 4})
    heard = Heard()
    made = commands.split(root, replace(NO_GROUPS, out=tmp_path / "m.csv"), progress=heard)
    assert made.groups == 0
    assert [said for said in heard.warnings if "even" in said] == [
        "Classes have too few images for an even test split: 1 of 2 classes differ by more than 5 percentage points "
        "from the requested 15.0%. The largest deviation is b with 25.0% (1 of 4 images)",
        "Classes have too few images for an even val split: 1 of 2 classes differ by more than 5 percentage points "
        "from the requested 15.0%. The largest deviation is b with 33.3% (1 of 3 images)",
    ]


def test_another_split_is_not_overwritten_and_the_same_one_is_no_fault(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 30, "b": 30})
    out = tmp_path / "m.csv"
    assert split(root, out, NO_GROUPS) == split(root, out, NO_GROUPS)
    before = out.read_bytes()
    with pytest.raises(RunError) as caught:
        split(root, out, replace(NO_GROUPS, seed=1))
    assert (
        str(caught.value)
        == f"{out} already exists and contains a different split. Choose another --out, or remove that file."
    )
    assert out.read_bytes() == before
    (tmp_path / "f-fold-2.csv").write_text("mine")
    with pytest.raises(RunError, match=r"f-fold-2\.csv already exists"):
        split(root, tmp_path / "f.csv", replace(NO_GROUPS, folds=2))
    assert not (tmp_path / "f-fold-1.csv").exists()


def test_settings_that_cannot_work_are_refused_all_at_once(tmp_path: Path) -> None:
    config = SplitConfig(
        folds=1, val_fraction=0, test_fraction=0.6, seed=-1, near_distance=65, group_by=("none", "no.csv")
    )
    with pytest.raises(ConfigError) as caught:
        split(tmp_path, tmp_path / "m.csv", config)
    assert str(caught.value) == (
        "--folds must be at least 2, not 1; --val-fraction must be in (0, 0.5], not 0; "
        "--test-fraction must be in (0, 0.5], not 0.6; --seed must be from 0 to 4294967295, not -1; "
        "--near-distance must be from 0 to 64 bits, not 65; --near-distance requires --group-by near-duplicates; "
        "--group-by none cannot be combined with other groups; "
        "--group-by no.csv is neither near-duplicates nor none nor a file. "
        "See clip-har data split --help."
    )
    with pytest.raises(ConfigError, match="--group-by is empty"):
        split(tmp_path, tmp_path / "m.csv", SplitConfig(group_by=()))


def test_nothing_is_written_into_the_dataset(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 9, "b": 9})
    with pytest.raises(ConfigError, match=r"--out .* is in the dataset directory, which is never modified"):
        split(root, root / "m.csv", NO_GROUPS)
    split(root, tmp_path / "m.csv", NO_GROUPS)
    with pytest.raises(ConfigError, match="is in the dataset directory"):
        commands.verify_manifest(root, tmp_path / "m.csv", out=root / "a" / "differs.csv")
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".jpg"}


def test_nothing_is_written_into_a_dataset_that_is_named_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIP_HAR_CACHE", str(tmp_path / "cache"))
    root = fill_classes(tmp_path / "data", {"a": 9, "b": 9})
    before = set(root.rglob("*"))
    remember("har", root)
    outside = re.escape(f"which is never modified. Pass a path outside {root}.")
    with pytest.raises(ConfigError, match=outside):
        split(Path("har"), root / "m.csv", NO_GROUPS)
    assert set(root.rglob("*")) == before
    split(root, tmp_path / "m.csv", NO_GROUPS)
    table = root / "labels.csv"
    lines = [f"{path.parent.name}/{path.name},{path.parent.name}\n" for path in root.rglob("*.jpg")]
    table.write_text("path,class\n" + "".join(lines))
    for inside in (root / "new.csv", root / "a" / "new.csv"):
        with pytest.raises(ConfigError, match=outside):
            split(table, inside, NO_GROUPS)
    split(table, tmp_path / "of table.csv", NO_GROUPS)
    assert set(root.rglob("*")) == {*before, table}


def test_verify_writes_all_that_differs(tmp_path: Path) -> None:
    root = fill_classes(tmp_path / "data", {"a": 9, "b": 9})
    split(root, tmp_path / "m.csv", NO_GROUPS)
    (root / "a" / "00000.jpg").unlink()
    out = tmp_path / "differs.csv"
    found = commands.verify_manifest(root, tmp_path / "m.csv", out=out)
    assert not found.complete
    with out.open(newline="") as stream:
        header, row = list(csv.reader(stream))
    assert header == ["finding", "path", "here", "sha256", "split"]
    assert row[:3] == ["missing", "a/00000.jpg", ""]


# Training and evaluating by a manifest


@pytest.fixture(scope="module")
def photos_and_manifest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images with a test folder of their own, and a manifest that splits them quite differently."""
    folder = tmp_path_factory.mktemp("by-manifest")
    root = write_dataset(folder / "data")
    commands.split(root, replace(NO_GROUPS, out=folder / "m.csv", pool=True, test_fraction=0.3, seed=3, workers=0))
    return root, folder / "m.csv"


def train_config(root: Path, model: str, out: Path, manifest: Path | None) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data=root, manifest=manifest),
        backbone=BackboneConfig(model=model, workers=0, precision="float32"),
        optimizer=OptimizerConfig(epochs=1, batch_size=8),
        out=out,
    )


def rows_of(path: Path) -> set[tuple[str, str, str]]:
    return {(row.sha256, row.label, row.split) for row in read_manifest(path)}


def evaluate(run: checkpoint.Run, root: Path, out: Path, **data: Any) -> tuple[Any, list[str]]:
    heard = Heard()
    config = EvaluateConfig(
        data=DataConfig(data=root, **data),
        backbone=BackboneConfig(workers=0, precision="float32"),
        checkpoint=run.folder,
        out=out,
    )
    result = commands.evaluate(config, command="clip-har evaluate", progress=heard)
    return result, heard.warnings


def test_train_and_evaluate_follow_a_manifest(
    photos_and_manifest: tuple[Path, Path], tiny_model: str, tmp_path: Path
) -> None:
    root, manifest = photos_and_manifest
    run = commands.train(train_config(root, tiny_model, tmp_path / "run", manifest), command="clip-har train")
    wanted = rows_of(manifest)
    assert rows_of(run.folder / "manifest.csv") == wanted
    counts = Counter(split for _, _, split in wanted)
    assert run.card.splits == dict(counts)
    # The run's own copy of the manifest holds where the file is gone, and the folders say otherwise.
    predicted = evaluated_paths(evaluate(run, root, tmp_path / "eval"), tmp_path / "eval")
    held_out = {row.name for row in read_manifest(manifest) if row.split == "test"}
    assert predicted == held_out
    # Other data than the run's: its manifest is not binding, so the folders' own test is scored.
    other = write_dataset(tmp_path / "other", train=13, test=4)
    for path in other.rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")  # other content, the same picture
    assert evaluated_paths(evaluate(run, other, tmp_path / "eval2"), tmp_path / "eval2") == {
        path.relative_to(other).as_posix() for path in (other / "test").rglob("*.jpg")
    }
    # Named with --manifest it is.
    with pytest.raises(DataError, match=r"of the \d+ images of .*m\.csv are not in the data \(0\.0% are"):
        evaluate(run, other, tmp_path / "eval3", manifest=manifest)


def evaluated_paths(_: Any, out: Path) -> set[str]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return {row["path"] for row in csv.DictReader(stream)}


def test_evaluate_needs_no_training_images_of_the_manifest(
    photos_and_manifest: tuple[Path, Path], tiny_model: str, tmp_path: Path
) -> None:
    root, manifest = photos_and_manifest
    held_out = [row for row in read_manifest(manifest) if row.split != "train"]
    part = tmp_path / "part"
    for number, row in enumerate(held_out):
        put(part, f"{row.label}/{number}.jpg", (root / row.name).read_bytes())
    put(part, "running/unknown.jpg", 77)
    heard = Heard()
    config = EvaluateConfig(
        data=DataConfig(data=part, manifest=manifest),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        out=tmp_path / "eval",
    )
    commands.evaluate(config, command="clip-har evaluate", progress=heard)
    assert f"1 images are not in {manifest} and were skipped: running/unknown.jpg" in heard.warnings
    assert len(evaluated_paths(None, tmp_path / "eval")) == sum(row.split == "test" for row in held_out)
    with pytest.raises(DataError, match=r"are not in the data .*: train \d+, such as"):
        commands.train(train_config(part, tiny_model, tmp_path / "run", manifest), command="clip-har train")


def test_compare_follows_a_manifest(photos_and_manifest: tuple[Path, Path], tiny_model: str, tmp_path: Path) -> None:
    root, manifest = photos_and_manifest
    config = CompareConfig(
        data=DataConfig(data=root, manifest=manifest),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        methods=("zero-shot", "linear-probe"),
        out=tmp_path / "out",
    )
    commands.compare(config, command="clip-har compare")
    assert rows_of(tmp_path / "out" / "manifest.csv") == rows_of(manifest)
    assert rows_of(tmp_path / "out" / "runs" / "linear-probe" / "manifest.csv") == rows_of(manifest)
