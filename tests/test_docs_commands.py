"""Commands that pages show are run, and print what the pages show.

What counts as the same output is in scripts/docs_commands.py. Commands that a page does not mark are checked for the
names of commands and flags in test_readme.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import docs_commands
import refresh_docs
from clip_har import cli
from docs_commands import Block, Ran, Session, agrees, blocks_of, with_outputs

ROOT = Path(__file__).resolve().parent.parent
RUNNABLE = [page for page in refresh_docs.pages() if "<!-- run" in page.read_text(encoding="utf-8")]

PAGE = """# Page

<!-- run -->
```sh
clip-har --version
```

<!-- output -->
```text
0.0.0
```

* In a list:

  <!-- run exit 2 -->
  ```sh
  clip-har predict no-such-run x.jpg
  ```

  <!-- output stderr -->
  ```text
  clip-har: something else
  ```

<!-- run slow -->
```python
print(1 + 1)
```

```sh
clip-har never-run
```
"""


# Reading pages


def test_blocks_and_their_outputs_are_found() -> None:
    first, second, third = blocks_of(PAGE)
    assert (first.line, first.language, first.code) == (3, "sh", "clip-har --version\n")
    assert (first.exit_code, first.slow, first.shown, first.stream) == (0, False, "0.0.0\n", "stdout")
    assert (second.exit_code, second.code) == (2, "clip-har predict no-such-run x.jpg\n")
    assert (second.shown, second.stream) == ("clip-har: something else\n", "stderr")
    assert (third.slow, third.shown, third.code) == (True, None, "print(1 + 1)\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<!-- run -->\ntext", "line 1: no block of sh or python follows"),
        ("<!-- run -->\n```text\n```", "line 1: no block of sh or python follows"),
        ("<!-- output -->\n```text\n```", "line 1: no block that is run precedes this output"),
        ("<!-- run -->\n```sh\n```\n<!-- output -->\n```sh\n```", "line 4: no block of text follows"),
        ("<!-- run -->\n```sh\nclip-har", "line 2: the block has no end"),
    ],
)
def test_a_marker_without_its_block_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        blocks_of(text)


def test_outputs_are_written_in_place() -> None:
    text = with_outputs(PAGE, {3: "1.2.3\n", 15: "clip-har: x\n\ny\n"})
    assert [block.shown for block in blocks_of(text)][:2] == ["1.2.3\n", "clip-har: x\n\ny\n"]
    assert "\n  clip-har: x\n\n  y\n  ```\n" in text
    assert with_outputs(text, {3: "0.0.0\n", 15: "clip-har: something else\n"}) == PAGE


# Comparing


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("done in 3.1 s", "done in 12 s"),
        ("Encoded 600 images in 36.0 s (67 images/s)", "Encoded 600 images in 5 s (480.2 images/s)"),
        ("took 2 m 3 s, 764 MiB", "took 1.5 min, 1.0 GiB"),
        ("accuracy 73.17 %", "accuracy 73.00 %"),
        ("p   0.021", "p 0.024"),
        ("wrote /tmp/a/b.csv", "wrote /home/u/b.csv"),
        ("a\n...\nd", "a\nb\nc\nd"),
        ("────\nx", "───────\nx"),
    ],
)
def test_outputs_agree_up_to_what_differs_between_machines(shown: str, printed: str) -> None:
    assert agrees(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("600 test images", "601 test images"),
        ("accuracy 73.17 %", "accuracy 63.17 %"),
        ("calling 0.87", "texting 0.87"),
        ("calling 0.87", "calling 0.27"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("a\n...\nd", "a\nb\nc"),
        ("", "something"),
        ("Run   runs/gda", "Run   runs/lora"),
    ],
)
def test_other_outputs_do_not_agree(shown: str, printed: str) -> None:
    assert not agrees(shown, printed)


# Running


@pytest.fixture
def small_quickstart(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.jpg").write_bytes(b"image")
    (folder / "report.html").write_text("report")
    return folder


@pytest.fixture
def session(tmp_path: Path, small_quickstart: Path) -> Session:
    (tmp_path / "page").mkdir()
    return Session(tmp_path / "page", small_quickstart, tmp_path / "cache")


def test_blocks_run_in_a_folder_with_the_quickstart(session: Session, small_quickstart: Path) -> None:
    before = Path.cwd()
    with session:
        read = session.run(Block(1, "python", "print(open('quickstart/report.html').read())\nx = 3\n"))
        again = session.run(Block(1, "python", "open('quickstart/report.html', 'w').write('other')\nprint(x)\n"))
        broken = session.run(Block(1, "python", "print(1 / 0)\n"))
        shell = session.run(Block(1, "sh", 'echo "$PWD/made" | cat; test -x "$(command -v clip-har)"\n'))
    assert read == Ran(0, "report\n", "")
    assert (again.stdout, broken.exit_code) == ("3\n", 1)
    assert "ZeroDivisionError" in broken.stderr
    assert shell == Ran(0, "made\n", "")
    assert (small_quickstart / "report.html").read_text() == "report"
    assert Path.cwd() == before


def test_commands_of_clip_har_run_in_this_process(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def main(argv: list[str]) -> int:
        called.append(argv)
        print("out", os.environ["COLUMNS"])
        print("err", file=sys.stderr)
        return len(called) - 1

    monkeypatch.setattr(cli, "main", main)
    with session:
        ran = session.run(
            Block(1, "sh", "clip-har train \\\n  --out 'a b'  # comment\nclip-har models\nclip-har never\n")
        )
    assert called == [["train", "--out", "a b"], ["models"]]
    assert ran == Ran(1, "out 100\nout 100\n", "err\nerr\n")


def test_a_page_is_refreshed(tmp_path: Path, small_quickstart: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "run").mkdir()
    text, problems = refresh_docs.refreshed(page, tmp_path / "run", small_quickstart, tmp_path / "cache")
    version, error, _ = blocks_of(text)
    assert problems == []
    assert version.shown is not None and agrees(version.shown, "0.1.0\n")
    assert error.shown is not None and error.shown.startswith("clip-har: ") and "no-such-run" in error.shown
    page.write_text(PAGE.replace("exit 2", "exit 3"))
    (tmp_path / "again").mkdir()
    text, problems = refresh_docs.refreshed(page, tmp_path / "again", small_quickstart, tmp_path / "cache")
    assert blocks_of(text)[1].shown == "clip-har: something else\n", "a command that failed shows nothing new"
    assert len(problems) == 1 and problems[0].startswith("line 15: exit code 2, not 3\nclip-har: ")


# The pages


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What `clip-har quickstart` makes, and its cache."""
    folder = tmp_path_factory.mktemp("quickstart")
    return docs_commands.make_quickstart(folder, folder / "cache"), folder / "cache"


@pytest.mark.slow  # runs a quickstart, and every command that a page shows
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_print_what_it_shows(page: Path, made: tuple[Path, Path], tmp_path: Path) -> None:
    """If this fails because the output has changed for good: make docs-refresh."""
    quickstart, cache = made
    with Session(tmp_path, quickstart, cache) as session:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            ran = session.run(block)
            assert ran.exit_code == block.exit_code, f"line {block.line}: {ran.stderr}"
            if block.shown is not None:
                printed = ran.stderr if block.stream == "stderr" else ran.stdout
                assert agrees(block.shown, printed), f"line {block.line} shows\n{block.shown}\nand prints\n{printed}"
