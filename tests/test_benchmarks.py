"""The benchmark scripts: they can all be started, and the table says what was measured."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_script_says_how_it_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


def test_every_group_of_rows_exists() -> None:
    for group in importlib.import_module("run").GROUPS:
        assert callable(importlib.import_module(f"speed.{group}").rows)


def test_the_ratio_says_how_many_times_better() -> None:
    harness = importlib.import_module("speed.harness")
    faster = harness.row("a", "s", [1.0, 2.0, 4.0], [3.0, 4.0, 20.0], "b")
    assert (faster.ratio, faster.ratios, faster.ours, faster.reference) == (3.0, (3.0, 2.0, 5.0), 2.0, 4.0)
    more = harness.row("a", "images/s", [1.0], [4.0], "b", more_is_better=True)
    assert more.ratio == 0.25


def test_pairs_take_turns_after_one_call_each() -> None:
    harness = importlib.import_module("speed.harness")
    calls: list[str] = []

    def called(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    first, second = harness.in_pairs(lambda: called("a"), lambda: called("b"), 2)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    assert (first, second) == ([3.0, 6.0], [4.0, 5.0])


def test_an_unknown_row_is_one_line() -> None:
    words = [sys.executable, str(FOLDER / "run.py"), "--rows", "encodings"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("There are no rows encodings. Pass some of whole_job,")
    assert "Traceback" not in ended.stderr


def test_rows_that_are_not_measured_again_are_kept(tmp_path: Path) -> None:
    run = importlib.import_module("run")
    path = tmp_path / "machine.json"
    run.write(path, ["encoding", "prompts"], [{"group": "encoding", "ours": 1}, {"group": "prompts", "ours": 2}])
    run.write(path, ["encoding"], [{"group": "encoding", "ours": 3}])
    kept = json.loads(path.read_text())["rows"]
    assert [(item["group"], item["ours"]) for item in kept] == [("encoding", 3), ("prompts", 2)]


def test_the_page_shows_the_results() -> None:
    render = importlib.import_module("render")
    page = render.PAGE.read_text(encoding="utf-8")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in render.result_files()]
    assert render.rendered(page, results) == page
