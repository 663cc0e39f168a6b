"""Run folders: safe, atomic and self-describing. Writes and reads them; decides nothing about training.

RUN/config.json, card.json (last of all: a run without it is not finished), weights, prompts.safetensors,
manifest.csv, unreadable.csv and log.jsonl. The card is run_card.py's, RUN/last/ is training_states.py's.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from clip_har.backbone import Backbone, load_backbone
from clip_har.config import Settings, TrainConfig, range_problems, to_flat_json
from clip_har.errors import RunError
from clip_har.files import is_utf8, write_atomically
from clip_har.fusion import at_sizes_of
from clip_har.images import Preprocessing, preprocessing_from_json
from clip_har.integrity import file_sha256
from clip_har.known_models import load_for_run
from clip_har.legacy_checkpoint import is_checkpoint_file
from clip_har.methods import METHODS, Classifier, ClassifierContext, Method, OutOfFold, Source, create_method
from clip_har.out_of_fold import OUT_OF_FOLD_FILE, load_out_of_fold
from clip_har.prompts import class_phrase
from clip_har.protocol import Protocol, hash_prompts, known_activation
from clip_har.run_card import CARD_NAME, RESTORE, RunCard, check_files, read_card
from clip_har.tensor_files import write_tensors

HISTORIC_FILES = ("clip_lora_best.pt", "clip_har_best.pt")
"""File names that the predecessor's commands give as a checkpoint; they mean the run folder they would lie in."""
RECORDED = ("config.json", "prompts.safetensors", "manifest.csv", "unreadable.csv", "log.jsonl", "hard_pairs.json")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, as its folder describes it."""

    folder: Path
    card: RunCard

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes

    @property
    def novel_classes(self) -> tuple[str, ...]:
        """Classes that were kept out of training."""
        return self.card.held_out

    @property
    def phrasing(self) -> dict[str, str]:
        """What stands for each class in the templates, those held out included."""
        phrases = self.card.phrasing or {}  # runs of earlier versions took the names' words
        return {name: phrases.get(name, class_phrase(name)) for name in (*self.classes, *self.novel_classes)}

    @property
    def protocol(self) -> Protocol:
        """What the run was trained on and with."""
        try:
            reads_hidden = self.method.reads(self.settings) in ("hidden", "both")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise self._not_of_the_method() from error
        return Protocol(
            model=self.card.backbone.weights_hash,
            model_name=self.card.backbone.name,
            activation=known_activation(self.card.backbone.activation),
            features=(self.card.backbone.projection or "") if reads_hidden else None,
            images=self.card.manifest_sha256,
            classes=self.classes,
            prompts=hash_prompts(self.card.templates, self.phrasing),
        )

    @functools.cached_property
    def settings(self) -> Settings:
        """What the run was trained with.

        Raises:
            RunError: its card has no such settings.
        """
        try:
            settings = Settings.from_json(self.card.settings)
            if any(range_problems(settings)):  # a card that was forged: it could ask for all memory
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self._not_of_the_method() from error
        return settings

    @property
    def method(self) -> Method:
        settings = self.settings
        try:
            return create_method(self.card.method, settings)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._not_of_the_method() from error

    @property
    def weights_file(self) -> str:
        """Name of the file that holds the trained weights."""
        method = self.method
        try:
            return method.weights_file  # of mixed weights, that of the method on the card that they are mixed from
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._not_of_the_method() from error

    @property
    def preprocessing(self) -> Preprocessing:
        try:
            return preprocessing_from_json(self.card.preprocessing)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f'"preprocessing" in {self.folder / CARD_NAME} is not what clip-har writes'
            raise RunError(what, remedy=RESTORE) from error

    @property
    def caution(self) -> str | None:
        """What to warn of before the run is trusted, if anything."""
        if self.card.files is not None:
            return None
        return f"{self.folder} was written by an earlier version and has no checksums: damage would go unnoticed"

    def config(self) -> dict[str, Any]:
        """The resolved flat configuration."""
        return read_json(self.folder / "config.json")

    def history(self) -> list[dict[str, Any]]:
        """One mapping per epoch or candidate, from log.jsonl."""
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def prompts(self) -> Tensor:
        """The class prompts' embeddings [C, D] that the run was trained with.

        Raises:
            RunError: they are missing, damaged, or not of these classes.
        """
        prompts_CD = _load_tensors(self.folder / "prompts.safetensors").get("prompts_CD")
        if prompts_CD is None or prompts_CD.ndim != 2 or len(prompts_CD) != len(self.classes):
            what = f"{self.folder / 'prompts.safetensors'} does not have an embedding for each class of the run"
            raise RunError(what, remedy=RESTORE)
        return prompts_CD

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights, as the method names them.

        Raises:
            RunError: they are missing or damaged.
        """
        if not self.method.has_weights:
            return {}
        check_files(self.folder, self.card, [self.weights_file])
        return _load_tensors(self.folder / self.weights_file)

    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file in hex; empty where the method has none.

        Raises:
            RunError: it is missing.
        """
        if not self.method.has_weights:
            return ""
        check_files(self.folder, self.card, [self.weights_file])
        try:
            return file_sha256(self.folder / self.weights_file)
        except OSError as error:
            raise RunError(f"{self.folder / self.weights_file} cannot be read", remedy=RESTORE) from error

    def out_of_fold(self) -> OutOfFold | None:
        """What cross-validation, or the training that chose the epoch, answered for images that are now fitted too.

        Raises:
            RunError: damaged.
        """
        if not self.settings.refit:
            return None
        check_files(self.folder, self.card, [OUT_OF_FOLD_FILE])
        return load_out_of_fold(self.folder, len(self.classes))

    def as_source(self) -> Source:
        """What a method that starts from this run needs."""
        return Source(method=self.method, tensors=self.tensors())

    def frame(self, *, model: str | None = None, device: str = "cpu") -> ClassifierContext:
        """What the trained classifier is set into; see `classifier`."""
        card = self.card

        def load() -> Backbone:
            if model is not None:
                return load_backbone(at_sizes_of(model, card.backbone.name), device=device, precision="float32")
            return load_for_run(
                card.backbone.name, card.backbone.files_sha256, self.folder, device=device, precision="float32"
            )

        return ClassifierContext(
            classes=self.classes,
            templates=card.templates,
            phrases=tuple(self.phrasing[name] for name in self.classes),
            prompts_CD=self.prompts(),
            logit_scale=card.backbone.logit_scale,
            load_backbone=load,
        )

    def classifier(
        self, *, model: str | None = None, device: str = "cpu", frame: ClassifierContext | None = None
    ) -> Classifier:
        """The trained classifier, in eval mode.

        Args:
            model: where the backbone is now, if not where the card says, for methods that train inside it.
            device: where that is loaded.
            frame: in place of the run's own, for methods that answer new names.

        Raises:
            RunError: weights are missing, damaged, or not those of the method on the card.
        """
        tensors = self.tensors()
        try:
            classifier = self.method.restore(frame or self.frame(model=model, device=device), tensors)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError) as error:
            raise self._not_of_the_method() from error
        return classifier.eval().requires_grad_(False)

    def _not_of_the_method(self) -> RunError:
        name = self.card.method
        known = METHODS[name].weights_file  # a property where it depends on the settings
        weights = self.folder / known if isinstance(known, str) else self.folder
        return RunError(f"{weights} does not contain the weights of the method {name!r}", remedy="Train the run again.")


def resolve_run(path: Path) -> Path:
    """The run folder meant by a path: the folder itself, or a file inside it.

    Raises:
        RunError: there is no finished run.
    """
    historic = path.name in HISTORIC_FILES and path.parent.is_dir()
    folder = path.parent if path.is_file() or (historic and not path.exists()) else path
    if not folder.exists():
        raise RunError(f"Run folder {path} not found", remedy="Train one first: clip-har train --help.")
    if not (folder / "card.json").is_file():
        begun = (folder / "config.json").is_file()
        said = "is an unfinished run" if begun else "is not a run folder (it has no card.json)"
        remedy = "Pass a folder written by clip-har train."
        if begun:
            remedy = "Finish it with clip-har train --resume, or end it now with the best epoch so far: add --epochs 1."
        if is_checkpoint_file(path):
            remedy = f"Convert the checkpoint with clip-har import {path}."
        raise RunError(f"{folder} {said}", remedy=remedy)
    return folder


def load_run(path: Path) -> Run:
    """Open a finished run, its card and small files checked; its weights are when they are first read.

    Raises:
        RunError: no run there, or its card or a file is missing, damaged or from a newer version.
    """
    folder = resolve_run(path)
    card = read_card(folder)
    if card.method not in METHODS:
        raise RunError(
            f"{folder / 'card.json'} is not the card of a run: there is no method {card.method!r}",
            remedy="Train the run again.",
        )
    run = Run(folder=folder, card=card)
    check_files(folder, card, [name for name in card.files or () if name != run.weights_file])
    return run


def has_run(folder: Path) -> bool:
    """Whether a run was begun here that has something to lose: a saved state, or a finished run."""
    return (folder / "config.json").is_file() and (is_finished(folder) or any((folder / "last").glob("step-*")))


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    return (folder / "card.json").is_file()


def save_weights(folder: Path, method: Method, classifier: Classifier, backbone_name: str) -> tuple[str, ...]:
    """Write a classifier's weights and what other tools need next to them; returns the other files' names.

    Raises:
        ValueError: the method has weights, but gives none.
    """
    tensors = method.tensors(classifier)
    if not tensors and method.has_weights:
        raise ValueError(f"{method.name}: `tensors` returns nothing to save (buffers are not saved automatically)")
    if not tensors:
        return ()
    write_tensors(folder / method.weights_file, tensors, {"format": "pt"})
    return save_extra_files(folder, method, classifier, backbone_name)


def save_extra_files(folder: Path, method: Method, classifier: Classifier, backbone_name: str) -> tuple[str, ...]:
    """Write what other tools need next to the weights, and return the files' names."""
    contents = method.extra_files(classifier, backbone_name)
    for name, content in contents.items():
        write_json(folder / name, content)
    return tuple(contents)


