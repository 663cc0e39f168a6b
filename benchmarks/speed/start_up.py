"""What commands take besides loading weights and computing: start-up, with the features cached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from speed.harness import Row, in_pairs, row, seconds_of
from speed.material import CLASSES, write_photos

IMPORTS = "import torch, open_clip, sklearn, matplotlib"


def rows(folder: Path, *, pairs: int = 3) -> list[Row]:
    """Seconds of commands of the bundled model, whose weights load in no time."""
    photos = folder / "few"
    write_photos(photos, 10 * CLASSES, splits=True)
    cache = ["--cache", str(folder / "cache")]
    compare = ["compare", "--data", str(photos), "--model", "demo", "--methods", "ridge", *cache]
    command([*compare, "--out", str(folder / "compared")])
    run = str(folder / "compared" / "runs" / "ridge")
    evaluate = ["evaluate", "--data", str(photos), "--checkpoint", run, *cache, "--out", str(folder / "evaluated")]
    found = []
    for name, words, target in (
        ("--help", ["--help"], 0.4),
        ("evaluate, cached", evaluate, 6.0),
        ("compare, cached", [*compare, "--out", str(folder / "compared")], 6.0),
        ("predict one photo", ["predict", run, str(next(photos.rglob("*.jpg")))], 4.0),
    ):
        ours, imports = in_pairs(
            lambda words=words: seconds_of(lambda: command(words)),  # type: ignore[misc]
            lambda: seconds_of(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True)),
            pairs,
        )
        found.append(
            row(
                f"start to end: {name}",
                "s",
                ours,
                imports,
                f"python -c '{IMPORTS}'",
                note=f"aimed at: {target} s",
            )
        )
    return found


def command(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "clip_har", *words], check=True, capture_output=True)
