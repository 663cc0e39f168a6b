"""`quickstart`: `compare` on synthetic images with the tiny CLIP of the package, without a network."""

from __future__ import annotations

from pathlib import Path

from clip_har import demo, report
from clip_har.commands.compare import Comparison, compare_locked
from clip_har.config import BackboneConfig, CompareConfig, DataConfig, QuickstartConfig, validate
from clip_har.locking import exclusive
from clip_har.progress import SILENT, Progress

DEMO_TRAIN_PER_CLASS = 120
DEMO_TEST_PER_CLASS = 40


def quickstart(config: QuickstartConfig | None = None, *, progress: Progress = SILENT, command: str = "") -> Comparison:
    """Draw the demo's scenes, then compare zero-shot, a linear probe and LoRA on them with the tiny CLIP.

    The same code path as `compare` on photographs; only the data's and the model's names differ. Methods inside the
    towers get the small budget. The encoder runs in float32, so that the figures do not depend on the processor.
    """
    config = config or QuickstartConfig()
    validate(config)
    out = config.out
    with exclusive(out):
        data = draw_demo(out / "data", seed=config.seed, progress=progress)
        compared = CompareConfig(
            data=DataConfig(data=data),
            backbone=BackboneConfig(model="demo", precision="float32", cache=config.cache),
            methods=config.methods,
            budget="small",
            seeds=(config.seed,),
            out=out,
        )
        validate(compared)
        comparison = compare_locked(compared, progress, command)
        _write_contact_sheets(comparison, data, out)
        return comparison


def draw_demo(out: Path, *, seed: int, progress: Progress) -> Path:
    """Draw the demo dataset into `out`, or leave the one that is there."""
    total = len(demo.ACTIONS) * (DEMO_TRAIN_PER_CLASS + DEMO_TEST_PER_CLASS)
    with progress.bar("Generating images", total=total, unit="images") as bar:
        drawn = 0

        def on_image(done: int, _total: int) -> None:
            nonlocal drawn
            bar.advance(done - drawn)
            drawn = done

        return demo.write_dataset(
            out,
            seed=seed,
            train_per_class=DEMO_TRAIN_PER_CLASS,
            test_per_class=DEMO_TEST_PER_CLASS,
            on_image=on_image,
        )


def _write_contact_sheets(comparison: Comparison, data: Path, out: Path) -> None:
    """One drawn scene per class, with what the best method answers."""
    best = max((row for row in comparison.rows if not row.collapsed), key=lambda row: row.accuracy)
    result = comparison.results[best.name]
    first = {int(target): index for index, target in reversed(list(enumerate(result.targets_N)))}
    chosen = [first[target] for target in sorted(first)]
    answers = [result.classes[int(result.best.predictions[index])] for index in chosen]
    items = [(data / result.paths[index], result.classes[int(result.targets_N[index])]) for index in chosen]
    report.write_contact_sheet(items, out / "contact_sheet.png", predictions=answers)
