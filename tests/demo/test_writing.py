"""The demonstration set on disk: the same bytes each time, the promised folders, and resuming."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from clip_har.demo import ACTIONS, write_dataset
from clip_har.demo.scenes import SIZE, draw_action
from clip_har.demo.writing import MARKER
from clip_har.errors import DataError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout_is_the_promised_one(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "set", train_per_class=2, test_per_class=1)
    expected = {f"train/{action}/{action}_{number:04d}.jpg" for action in ACTIONS for number in (0, 1)}
    expected |= {f"test/{action}/{action}_0000.jpg" for action in ACTIONS}
    assert set(contents(out)) == expected | {MARKER}
    with Image.open(out / "train/calling/calling_0000.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    first, again, other = (
        contents(write_dataset(tmp_path / name, seed=seed, train_per_class=1, test_per_class=1))
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first == again
    pictures = [name for name in first if name.endswith(".jpg")]
    assert all(first[name] != other[name] for name in pictures)


def test_no_picture_appears_twice(tmp_path: Path) -> None:
    files = contents(write_dataset(tmp_path / "set", train_per_class=2, test_per_class=2))
    pictures = [data for name, data in files.items() if name.endswith(".jpg")]
    assert len(pictures) == 4 * len(ACTIONS)
    assert len(set(pictures)) == len(pictures)


def test_a_complete_set_is_left_alone(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "set", train_per_class=1, test_per_class=1)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    calls: list[int] = []
    write_dataset(out, train_per_class=1, test_per_class=1, on_image=lambda done, total: calls.append(done))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    assert calls == []


def test_a_killed_run_is_completed(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 7:
            raise Killed

    out = tmp_path / "set"
    with pytest.raises(Killed):
        write_dataset(out, seed=1, train_per_class=1, test_per_class=1, on_image=kill)
    assert len(list(out.rglob("*.jpg"))) == 7
    progress: list[tuple[int, int]] = []
    write_dataset(
        out,
        seed=1,
        train_per_class=1,
        test_per_class=1,
        on_image=lambda done, total: progress.append((done, total)),
    )
    assert progress[-1] == (30, 30)
    whole = write_dataset(tmp_path / "whole", seed=1, train_per_class=1, test_per_class=1)
    assert contents(out) == contents(whole)


def test_other_arguments_or_strange_files_are_refused(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "set", train_per_class=1, test_per_class=0)
    with pytest.raises(DataError, match="other settings"):
        write_dataset(out, seed=9, train_per_class=1, test_per_class=0)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(strange)
    assert [path.name for path in strange.iterdir()] == ["thesis.txt"]


def test_the_marker_says_what_was_made(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "set", seed=5, train_per_class=1, test_per_class=0)
    marker = json.loads((out / MARKER).read_text())
    assert (marker["seed"], marker["train_per_class"], marker["test_per_class"]) == (5, 1, 0)
    assert marker["complete"] is True


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_drawn_in_every_variant(action: str) -> None:
    pictures = [draw_action(action, Random(f"variants/{seed}")) for seed in range(25)]
    assert all(picture.size == (SIZE, SIZE) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert all(len(picture.getcolors(maxcolors=SIZE * SIZE) or []) > 50 for picture in pictures)


def test_a_picture_depends_on_nothing_but_its_generator() -> None:
    Random(0).random()
    first = draw_action("dancing", Random(11))
    draw_action("sleeping", Random(12))
    assert draw_action("dancing", Random(11)).tobytes() == first.tobytes()
