"""`evaluate`: a run and the zero-shot baseline on the test images, each read once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_har import checkpoint, distributed, report
from clip_har.audit.records import Check
from clip_har.dataset import ActionDataset
from clip_har.evaluation import EpochRecord, EvalResult
from clip_har.evaluation import evaluate as measure
from clip_har.evaluation.findings import ExplainResult, Findings
from clip_har.experiment.confidence import with_confidence
from clip_har.experiment.predictions import Predictions, is_correct
from clip_har.experiment.report_inputs import data_summary, environment
from clip_har.experiment.setup import Experiment, scored_split
from clip_har.experiment.thumbnails import thumbnail_loader
from clip_har.experiment.training import versions
from clip_har.experiment.unknown import keep_on_card
from clip_har.experiment.wise_ft_curve import chosen_alpha
from clip_har.files import remove_stray_temporaries
from clip_har.hard_pairs import HardPairs
from clip_har.methods import InterpolatedMethod
from clip_har.progress import Progress

SHOWN_PAIRS = 12


def evaluate_prepared(
    run: checkpoint.Run | None,
    answering: Predictions,
    experiment: Experiment,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    command: str,
    findings: Findings | None = None,
    explained: ExplainResult | None = None,
    checks: tuple[Check, ...] = (),
) -> EvalResult:
    """Score the run (if any) and the baseline on the test split, once, and write all files."""
    split, warnings = scored_split(experiment.dataset)
    held_out = experiment.images(split)
    result = measure(
        classes=experiment.dataset.classes,
        paths=[record.name for record in experiment.dataset.split(split)],
        targets_N=held_out.labels_N.numpy(),
        baseline_NC=answering.baseline(held_out),
        finetuned_NC=answering.finetuned(held_out),
        finetuned_name=run.card.method if run else "",
        split=split,
        warnings=warnings,
        seed=seed,
    )
    result = with_confidence(result, run, answering, experiment)
    result = dataclasses.replace(result, findings=findings or Findings())
    keep_on_card(run, answering, experiment, result.findings.unknown)
    history = run.history() if run else []
    if distributed.is_main():
        remove_stray_temporaries(out)
        report.write_evaluation(
            result,
            out,
            facts={**shared_facts(experiment, seed), **(_run_facts(run) if run else {"method": "zero-shot"})},
            history=[_epoch_record(entry) for entry in history if entry["train_loss"] is not None],
            validation_level=_validation_level(run, answering, experiment),
            command=command,
            load_thumbnail=thumbnails(experiment.dataset),
            interpolation=_interpolation(run, history),
            chosen_share=chosen_alpha(run) if run and isinstance(run.method, InterpolatedMethod) else None,
            hard_pairs=_hard_pairs(run, experiment) if run else None,
            findings=_shown(result, data_summary(experiment.dataset, checks), explained),
        )
    for warning in result.warnings:
        if warning not in experiment.dataset.warnings:
            progress.warn(warning)
    return result


def _validation_level(run: checkpoint.Run | None, answering: Predictions, experiment: Experiment) -> float | None:
    """Zero-shot's accuracy on the images that the run's log is about; None where these are not here."""
    own = run is not None and run.card.manifest_sha256 == experiment.whole.manifest_hash()
    if run is None or not own or not experiment.dataset.counts()["val"]:
        return None
    if run.settings.refit:  # its log is about cross-validation
        return None
    val = experiment.images("val")
    return float(is_correct(answering.baseline(val), val.labels_N.numpy()).mean())


def _shown(result: EvalResult, data: report.DataSummary, explained: ExplainResult | None) -> report.ReportParts:
    """What the report shows next to the metrics."""
    found = result.findings
    return report.ReportParts(
        confidence_baseline=result.confidence_baseline,
        confidence_finetuned=result.confidence_finetuned,
        robustness=found.robustness,
        shifts=(found.shift,) if found.shift is not None else (),
        unseen=found.unseen,
        unknown=found.unknown,
        wise_curve=found.wise_curve,
        explanations=explained.explanations if explained else (),
        embedding_map=explained.embedding_map if explained else None,
        data=data,
    )


def _interpolation(
    run: checkpoint.Run | None, history: Sequence[Mapping[str, Any]]
) -> list[tuple[float, float]] | None:
    """Of an interpolated run, the share of the trained weights and the validation accuracy of each candidate."""
    method = None if run is None else run.method
    if not isinstance(method, InterpolatedMethod):
        return None
    return [(method.share_of(entry["candidate"]), entry["val_accuracy"]) for entry in history]


def _hard_pairs(run: checkpoint.Run, experiment: Experiment) -> dict[str, Any] | None:
    """The pairs that a run was trained on last, with the images' names, as the report shows them."""
    path = run.folder / "hard_pairs.json"
    if not path.is_file():
        return None
    pairs = HardPairs.from_json(json.loads(path.read_text(encoding="utf-8")))
    train = experiment.task(run.card.seed, shots=run.settings.shots).train
    names = {record.sha256: record.name for record in experiment.dataset.split("train")}
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


def shared_facts(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What all methods of a comparison have in common, for the report."""
    info = experiment.model.backbone.info
    return {
        "backbone": info.name,
        "weights_hash": info.weights_hash,
        "activation": info.activation,
        "data": str(experiment.dataset.root),
        "splits": {split: count for split, count in experiment.dataset.counts().items() if count},
        "classes": list(experiment.dataset.classes),
        "templates": list(experiment.model.templates),
        "seed": seed,
        "unreadable": len(experiment.dataset.unreadable),
        **environment(experiment),
        "versions": versions(),
    }


def _run_facts(run: checkpoint.Run) -> dict[str, Any]:
    keys = ("method", "trainable_params", "trainable_fraction", "train_seconds", "peak_memory_bytes", "seed")
    facts = {key: getattr(run.card, key) for key in keys if getattr(run.card, key) is not None}
    if run.card.preset:
        facts["preset"] = run.card.preset
    return facts | run.method.shown_settings()


def _epoch_record(entry: Mapping[str, Any]) -> EpochRecord:
    names = {field.name for field in dataclasses.fields(EpochRecord)}
    return EpochRecord(**{key: value for key, value in entry.items() if key in names})


def thumbnails(dataset: ActionDataset) -> report.ThumbnailLoader:
    """What loads the dataset's images for a page."""
    return thumbnail_loader({record.name: record.path for record in dataset.records})
