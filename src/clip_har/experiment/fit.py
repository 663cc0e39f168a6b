"""One training into one run folder: what the engine yields is validated, logged and saved here."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_har import checkpoint, distributed
from clip_har.backbone import autocast_pays, resolve_precision
from clip_har.errors import ConfigError, TrainingError
from clip_har.evaluation import COLLAPSE_SHARE, FloatArray, validation_figures
from clip_har.experiment.frozen_layers import with_frozen_layers
from clip_har.experiment.refitting import Selection, with_all_images
from clip_har.experiment.setup import Experiment
from clip_har.hard_pairs import HardPairs, mine
from clip_har.interrupts import deferred_interrupts
from clip_har.methods import Classifier, GradientMethod, LabelledImages, Method, SolvedMethod, Task
from clip_har.out_of_fold import save_out_of_fold
from clip_har.progress import Progress
from clip_har.tracking import Tracker, trackers
from clip_har.trainer import Engine, TrainState, fit
from clip_har.training_states import BestWeights, SavedState, Start, place_best, save_best, save_state

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Called with the log's entry of each epoch of gradient training but the last; what it raises ends the training."""


class TrainingRun:
    """Trains one method, keeps the weights that are best on validation, and leaves states to continue from."""

    def __init__(
        self,
        folder: Path,
        method: Method,
        task: Task,
        experiment: Experiment,
        start: Start,
        progress: Progress,
        on_epoch: OnEpoch | None = None,
        selection: Selection | None = None,
    ) -> None:
        """Args:
        selection: where the epoch was chosen in another training, and this one has the validation images too.
        """
        self.folder = folder
        self.method = method
        self.settings = method.settings
        self.classifier = method.build(task)
        self.task = with_frozen_layers(self.classifier, task, self.settings, experiment, progress)
        self._selection = selection
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.pairs: HardPairs | None = None
        self._best_weights: BestWeights | None = None
        self._last_epoch: int | None = None
        self._start = start
        self._backbone = experiment.model.backbone
        self._zero_shot = experiment.model.classifier()
        self._progress = progress
        self._on_epoch = on_epoch
        self._trackers: list[Tracker] = []

    def fit(self, saved: SavedState | None, last_epoch: int | None = None) -> None:
        """Train to the end, from `saved` on, or until an epoch is done."""
        self._last_epoch = last_epoch if self._selection is None else self._selection.epoch
        engine = self._engine()
        if saved is not None:
            self._continue(saved)
        elif engine is not None and self.settings.augmentation.hard_pairs > 0:
            self._mine(self._zero_shot)
        states = fit(
            self.method,
            self.classifier,
            self.task if self._selection is None else with_all_images(self.task),
            self.settings,
            engine=engine,
            resume=saved.snapshot if saved else None,
            pairs=lambda: self.pairs,
        )
        if self._stops_early() or self._was_told_to_end():
            return
        first = next(states, None)
        if first is None:  # nothing to train, or nothing left
            return
        if self.settings.optimizer.batch_size == "auto":
            self._progress.note(f"Batches of {first.batch_size} images, {first.accumulate} for each optimizer step")
        if distributed.is_main():
            self._trackers = trackers(self.folder, self.settings, from_step=first.step - 1)
        finished = False
        try:
            self._follow(itertools.chain([first], states), first)
            finished = True
        finally:
            for tracker in self._trackers:
                tracker.close(failed=not finished)

    def validation_of_the_kept_weights(self) -> dict[str, Any]:
        """The log's entry of the best epoch; measured now where there were no epochs."""
        best = self._best()
        return dict(best) if best is not None else dict(validation(self.classifier, self.task))

    def _engine(self) -> Engine | None:
        if not isinstance(self.method, GradientMethod):
            if self.classifier.reads == "image":  # the other solvers work on cached features, on the CPU
                self.classifier.to(self._backbone.device)
            return None
        if self.settings.engine.activation_checkpointing and not self.classifier.checkpoint_activations():
            self._progress.warn("--activation-checkpointing has no effect on this method or model")
        return Engine(
            self.method,
            self.classifier,
            self.task,
            device=self._backbone.device,
            precision=training_precision(self.settings.backbone.precision, self._backbone.device, self.classifier),
            compiled=self.settings.engine.compile,
            fsdp=self.settings.engine.fsdp,
        )

    def place_weights(self) -> tuple[str, ...]:
        """Give the best weights their place in the run, with the files that other tools need; returns their names."""
        place_best(self.folder, self.method, self._best_weights)
        if not (self.folder / self.method.weights_file).is_file():
            return ()
        return checkpoint.save_extra_files(self.folder, self.method, self.classifier, self._backbone.info.name)

    def _continue(self, saved: SavedState) -> None:
        self.history, self.seconds, self._best_weights = saved.history, saved.seconds, saved.best
        if saved.hard_pairs is not None:
            self.pairs = HardPairs.from_json(saved.hard_pairs)
        within = saved.snapshot.values["step_in_epoch"]
        if distributed.is_main():
            checkpoint.save_log(self.folder, self.history)  # it may have been killed between the state and the log
        where = f"after epoch {saved.epoch}" + (f" and {within} steps" if within else "")
        self._progress.note(f"Resuming {self.folder} {where}")

    def _follow(self, states: Iterator[TrainState], first: TrainState) -> None:
        """Show, validate and save as the training goes; stop where validation no longer improves."""
        judged = dataclasses.replace(self.task, val=self._judging(first))
        zero_shot = f"{validation(self._zero_shot, judged)['val_accuracy']:.1%}"
        images, started = 0, time.perf_counter()
        unit = "candidates" if isinstance(self.method, SolvedMethod) else "steps"
        shown_as = self._progress.bar(f"Training {self.method.name}", total=first.total_steps, unit=unit)
        with shown_as as bar, deferred_interrupts() as interrupted:
            bar.advance(first.step - 1)
            for state in self._keeping_the_last(states):
                images += state.images
                rate = images / max(1e-9, time.perf_counter() - started)
                shown = self._show(state, rate)
                if state.epoch_end:
                    entry = self._close_epoch(state, rate)
                    shown |= {"val": f"{entry['val_accuracy']:.1%}", "zero_shot": zero_shot}
                    self._progress.note(self._epoch_line(entry, zero_shot))
                    images, started = 0, time.perf_counter()
                elif state.step % self.settings.engine.save_steps == 0:
                    self._save_state(state)
                bar.advance(1, **shown)
                if any(distributed.gather_objects(bool(interrupted))) if distributed.launched() else interrupted:
                    self._save_state(state)
                    raise KeyboardInterrupt
                if state.epoch_end and self._stops_early():
                    self._progress.note(f"Stopped after epoch {state.epoch}: validation no longer improves")
                    return
                if state.epoch_end and self._was_told_to_end():
                    return

    def _keeping_the_last(self, states: Iterator[TrainState]) -> Iterator[TrainState]:
        """The states, and where the next step would spoil the weights, those before it saved."""
        last: TrainState | None = None
        try:
            for last in states:
                yield last
        except TrainingError:
            if last is not None:
                if self._best() is None:
                    with last.kept_weights():
                        self._keep(last)
                self._save_state(last)
            raise

    def _show(self, state: TrainState, rate: float) -> dict[str, str]:
        if isinstance(self.method, SolvedMethod):
            return {"candidate": state.description}
        figures = {"loss": state.loss, "mean_loss": state.mean_loss, "lr": state.lr, "images_per_second": rate}
        for tracker in self._trackers:
            tracker.log(figures, state.step)
        epochs = self.settings.optimizer.epochs
        return {
            "epoch": f"{math.ceil(state.step / state.total_steps * epochs)}/{epochs}",
            "loss": f"{state.loss:.3f}",
            "mean": f"{state.mean_loss:.3f}",
            "lr": f"{state.lr:.1e}",
            "images/s": f"{rate:,.0f}",
        }

    def _epoch_line(self, entry: Mapping[str, Any], zero_shot: str) -> str:
        """What stays to read of an epoch, or of a solver's candidate."""
        if "candidate" in entry:
            what = f"{self.method.name}: {entry['candidate']}"
        else:
            what = f"{self.method.name}: epoch {entry['epoch']}/{self.settings.optimizer.epochs}"
        loss = "" if entry["train_loss"] is None else f"  loss {entry['train_loss']:.4f}"
        if self._selection is not None:
            return f"{what}{loss}"
        best = "  best so far" if entry["best"] else ""
        judged_by = "cross-validated" if entry.get("cross_validated") else "validation"
        return f"{what}{loss}  {judged_by} accuracy {entry['val_accuracy']:.2%} (zero-shot {zero_shot}){best}"

    def _close_epoch(self, state: TrainState, rate: float) -> Mapping[str, Any]:
        """Validate, keep the weights if they are the best so far, mine again, log, and save the state."""
        with state.kept_weights():
            entry = self._entry(state, rate)
            if entry["best"]:
                self._keep(state)
            due = (
                state.epoch % self.settings.augmentation.hard_pairs_every == 0
                and state.epoch < self.settings.optimizer.epochs
            )
            if self.settings.augmentation.hard_pairs > 0 and due and isinstance(self.method, GradientMethod):
                self._mine(state.classifier)
        self._warn_of_collapse(entry)
        self.history.append(entry)
        self.seconds += state.seconds
        self._save_state(state)
        if distributed.is_main():
            checkpoint.save_log(self.folder, self.history)
            for tracker in self._trackers:
                tracker.log({key: value for key, value in entry.items() if isinstance(value, float)}, state.step)
        more = isinstance(self.method, GradientMethod) and state.epoch < self.settings.optimizer.epochs
        if self._on_epoch is not None and more:
            self._on_epoch(entry)
        return entry

    def _entry(self, state: TrainState, rate: float) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "epoch": state.epoch,
            "train_loss": state.loss if math.isfinite(state.loss) else None,
            "lr": state.lr,
            "seconds": state.seconds,
            "images_per_second": rate,
            **self._figures(state),
        }
        if state.description:  # a solver's candidate has no learning rate, and goes through no batches
            entry |= {"candidate": state.description, "lr": None, "images_per_second": None}
        if state.out_of_fold is not None and len(state.out_of_fold.hashes) > len(self.task.val):
            entry["cross_validated"] = True
        best = self._best()
        entry["best"] = self._is_kept(entry)
        if entry["best"] and best is not None:
            best["best"] = False
        return entry

    def _judging(self, state: TrainState) -> LabelledImages:
        """The images that the figures are about: the validation split's, or those of cross-validation."""
        if state.out_of_fold is None:
            return self.task.val
        pool, judged = self.task.train.joined(self.task.val), set(state.out_of_fold.hashes)
        return pool.subset([index for index, sha256 in enumerate(pool.table.hashes) if sha256 in judged])

    def _figures(self, state: TrainState) -> dict[str, float]:
        """How the classifier does on the validation split, or did in cross-validation."""
        if self._selection is not None:
            return self._selection.figures(state.epoch)
        found = state.out_of_fold
        if found is None:
            return validation(state.classifier, self.task)
        return figures_on(found.probabilities_NC.numpy(), found.labels_N, len(self.task.classes))

    def _keep(self, state: TrainState) -> None:
        if distributed.is_main():
            judged = state.out_of_fold if self._selection is None else self._selection.answers
            if judged is not None:  # before the weights: a resumed run comes here again for this candidate
                save_out_of_fold(self.folder, judged)
            self._best_weights = save_best(self.folder, self.method, state.classifier, state.step)

    def _is_kept(self, entry: Mapping[str, Any]) -> bool:
        """Whether weights replace those kept before: the best so far or, of an image encoder, later and as good.

        The learning rate falls to 0, so late weights have settled, and few validation images tell epochs apart only
        roughly. As good: a macro F1 within one standard error, that of the best epoch's accuracy, of the best.
        """
        top = self._top()
        if top is None or self._rank(entry) > self._rank(top):
            return True
        if self.classifier.reads != "image" or not isinstance(self.method, GradientMethod):
            return False
        accuracy = top["val_accuracy"]
        error = math.sqrt(accuracy * (1 - accuracy) / len(self.task.val))
        return bool(entry["val_macro_f1"] >= top["val_macro_f1"] - error)

    def _top(self) -> Mapping[str, Any] | None:
        """The entry with the best figures so far."""
        return max(self.history, key=self._rank, default=None)

    def _rank(self, entry: Mapping[str, Any]) -> tuple[float, float]:
        return rank(entry, self.method.chosen_by if isinstance(self.method, SolvedMethod) else "val_macro_f1")

    def _best(self) -> dict[str, Any] | None:
        return next((entry for entry in self.history if entry["best"]), None)

    def _stops_early(self) -> bool:
        patience = self.settings.optimizer.patience if isinstance(self.method, GradientMethod) else 0
        top = self._top()
        return bool(patience and top and self.history[-1]["epoch"] - top["epoch"] >= patience)

    def _was_told_to_end(self) -> bool:
        """Whether the run was resumed with fewer epochs than it began with, and these are done."""
        begun, best = self.settings.optimizer.epochs, self._best()
        done = self.history[-1]["epoch"] if self.history else 0
        if self._last_epoch is None or best is None or not self._last_epoch <= done < begun:
            return False
        if self._selection is not None:
            return True
        self._progress.warn(
            f"Ended after epoch {done} of {begun}, as asked: the weights are those of epoch {best['epoch']}, and the "
            "learning rate has not decayed to the end of its schedule"
        )
        return True

    def _save_state(self, state: TrainState) -> None:
        snapshot = state.snapshot(copied=False)
        if distributed.is_main():
            save_state(
                self.folder,
                snapshot,
                self.history,
                self.seconds,
                start=self._start,
                best=self._best_weights,
                hard_pairs=self.pairs.to_json() if self.pairs else None,
            )

    def _mine(self, classifier: Classifier) -> None:
        """Look for the pairs that the classifier confuses now, and write them into the run."""
        task = self.task
        judged = self._selection
        self.pairs = mine(
            classifier.probabilities(task.val) if judged is None else judged.answers.probabilities_NC,
            task.val.labels_N,
            classifier.image_embeddings(task.train),
            task.train.labels_N,
            classes=task.classes,
            hardest=min(1.0, 2 * self.settings.augmentation.hard_pairs),
        )
        self.pairs = distributed.gather_objects(self.pairs)[0]  # rounding could break ties differently
        if distributed.is_main():
            checkpoint.write_json(self.folder / "hard_pairs.json", self.pairs.to_json())

    def _warn_of_collapse(self, entry: Mapping[str, Any]) -> None:
        """Say, when it happens, that one class gets almost all answers."""
        already = bool(self.history) and self.history[-1]["val_top_share"] > COLLAPSE_SHARE
        if entry["val_top_share"] > COLLAPSE_SHARE and not already:
            share = f"{entry['val_top_share']:.0%}"
            where = f"Predictions collapsed after epoch {entry['epoch']}"
            if "candidate" in entry:
                where = f"Predictions collapsed with {entry['candidate']}"
            judged = "cross-validated" if entry.get("cross_validated") else "validation"
            self._progress.warn(f"{where}: {share} of {judged} images are assigned to one class")


