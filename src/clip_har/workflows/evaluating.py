"""`evaluate`: a run beside the zero-shot baseline on the test images, each read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from clip_har import checkpoint, report
from clip_har.config import EvaluateConfig, validate
from clip_har.dataset import ActionDataset, SplitName
from clip_har.errors import DataError, UnreadableImageError
from clip_har.evaluation import EpochRecord, EvalResult
from clip_har.evaluation import evaluate as measure
from clip_har.images import decode
from clip_har.progress import SILENT, Progress
from clip_har.workflows.prepare import Prepared, prepare
from clip_har.workflows.training import versions

THUMBNAIL_PIXELS = 224


def evaluate(config: EvaluateConfig, *, progress: Progress = SILENT, command: str = "") -> tuple[EvalResult, Path]:
    """Score a run beside the zero-shot baseline, or the baseline alone, and write tables, plots and the report.

    Returns:
        What was measured, and the folder the files are in.

    Raises:
        UserError: data, model or run folder cannot be used.
    """
    validate(config)
    run = checkpoint.load_run(config.checkpoint) if config.checkpoint else None
    out = config.out or (run.folder / "eval" if run else Path("eval"))
    prepared = prepare(config.data, config.backbone, out=out, progress=progress, run=run, for_training=False)
    result = evaluate_prepared(run, prepared, out, seed=config.seed, progress=progress, command=command)
    return result, out


def evaluate_prepared(
    run: checkpoint.Run | None, prepared: Prepared, out: Path, *, seed: int, progress: Progress, command: str
) -> EvalResult:
    """Score the run (if any) and the baseline on the test split, once, and write all files."""
    split, warnings = _scored_split(prepared.dataset)
    held_out = prepared.features(split)
    trained = run is not None and run.card["method"] != "zero-shot"
    result = measure(
        classes=prepared.dataset.classes,
        paths=[record.name for record in prepared.dataset.split(split)],
        targets_N=held_out.labels_N.numpy(),
        baseline_NC=prepared.zero_shot().probabilities(held_out.table).numpy(),
        finetuned_NC=run.classifier().probabilities(held_out.table).numpy() if run and trained else None,
        finetuned_name=run.card["method"] if run else "",
        split=split,
        warnings=warnings,
        seed=seed,
    )
    history = run.history() if run else []
    report.write_evaluation(
        result,
        out,
        card={**shared_card(prepared, seed), **(_run_card(run) if run else {"method": "zero-shot"})},
        history=[_epoch_record(entry) for entry in history],
        command=command,
        load_thumbnail=thumbnails(prepared.dataset),
    )
    for warning in result.warnings:
        if warning not in prepared.dataset.warnings:
            progress.warn(warning)
    return result


def _scored_split(dataset: ActionDataset) -> tuple[SplitName, list[str]]:
    counts = dataset.counts()
    warnings = list(dataset.warnings)
    if counts["test"]:
        return "test", warnings
    if counts["val"]:
        warnings.append("There is no test split: these are validation images, on which the weights were chosen")
        return "val", warnings
    raise DataError(f"{dataset.root} has no test images of these classes", remedy="Give a folder with a test/ split.")


def shared_card(prepared: Prepared, seed: int) -> dict[str, Any]:
    """What all methods of a comparison have in common, for the report."""
    card = prepared.backbone.card
    return {
        "backbone": card.name,
        "weights_hash": card.weights_hash,
        "activation": card.activation,
        "data": str(prepared.dataset.root),
        "splits": {split: count for split, count in prepared.dataset.counts().items() if count},
        "classes": list(prepared.dataset.classes),
        "templates": list(prepared.templates),
        "seed": seed,
        "unreadable": len(prepared.dataset.unreadable),
        "versions": versions(),
    }


def _run_card(run: checkpoint.Run) -> dict[str, Any]:
    keys = ("method", "trainable_params", "trainable_fraction", "train_seconds", "peak_memory_bytes", "seed")
    card = {key: run.card[key] for key in keys if run.card.get(key) is not None}
    if run.card["method"] == "lora":
        card["loss"] = run.card["settings"]["loss"]
    return card


def _epoch_record(entry: Mapping[str, Any]) -> EpochRecord:
    names = {field.name for field in dataclasses.fields(EpochRecord)}
    return EpochRecord(**{key: value for key, value in entry.items() if key in names})


def thumbnails(dataset: ActionDataset) -> report.ThumbnailLoader:
    def load(name: str) -> Image.Image | None:
        try:
            image = decode(dataset.root / name)
        except UnreadableImageError:
            return None
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        return image

    return load
