"""`compare`: several methods on the same splits, prompts and seed. `quickstart`: the same on drawn scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clip_har import checkpoint, demo, report
from clip_har.config import BackboneConfig, CompareConfig, DataConfig, TrainConfig, to_flat_json, validate
from clip_har.dataset import write_manifest
from clip_har.errors import RunError
from clip_har.evaluation import ComparisonRow, EvalResult
from clip_har.progress import SILENT, Progress
from clip_har.workflows.evaluating import evaluate_prepared, shared_card, thumbnails
from clip_har.workflows.prepare import Prepared, prepare
from clip_har.workflows.training import train_prepared

DEMO_TRAIN_PER_CLASS = 120
DEMO_TEST_PER_CLASS = 40


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found: one row and one evaluation per method, in the order asked."""

    rows: tuple[ComparisonRow, ...]
    results: Mapping[str, EvalResult]
    out: Path


def compare(config: CompareConfig, *, progress: Progress = SILENT, command: str = "") -> Comparison:
    """Train and score several methods on the same splits, prompts and seed; runs that are finished are reused.

    Raises:
        UserError: as for `train`.
    """
    validate(config)
    prepared = prepare(config.data, config.backbone, out=config.out, progress=progress)
    write_manifest(prepared.dataset, config.out / "manifest.csv")
    rows: list[ComparisonRow] = []
    results: dict[str, EvalResult] = {}
    for name in config.methods:
        run = _run_of_comparison(config, name, prepared, progress, command)
        result = evaluate_prepared(
            run, prepared, run.folder / "eval", seed=config.seed, progress=progress, command=command
        )
        rows.append(_comparison_row(run, result))
        results[name] = result
    report.write_comparison(
        rows,
        results,
        config.out,
        card=shared_card(prepared, config.seed),
        command=command,
        load_thumbnail=thumbnails(prepared.dataset),
    )
    return Comparison(rows=tuple(rows), results=results, out=config.out)


def quickstart(
    out: Path,
    *,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = SILENT,
    command: str = "",
) -> Comparison:
    """Draw the demo's scenes, then compare zero-shot, a linear probe and LoRA on them with the tiny CLIP.

    The same code path as `compare` on photographs; only the data's and the model's names differ.
    """
    data = draw_demo(out / "data", seed=seed, progress=progress)
    config = CompareConfig(
        data=DataConfig(data=data),
        backbone=BackboneConfig(model="demo", cache=cache),
        seed=seed,
        out=out,
    )
    comparison = compare(config, progress=progress, command=command)
    _write_contact_sheets(comparison, data, out)
    return comparison


def draw_demo(out: Path, *, seed: int, progress: Progress) -> Path:
    """Draw the demo dataset into `out`, or leave the one that is there."""
    total = len(demo.ACTIONS) * (DEMO_TRAIN_PER_CLASS + DEMO_TEST_PER_CLASS)
    with progress.bar("Drawing scenes", total=total, unit="images") as bar:
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


def _run_of_comparison(
    config: CompareConfig, name: str, prepared: Prepared, progress: Progress, command: str
) -> checkpoint.Run:
    """The run of one compared method: reused where it is finished, continued where it was begun, else trained."""
    train_config = TrainConfig(
        data=config.data,
        backbone=config.backbone,
        method=name,  # type: ignore[arg-type]  # one of MethodName: CompareConfig.methods holds nothing else
        lora=config.lora,
        optimizer=config.optimizer,
        seed=config.seed,
    )
    folder = config.out / "runs" / name
    checkpoint.check_folder(folder, to_flat_json(train_config), resume=checkpoint.has_run(folder))
    if not checkpoint.is_finished(folder):
        return train_prepared(train_config, folder, prepared, progress, command)
    run = checkpoint.load_run(folder)
    same_images = run.card.get("manifest_sha256") == prepared.dataset.manifest_hash()
    if not same_images or run.card["backbone"]["weights_hash"] != prepared.backbone.card.weights_hash:
        changed = "model's weights" if same_images else "images"
        raise RunError(
            f"{folder} was trained before the {changed} changed",
            remedy="Choose another --out, or remove that folder.",
        )
    progress.note(f"{name}: trained before, reused from {folder}")
    return run


def _comparison_row(run: checkpoint.Run, result: EvalResult) -> ComparisonRow:
    metrics = result.best.metrics
    return ComparisonRow(
        method=run.card["method"],
        accuracy=metrics.accuracy,
        accuracy_ci95=metrics.accuracy_ci95,
        macro_f1=metrics.macro_f1,
        ece=metrics.ece,
        trainable_params=run.card["trainable_params"],
        trainable_fraction=run.card["trainable_fraction"],
        peak_memory_bytes=run.card.get("peak_memory_bytes"),
        train_seconds=run.card.get("train_seconds"),
        mcnemar_p=result.mcnemar_p,
    )


def _write_contact_sheets(comparison: Comparison, data: Path, out: Path) -> None:
    """One drawn scene per class, with what the best method answers."""
    best = max(comparison.rows, key=lambda row: row.accuracy)
    result = comparison.results[best.method]
    first = {int(target): index for index, target in reversed(list(enumerate(result.targets_N)))}
    chosen = [first[target] for target in sorted(first)]
    answers = [result.classes[int(result.best.predictions[index])] for index in chosen]
    items = [(data / result.paths[index], result.classes[int(result.targets_N[index])]) for index in chosen]
    report.write_contact_sheet(items, out / "contact_sheet.png", predictions=answers)