def save_prompts(folder: Path, prompts_CD: Tensor) -> None:
    """Write the class prompts' embeddings, so that the run answers without its text encoder."""
    write_atomically(folder / "prompts.safetensors", save({"prompts_CD": prompts_CD.contiguous()}))


def recorded_files(method: Method, extra: Iterable[str]) -> tuple[str, ...]:
    """Names of the files whose checksums are on the card of a finished run, where they exist."""
    return (*RECORDED, OUT_OF_FOLD_FILE, method.weights_file, *extra)


def clear(folder: Path) -> None:
    """Remove what an earlier run that saved no state may have left behind."""
    for name in ("hard_pairs.json", "log.jsonl", OUT_OF_FOLD_FILE, *weights_files()):
        (folder / name).unlink(missing_ok=True)
    for name in ("last", "answers", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def weights_files() -> set[str]:
    """The names that methods give their weights; a property where it depends on the settings."""
    return {method.weights_file for method in METHODS.values() if isinstance(method.weights_file, str)}


def write_config(folder: Path, config: TrainConfig, *, data_is_known: bool = True) -> None:
    """Write config.json: what was given, for --config and --resume."""
    given = to_flat_json(config)
    del given["resume"]
    if not data_is_known:
        given["data"] = None
    write_json(folder / "config.json", given)


def save_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write log.jsonl: one line per epoch or candidate."""
    write_atomically(folder / "log.jsonl", "".join(json.dumps(dict(entry)) + "\n" for entry in history))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as readable JSON, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        # safetensors opens no path that is not UTF-8.
        tensors: dict[str, Tensor] = load_file(path) if is_utf8(path) else load(path.read_bytes())
        return tensors
    except (OSError, SafetensorError) as error:
        reason = "is missing" if not path.exists() else "is damaged"
        raise RunError(f"{path} {reason}", remedy="Train the run again.") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}", remedy="Train the run again.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is not what clip-har writes", remedy="Train the run again.")
    return content
