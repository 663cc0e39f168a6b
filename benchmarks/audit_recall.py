"""How many planted faults `data audit` finds: test images that are copies of training images, and swapped labels.

    python benchmarks/audit_recall.py --data FOLDER --model MODEL [--out FOLDER] [--swapped 30] [--seed 0]

FOLDER has train/CLASS and test/CLASS. Into a copy of it, 50 training images slip into test under other names: 20 as
they are, 20 saved anew as JPEG of quality 60, 10 resized to 70 %; and --swapped training images change their class.
Says how many of the leaks are found, beside those that the folder had before, and how many swapped labels are among
the first 100 suspects.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from clip_har.audit.records import Audit
from clip_har.commands.audit import audit_data
from clip_har.config import AuditSettings
from clip_har.console import ConsoleProgress

SUSPECTS = 100
LEAKS = ("bytes",) * 20 + ("quality 60",) * 20 + ("70 %",) * 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, help="where the copy and the page go; default: a folder that is removed")
    parser.add_argument("--swapped", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or Path(scratch)
        copy = out / "data"
        shutil.copytree(arguments.data, copy)
        order = random.Random(arguments.seed)
        train = sorted(path for path in (copy / "train").rglob("*") if path.is_file())
        order.shuffle(train)
        leaks = slip_into_test(train[: len(LEAKS)], copy)
        swapped = swap_labels(train[len(LEAKS) :][: arguments.swapped], copy, order)
        settings = AuditSettings(model=arguments.model)
        before = audit_data(arguments.data, settings=settings, progress=ConsoleProgress())
        after = audit_data(copy, settings=settings, html_file=out / "audit.html", progress=ConsoleProgress())
    report(before, after, leaks, swapped)


def slip_into_test(originals: Sequence[Path], copy: Path) -> list[tuple[str, str, str]]:
    """Write the copies; (how, name of the original, name of the copy) of each."""
    leaks = []
    for number, (how, original) in enumerate(zip(LEAKS, originals, strict=True)):
        slipped = copy / "test" / original.parent.name / f"holiday {number:02d}.jpg"
        if how == "bytes":
            shutil.copyfile(original, slipped)
        else:
            image = Image.open(original).convert("RGB")
            if how == "70 %":
                image = image.resize((round(image.width * 0.7), round(image.height * 0.7)))
            image.save(slipped, quality=60 if how == "quality 60" else 90)
        leaks.append((how, str(original.relative_to(copy)), str(slipped.relative_to(copy))))
    return leaks


def swap_labels(images: Sequence[Path], copy: Path, order: random.Random) -> set[str]:
    """Move images into another class's folder; their new names."""
    classes = sorted(path.name for path in (copy / "train").iterdir() if path.is_dir())
    moved = set()
    for image in images:
        other = order.choice([name for name in classes if name != image.parent.name])
        place = copy / "train" / other / f"moved {image.name}"
        image.rename(place)
        moved.add(str(place.relative_to(copy)))
    return moved


def report(before: Audit, after: Audit, leaks: Sequence[tuple[str, str, str]], swapped: set[str]) -> None:
    groups = [{file.name for file in finding.files} for finding in after.of("leaks")]
    for how in dict.fromkeys(LEAKS):
        planted = [(original, slipped) for leak, original, slipped in leaks if leak == how]
        found = sum(any({original, slipped} <= group for group in groups) for original, slipped in planted)
        print(f"leaks, {how}: {found} of {len(planted)} found")
    known = {name for _, original, slipped in leaks for name in (original, slipped)}
    others = list(_unplanted(groups, known))
    print(f"other leaks reported: {len(others)}; before planting {len(before.of('leaks'))}")
    suspects = [finding.files[0].name for finding in after.of("label_errors")]
    found = len(swapped & set(suspects[:SUSPECTS]))
    print(f"swapped labels: {found} of {len(swapped)} among the first {SUSPECTS} of {len(suspects)} suspects")
    print(f"label suspects before planting: {len(before.of('label_errors'))}")


def _unplanted(groups: Sequence[set[str]], known: set[str]) -> Iterator[set[str]]:
    for group in groups:
        if not group & known:
            yield group


if __name__ == "__main__":
    main()
