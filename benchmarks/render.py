"""Write the tables of docs/benchmarks.md from benchmarks/results/*.json, between the two marks in the page.

    python benchmarks/render.py [--check]

With --check, nothing is written, and the exit code is 1 if the page is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    now = PAGE.read_text(encoding="utf-8")
    wanted = rendered(now, [json.loads(path.read_text(encoding="utf-8")) for path in result_files()])
    if given.check:
        return int(wanted != now)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


def result_files() -> list[Path]:
    """The files that `make benchmark` has written."""
    return [path for path in sorted(RESULTS.glob("*.json")) if not path.name.startswith("ablations-")]


def rendered(page: str, results: list[dict[str, Any]]) -> str:
    """The page with the results in place."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{PAGE} has no {BEGIN} with {END} behind it")
    return before + BEGIN + "\n\n" + "\n\n".join(map(section, results)) + "\n\n" + END + after


def section(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number != "none")
    lines = [
        f"### {machine.get('gpu', machine['cpu'])}, {machine['cores']} cores, {machine['multiplies']}",
        "",
        f"{machine['date']}, {machine['system']}, Python {machine['python']}, {versions}.",
        "",
        "| | clip-har | reference | ratio | target | compared with |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    notes: list[str] = []
    for item in result["rows"]:
        mark = ""
        if item["note"]:
            if item["note"] not in notes:
                notes.append(item["note"])
            mark = f" [{notes.index(item['note']) + 1}]"
        target = "" if item["target"] is None else f"{item['target']:.2f}"
        lines.append(
            f"| {item['name']}{mark} | {figure(item['ours'])} {item['unit']} | {figure(item['reference'])} "
            f"{item['unit']} | {item['ratio']:.2f} | {target} | {item['reference_name']} |"
        )
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines)


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
