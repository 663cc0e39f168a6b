"""`train`: one method, fitted with validation, log and checkpoints, into one run folder."""

from __future__ import annotations

import dataclasses
import itertools
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clip_har import checkpoint
from clip_har.config import TrainConfig, to_flat_json, validate
from clip_har.cost import PeakMemory
from clip_har.dataset import write_manifest, write_unreadable
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
    folder = free = Path("runs") / config.method
    number = 1
    while checkpoint.has_run(free):
        number += 1
        folder, free = free, Path("runs") / f"{config.method}-{number}"
    return folder if config.resume else free


def train_prepared(
    config: TrainConfig, folder: Path, prepared: Prepared, progress: Progress, command: str
) -> checkpoint.Run:
    """Train into a run folder that `check_folder` allows, from its last saved state if there is one."""
    settings = {key: value for key, value in to_flat_json(config).items() if key != "resume"}
    settings["out"] = str(folder)
    saved = checkpoint.load_state(folder)
    if saved is not None:
        _require_same_start(folder, saved, prepared)
    checkpoint.write_json(folder / "config.json", settings)
    write_manifest(prepared.dataset, folder / "manifest.csv")
    write_unreadable(prepared.dataset, folder / "unreadable.csv")
    checkpoint.save_prompts(folder, prepared.prompts_CD)
    method = METHODS[config.method](settings)
    fitting = _Fitting(folder, method, prepared, prepared.task(config.seed), progress)
    peak = PeakMemory(prepared.backbone.device)
    fitting.fit(settings, saved)
    card = {
        **_card(config, settings, prepared, fitting),
        "peak_memory_bytes": peak.bytes(),
        "command": command,
    }
    checkpoint.write_json(folder / "card.json", card)
    return checkpoint.load_run(folder)


def _require_same_start(folder: Path, saved: checkpoint.SavedState, prepared: Prepared) -> None:
    """Refuse to continue a run on other images or other weights than it began with."""
    if saved.weights_hash != prepared.backbone.card.weights_hash:
        changed = f"The weights of {prepared.backbone.card.name} are"
    elif (folder / "manifest.csv").read_text(encoding="utf-8") != prepared.dataset.manifest_csv():
        changed = f"The images in {prepared.dataset.root} are"
    else:
        return
    raise RunError(
        f"{changed} not those that the run in {folder} began with",
        remedy="Restore them, or train anew into another --out.",
    )


