"""`make benchmark`: clip-har against named references on this machine, as one table and one file.

    python benchmarks/run.py [--rows whole_job,encoding,...] [--out benchmarks/results]

Each group of rows is measured in a process of its own; each row in pairs in turn, of which the median ratio counts.
Measure on an idle machine. The file is named after the processor; docs/benchmarks.md is written from all of them by
benchmarks/render.py.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from speed.harness import machine

GROUPS = (
    *("whole_job", "encoding", "tower_training", "tower_memory", "frozen_layers", "prompts", "start_up"),
    *("deployment", "gpu"),
)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(GROUPS), help="groups to measure, separated by commas")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return measure_here(given.one, given.folder)
    groups = given.rows.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        print(f"There are no rows {', '.join(unknown)}. Pass some of {','.join(GROUPS)}.", file=sys.stderr)
        return 2
    print(
        f"Measuring on {machine()['cpu']}, {machine()['multiplies']}: 18 minutes on two cores with AMX, 44 with AVX2",
        flush=True,
    )
    rows, failed = measured(groups)
    path = given.out / f"{file_name(machine())}.json"
    write(path, groups, rows)
    print(table(rows))
    print(f"Written to {path}")
    for group in failed:
        print(f"The rows of {group} could not be measured", file=sys.stderr)
    return 1 if failed else 0


def measured(groups: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of each group, and the groups that failed."""
    rows: list[dict[str, Any]] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for group in groups:
            started = time.perf_counter()
            words = [sys.executable, __file__, f"--one={group}", f"--folder={folder}"]
            ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                failed.append(group)
                continue
            own = json.loads(ended.stdout.splitlines()[-1])
            rows += [{"group": group, **item} for item in own]
            print(f"  {group}: {len(own)} rows in {time.perf_counter() - started:.0f} s", flush=True)
    return rows, failed


def measure_here(group: str, folder: Path) -> int:
    found = importlib.import_module(f"speed.{group}").rows(folder)
    print()
    print(json.dumps([item.to_json() for item in found]))
    return 0


def write(path: Path, groups: list[str], rows: list[dict[str, Any]]) -> None:
    """Write the rows; groups that were not measured this time keep theirs."""
    kept: list[dict[str, Any]] = []
    if path.is_file():
        kept = [item for item in json.loads(path.read_text(encoding="utf-8"))["rows"] if item["group"] not in groups]
    ordered = sorted(kept + rows, key=lambda item: GROUPS.index(item["group"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": ordered}, indent=2) + "\n", encoding="utf-8")


def file_name(found: dict[str, Any]) -> str:
    """The processor's or GPU's name and arithmetic, as a file's name."""
    said = f"{found.get('gpu', found['cpu'])} {found['multiplies']}".lower()
    return re.sub(r"[^a-z0-9]+", "-", said).strip("-")


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':58}{'clip-har':>11}{'reference':>11} {'unit':9}{'ratio':>7}  target"]
    for item in rows:
        target = "" if item["target"] is None else f"{item['target']:.2f}"
        lines.append(
            f"{item['name'][:57]:58}{item['ours']:11,.2f}{item['reference']:11,.2f} {item['unit']:9}"
            f"{item['ratio']:7.2f}  {target}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