def training_precision(asked: str, device: torch.device, classifier: Classifier) -> str:
    """The arithmetic of the steps: cached embeddings stay in float32, and so do encoders where autocast is slower."""
    if asked == "fp16-pure":
        return asked
    if asked == "float16" and device.type == "cpu":
        raise ConfigError("--precision float16 cannot train on a CPU", remedy="Use --precision float32 or bfloat16.")
    if classifier.small or (asked == "auto" and not autocast_pays(device, classifier)):
        return "float32"
    return resolve_precision(asked, device)  # type: ignore[arg-type]


def rank(entry: Mapping[str, Any], chosen_by: str = "val_macro_f1") -> tuple[float, float]:
    """Higher is better: a figure on validation, then the lower loss."""
    figure = entry[chosen_by]
    return -figure if chosen_by == "val_loss" else figure, -entry["val_loss"]


def validation(classifier: Classifier, task: Task) -> dict[str, float]:
    """How a classifier does on the validation split: loss, accuracy, macro F1, and the most given answer's share."""
    return figures_on(classifier.probabilities(task.val).numpy(), task.val.labels_N, len(task.classes))


def figures_on(probabilities_NC: FloatArray, labels_N: Tensor, classes: int) -> dict[str, float]:
    """The same for class probabilities of images that a classifier was not fitted on."""
    figures = validation_figures(probabilities_NC, labels_N.numpy(), classes)
    return {
        "val_loss": figures.loss,
        "val_accuracy": figures.accuracy,
        "val_macro_f1": figures.macro_f1,
        "val_top_share": figures.top_share,
    }
