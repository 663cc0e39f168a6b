"""`train`: one method, fitted with validation, log and checkpoints, into one run folder."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clip_har import checkpoint
from clip_har.config import TrainConfig, to_flat_json, validate
from clip_har.cost import PeakMemory
from clip_har.dataset import ActionDataset, write_manifest, write_unreadable
from clip_har.errors import RunError
from clip_har.evaluation import COLLAPSE_SHARE, compute_metrics
from clip_har.methods import METHODS, Classifier, Method, Task
from clip_har.progress import SILENT, Progress
from clip_har.trainer import TrainState, fit
from clip_har.workflows.prepare import Prepared, prepare


def train(config: TrainConfig, *, progress: Progress = SILENT, command: str = "") -> checkpoint.Run:
    """Train one method and leave a run folder.

    Raises:
        UserError: settings, data, model or run folder cannot be used; the training's loss is not finite.
    """
    validate(config)
    folder = config.out or _default_folder(config)
    checkpoint.check_folder(folder, to_flat_json(config), resume=config.resume)
    if config.resume and checkpoint.is_finished(folder):
        progress.note(f"{folder} is finished already")
        return checkpoint.load_run(folder)
    prepared = prepare(config.data, config.backbone, out=folder, progress=progress)
    return train_prepared(config, folder, prepared, progress, command)


def _default_folder(config: TrainConfig) -> Path:
    """runs/METHOD, or the first of runs/METHOD-2, -3, ... that is free; to resume, the last that is not."""
    taken = []
    for number in range(1, sys.maxsize):
        folder = Path("runs") / (config.method if number == 1 else f"{config.method}-{number}")
        if not checkpoint.has_run(folder):
            return taken[-1] if config.resume and taken else folder
        taken.append(folder)
    raise AssertionError("unreachable")


def train_prepared(
    config: TrainConfig, folder: Path, prepared: Prepared, progress: Progress, command: str
) -> checkpoint.Run:
    """Train into a run folder that `check_folder` allows, from its last saved state if there is one."""
    settings = {key: value for key, value in to_flat_json(config).items() if key != "resume"}
    settings["out"] = str(folder)
    checkpoint.write_json(folder / "config.json", settings)
    _freeze_manifest(prepared.dataset, folder)
    write_unreadable(prepared.dataset, folder / "unreadable.csv")
    checkpoint.save_prompts(folder, prepared.prompts_CD)
    method = METHODS[config.method](settings)
    task = prepared.task(config.seed)
    classifier = method.build(task)
    peak = PeakMemory(prepared.backbone.device)
    history, seconds = _fit_with_checkpoints(folder, method, classifier, task, settings, prepared, progress)
    trainable = sum(tensor.numel() for tensor in method.tensors(classifier).values())
    card = {
        "format_version": checkpoint.FORMAT_VERSION,
        "package_version": version("clip-har"),
        "method": config.method,
        "source": method.source,
        "backbone": {
            key: value
            for key, value in dataclasses.asdict(prepared.backbone.card).items()
            if key != "preprocessing"
        },
        "classes": list(prepared.dataset.classes),
        "templates": list(prepared.templates),
        "preprocessing": prepared.backbone.card.preprocessing.to_json(),
        "precision": prepared.backbone.precision,
        "settings": settings,
        "seed": config.seed,
        "data": str(prepared.dataset.root),
        "splits": prepared.dataset.counts(),
        "manifest_sha256": prepared.dataset.manifest_hash(),
        "unreadable": len(prepared.dataset.unreadable),
        "validation": _validation_of(history, classifier, task),
        "trainable_params": trainable,
        "trainable_fraction": trainable / prepared.backbone.card.parameters,
        "train_seconds": seconds,
        "encode_seconds": prepared.encoding.seconds,
        "peak_memory_bytes": peak.bytes(),
        "command": command,
        "versions": versions(),
    }
    checkpoint.write_json(folder / "card.json", card)
    return checkpoint.load_run(folder)


def _freeze_manifest(dataset: ActionDataset, folder: Path) -> None:
    path = folder / "manifest.csv"
    if path.is_file() and path.read_text(encoding="utf-8") != dataset.manifest_csv():
        raise RunError(
            f"The images in {dataset.root} are not those that the run in {folder} began with",
            remedy="Restore them, or train anew into another --out.",
        )
    write_manifest(dataset, path)


def _fit_with_checkpoints(
    folder: Path,
    method: Method,
    classifier: Classifier,
    task: Task,
    settings: Mapping[str, Any],
    prepared: Prepared,
    progress: Progress,
) -> tuple[list[dict[str, Any]], float]:
    """Run `fit`; validate, log and save at every epoch's end. Returns the log and the training's seconds."""
    saved = checkpoint.load_state(folder)
    history: list[dict[str, Any]] = []
    seconds = 0.0
    if saved is not None:
        classifier.load_state_dict(saved.classifier)
        history, seconds = saved.history, saved.seconds
        progress.note(f"Continuing {folder} after epoch {saved.epoch}")
    states = fit(
        method,
        classifier,
        task,
        settings,
        optimizer_state=saved.optimizer if saved else None,
        epochs_done=saved.epoch if saved else 0,
    )
    first = next(states, None)
    if first is None:  # nothing to train, or nothing left
        return history, seconds
    zero_shot_accuracy = _validate(prepared.zero_shot(), task)["val_accuracy"]
    with progress.bar(f"Training {method.name}", total=first.total_steps, unit="steps") as bar:
        bar.advance(first.step - 1)
        state: TrainState | None = first
        while state is not None:
            bar.advance(1, loss=f"{state.loss:.3f}", lr=f"{state.lr:.1e}")
            if state.epoch_end:
                seconds += state.seconds
                _close_epoch(folder, method, state, history, task, prepared.backbone.card.name, progress)
                checkpoint.save_state(folder, state, history, seconds)
                checkpoint.save_log(folder, history)
                entry = history[-1]
                bar.advance(
                    0,
                    val=f"{entry['val_accuracy']:.1%}",
                    zero_shot=f"{zero_shot_accuracy:.1%}",
                    epoch=str(state.epoch),
                )
            state = next(states, None)
    return history, seconds


def _close_epoch(
    folder: Path,
    method: Method,
    state: TrainState,
    history: list[dict[str, Any]],
    task: Task,
    backbone_name: str,
    progress: Progress,
) -> None:
    """Validate, append to the log, and keep the weights if they are the best so far."""
    entry: dict[str, Any] = {
        "epoch": state.epoch,
        "train_loss": state.loss,
        "lr": state.lr,
        "seconds": state.seconds,
        **_validate(state.classifier, task),
    }
    if state.description:
        entry["candidate"] = state.description
    best = next((earlier for earlier in history if earlier["best"]), None)
    entry["best"] = best is None or rank(entry) > rank(best)
    if entry["best"]:
        for earlier in history:
            earlier["best"] = False
        checkpoint.save_weights(folder, method, state.classifier, backbone_name)
    newly = not history or history[-1]["val_top_share"] <= COLLAPSE_SHARE
    history.append(entry)
    if newly and entry["val_top_share"] > COLLAPSE_SHARE:
        progress.warn(
            f"After epoch {state.epoch} {entry['val_top_share']:.0%} of the validation images get one answer: collapsed"
        )


def rank(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Higher is better: macro F1 on validation, then the lower loss."""
    return entry["val_macro_f1"], -entry["val_loss"]


def _validate(classifier: Classifier, task: Task) -> dict[str, float]:
    probabilities_NC = classifier.probabilities(task.val.table).numpy()
    targets_N = task.val.labels_N.numpy()
    metrics = compute_metrics(probabilities_NC, targets_N, classes=task.classes)
    own = probabilities_NC[np.arange(len(targets_N)), targets_N]
    answers = np.bincount(probabilities_NC.argmax(axis=1), minlength=len(task.classes))
    return {
        "val_loss": float(-np.log(np.clip(own, 1e-12, 1.0)).mean()),
        "val_accuracy": metrics.accuracy,
        "val_macro_f1": metrics.macro_f1,
        "val_top_share": float(answers.max() / len(targets_N)),
    }


def _validation_of(
    history: Sequence[Mapping[str, Any]], classifier: Classifier, task: Task
) -> dict[str, Any]:
    """The validation figures of the kept weights."""
    best = next((dict(entry) for entry in history if entry["best"]), None)
    return best if best is not None else dict(_validate(classifier, task))


def versions() -> dict[str, str]:
    packages = ("clip-har", "torch", "open_clip_torch", "scikit-learn", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
