"""`evaluate`: a run beside the zero-shot baseline on the test images, each read once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from clip_har import checkpoint, distributed, report
from clip_har.config import EvaluateConfig, validate
from clip_har.dataset import ActionDataset, SplitName
from clip_har.errors import DataError, UnreadableImageError
from clip_har.evaluation import EpochRecord, EvalResult
from clip_har.evaluation import evaluate as measure
from clip_har.files import write_atomically
from clip_har.hard_pairs import HardPairs
from clip_har.images import decode
from clip_har.methods import LabelledImages
from clip_har.progress import SILENT, Progress
from clip_har.workflows.describing import data_summary, environment
from clip_har.workflows.prepare import Prepared, prepare
from clip_har.workflows.training import versions

THUMBNAIL_PIXELS = 224
SHOWN_PAIRS = 12


def evaluate(config: EvaluateConfig, *, progress: Progress = SILENT, command: str = "") -> tuple[EvalResult, Path]:
    """Score a run beside the zero-shot baseline, or the baseline alone, and write tables, plots and the report.

    Returns:
        What was measured, and the folder the files are in.

    Raises:
        UserError: data, model or run folder cannot be used.
    """
    validate(config)
    distributed.initialise(config.backbone.device)
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
    held_out = prepared.images(split)
    trained = run is not None and run.card["method"] != "zero-shot"
    result = measure(
        classes=prepared.dataset.classes,
        paths=[record.name for record in prepared.dataset.split(split)],
        targets_N=held_out.labels_N.numpy(),
        baseline_NC=prepared.zero_shot().probabilities(held_out).numpy(),
        finetuned_NC=_probabilities(run, prepared, held_out, progress) if run and trained else None,
        finetuned_name=run.card["method"] if run else "",
        split=split,
        warnings=warnings,
        seed=seed,
    )
    history = run.history() if run else []
    if distributed.is_main():
        report.write_evaluation(
            result,
            out,
            card={**shared_card(prepared, seed), **(_run_card(run) if run else {"method": "zero-shot"})},
            history=[_epoch_record(entry) for entry in history if entry["train_loss"] is not None],
            command=command,
            load_thumbnail=thumbnails(prepared.dataset),
            interpolation=_interpolation(run, history),
            hard_pairs=_hard_pairs(run, prepared) if run else None,
            findings=report.Findings(data=data_summary(prepared.dataset)),
        )
    for warning in result.warnings:
        if warning not in prepared.dataset.warnings:
            progress.warn(warning)
    return result


def _interpolation(
    run: checkpoint.Run | None, history: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float]] | None:
    """Of a wise-ft run, the share of the trained weights and the validation accuracy of each candidate."""
    if run is None or run.card["method"] != "wise-ft":
        return None
    return [(float(entry["candidate"].removeprefix("alpha=")), entry["val_accuracy"]) for entry in history]


def _hard_pairs(run: checkpoint.Run, prepared: Prepared) -> dict[str, Any] | None:
    """The pairs that a run was trained on last, with the images' names, as the report shows them."""
    path = run.folder / "hard_pairs.json"
    if not path.is_file():
        return None
    pairs = HardPairs.from_json(json.loads(path.read_text(encoding="utf-8")))
    train = prepared.task(run.card["seed"], shots=run.card["settings"].get("shots")).train
    names = {record.sha256: record.name for record in prepared.dataset.split("train")}
    hashes = train.table.hashes
    if any(max(pair.first, pair.second) >= len(hashes) for pair in pairs.images):
        return None  # the training images are not here
    return {
        "class_pairs": [
            {"true": entry.label, "answered": entry.answer, "count": entry.images} for entry in pairs.confused
        ],
        "image_pairs": [
            {
                "image": names[hashes[pair.first]],
                "label": pair.second_rival,
                "rival_image": names[hashes[pair.second]],
                "rival_label": pair.first_rival,
                "similarity": pair.similarity,
            }
            for pair in pairs.images[:SHOWN_PAIRS]
        ],
    }


def _probabilities(
    run: checkpoint.Run, prepared: Prepared, images: LabelledImages, progress: Progress
) -> npt.NDArray[np.float32]:
    """What the run answers; what its own tower has once answered for the same images is kept in the run folder."""
    digest = hashlib.sha256("".join(images.table.hashes).encode())
    digest.update((run.folder / run.method.weights_file).read_bytes())
    kept = run.folder / "answers" / f"{digest.hexdigest()[:32]}.npy"
    if distributed.gather_objects(kept.is_file())[0]:
        with contextlib.suppress(OSError, ValueError):
            return np.load(kept, allow_pickle=False)  # type: ignore[no-any-return]
    classifier = run.classifier(model=prepared.backbone.card.name, device=str(prepared.backbone.device))
    classifier.to(prepared.backbone.device)
    answers_NC: npt.NDArray[np.float32] = classifier.probabilities(images, progress=progress).numpy()
    if classifier.reads == "image" and distributed.is_main():
        content = io.BytesIO()
        np.save(content, answers_NC)
        write_atomically(kept, content.getvalue())
    return answers_NC


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
        **environment(prepared),
        "versions": versions(),
    }


def _run_card(run: checkpoint.Run) -> dict[str, Any]:
    keys = ("method", "trainable_params", "trainable_fraction", "train_seconds", "peak_memory_bytes", "seed")
    card = {key: run.card[key] for key in keys if run.card.get(key) is not None}
    if run.card.get("preset"):
        card["preset"] = run.card["preset"]
    if run.card["method"] == "lora":
        card |= {key: run.card["settings"][key] for key in ("placement", "loss")}
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