class _Fitting:
    """One training into one run folder: what `fit` yields is validated, logged and saved here."""

    def __init__(self, folder: Path, method: Method, prepared: Prepared, task: Task, progress: Progress) -> None:
        self.folder = folder
        self.method = method
        self.task = task
        self.classifier = method.build(task)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._backbone = prepared.backbone.card
        self._zero_shot = prepared.zero_shot()
        self._progress = progress

    def fit(self, settings: Mapping[str, Any], saved: checkpoint.SavedState | None) -> None:
        """Train to the end, from `saved` on; every epoch's end leaves a state to resume from."""
        if saved is not None:
            self.classifier.load_state_dict(saved.classifier)
            self.history, self.seconds = saved.history, saved.seconds
            self._progress.note(f"Continuing {self.folder} after epoch {saved.epoch}")
        states = fit(
            self.method,
            self.classifier,
            self.task,
            settings,
            optimizer_state=saved.optimizer if saved else None,
            epochs_done=saved.epoch if saved else 0,
        )
        first = next(states, None)
        if first is None:  # nothing to train, or nothing left
            return
        zero_shot = f"{validation(self._zero_shot, self.task)['val_accuracy']:.1%}"
        with self._progress.bar(f"Training {self.method.name}", total=first.total_steps, unit="steps") as bar:
            bar.advance(first.step - 1)
            for state in itertools.chain([first], states):
                shown = {"loss": f"{state.loss:.3f}", "lr": f"{state.lr:.1e}"}
                if state.epoch_end:
                    entry = self._close_epoch(state)
                    shown |= {"val": f"{entry['val_accuracy']:.1%}", "zero_shot": zero_shot}
                bar.advance(1, **shown)

    def _close_epoch(self, state: TrainState) -> Mapping[str, Any]:
        """Validate, keep the weights if they are the best so far, log, and save the state."""
        entry: dict[str, Any] = {
            "epoch": state.epoch,
            "train_loss": state.loss,
            "lr": state.lr,
            "seconds": state.seconds,
            **validation(state.classifier, self.task),
        }
        if state.description:
            entry["candidate"] = state.description
        best = next((earlier for earlier in self.history if earlier["best"]), None)
        entry["best"] = best is None or rank(entry) > rank(best)
        if entry["best"]:
            if best is not None:
                best["best"] = False
            checkpoint.save_weights(self.folder, self.method, state.classifier, self._backbone.name)
        self._warn_of_collapse(entry)
        self.history.append(entry)
        self.seconds += state.seconds
        checkpoint.save_state(self.folder, state, self.history, self.seconds, weights_hash=self._backbone.weights_hash)
        checkpoint.save_log(self.folder, self.history)
        return entry

    def _warn_of_collapse(self, entry: Mapping[str, Any]) -> None:
        """Say, when it happens, that one class gets almost all answers."""
        already = bool(self.history) and self.history[-1]["val_top_share"] > COLLAPSE_SHARE
        if entry["val_top_share"] > COLLAPSE_SHARE and not already:
            share = f"{entry['val_top_share']:.0%}"
            self._progress.warn(f"collapsed: after epoch {entry['epoch']}, {share} of validation gets one answer")

    def validation_of_the_kept_weights(self) -> dict[str, Any]:
        """The log's entry of the best epoch; measured now where there were no epochs."""
        best = next((dict(entry) for entry in self.history if entry["best"]), None)
        return best if best is not None else dict(validation(self.classifier, self.task))


def _card(config: TrainConfig, settings: Mapping[str, Any], prepared: Prepared, fitting: _Fitting) -> dict[str, Any]:
    """What card.json says of a finished run."""
    backbone = dataclasses.asdict(prepared.backbone.card)
    del backbone["preprocessing"]
    trainable = sum(tensor.numel() for tensor in fitting.method.tensors(fitting.classifier).values())
    return {
        "format_version": checkpoint.FORMAT_VERSION,
        "package_version": version("clip-har"),
        "method": config.method,
        "source": fitting.method.source,
        "backbone": backbone,
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
        "validation": fitting.validation_of_the_kept_weights(),
        "trainable_params": trainable,
        "trainable_fraction": trainable / prepared.backbone.card.parameters,
        "train_seconds": fitting.seconds,
        "encode_seconds": prepared.encoding.seconds,
        "versions": versions(),
    }


def rank(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Higher is better: macro F1 on validation, then the lower loss."""
    return entry["val_macro_f1"], -entry["val_loss"]


def validation(classifier: Classifier, task: Task) -> dict[str, float]:
    """How a classifier does on the validation split: loss, accuracy, macro F1, and the most given answer's share."""
    probabilities_NC = classifier.probabilities(task.val.table).numpy()
    targets_N = task.val.labels_N.numpy()
    metrics = compute_metrics(probabilities_NC, targets_N, classes=task.classes)
    own_N = probabilities_NC[np.arange(len(targets_N)), targets_N]
    answers_C = metrics.confusion.sum(axis=0)
    return {
        "val_loss": float(-np.log(np.clip(own_N, 1e-12, 1.0)).mean()),
        "val_accuracy": metrics.accuracy,
        "val_macro_f1": metrics.macro_f1,
        "val_top_share": float(answers_C.max() / len(targets_N)),
    }


def versions() -> dict[str, str]:
    packages = ("clip-har", "torch", "open_clip_torch", "scikit-learn", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
