"""Write again what the documentation shows of the code: generated tables, and outputs of the commands in its pages.

`make docs-refresh` runs it. An output that still agrees with what is printed, up to times and rounding, is left as is.
Not here: what is generated (docs_reference.py) and how commands are run and compared (docs_commands.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docs_commands import Session, agrees, blocks_of, make_quickstart, with_outputs
from docs_reference import with_generated_regions

ROOT = Path(__file__).resolve().parent.parent


def pages() -> list[Path]:
    """README and all pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    chosen = [Path(page).resolve() for page in options.pages] or pages()
    changed = [page for page in chosen if _write(page, with_generated_regions(page.read_text(encoding="utf-8")))]
    runnable = [page for page in chosen if blocks_of(page.read_text(encoding="utf-8"))]
    failed = 0
    if runnable and not options.generated_only:
        with tempfile.TemporaryDirectory(prefix="clip-har-docs-") as name:
            cache = Path(name) / "cache"
            quickstart = options.quickstart or make_quickstart(Path(name) / "made", cache)
            for number, page in enumerate(runnable):
                folder = Path(name) / str(number)
                folder.mkdir()
                text, problems = refreshed(page, folder, quickstart.resolve(), cache, skip_slow=options.skip_slow)
                failed += len(problems)
                for problem in problems:
                    print(f"{page.relative_to(ROOT)}: {problem}", file=sys.stderr)
                changed += [page] if _write(page, text) else []
    for page in dict.fromkeys(changed):
        print(f"Changed: {page.relative_to(ROOT)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pages", nargs="*", help="pages to write again (default: README.md and all of docs/)")
    parser.add_argument("--generated-only", action="store_true", help="run no commands: only write generated tables")
    parser.add_argument("--skip-slow", action="store_true", help="leave out blocks that are marked as slow")
    parser.add_argument("--quickstart", type=Path, help="folder that clip-har quickstart has made, to save a minute")
    return parser


def refreshed(
    page: Path, folder: Path, quickstart: Path, cache: Path, *, skip_slow: bool = False
) -> tuple[str, list[str]]:
    """A page's text with outputs as they are now, and a line for each block that did not end as it says."""
    text = page.read_text(encoding="utf-8")
    outputs, problems = {}, []
    with Session(folder, quickstart, cache) as session:
        for block in blocks_of(text):
            if block.slow and skip_slow:
                continue
            ran = session.run(block)
            if ran.exit_code != block.exit_code:
                problems.append(f"line {block.line}: exit code {ran.exit_code}, not {block.exit_code}\n{ran.stderr}")
                continue  # what a failed command printed is not what the page should show
            printed = ran.stderr if block.stream == "stderr" else ran.stdout
            if block.shown is not None and not agrees(block.shown, printed):
                outputs[block.line] = printed
    return with_outputs(text, outputs), problems


def _write(page: Path, text: str) -> bool:
    """Write a page if its text has changed."""
    if text == page.read_text(encoding="utf-8"):
        return False
    page.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
