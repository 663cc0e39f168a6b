"""Run folders: safe, atomic and self-describing. Writes and reads them; decides nothing about training.

RUN/config.json, card.json (last of all: a run without it is not finished), weights, prompts.safetensors,
manifest.csv, unreadable.csv, log.jsonl and last/ (the newest training states, for --resume).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from clip_har.backbone import Backbone, load_backbone
from clip_har.config import resolve
from clip_har.errors import RunError
from clip_har.files import write_atomically
from clip_har.images import Preprocessing
from clip_har.methods import METHODS, Classifier, Frame, Method, Source, create_method
from clip_har.prompts import class_phrase
from clip_har.trainer import Snapshot

FORMAT_VERSION = 1
HISTORIC_FILES = ("clip_lora_best.pt", "clip_har_best.pt")
"""File names that the historic commands give as a checkpoint; they mean the run folder they would lie in."""
# Settings that say where and how fast a run is made, not what comes out of it.
_FREE_SETTINGS = frozenset(
    {"out", "resume", "data", "device", "workers", "encode_batch_size", "cache", "save_steps", "tensorboard", "wandb"}
)
_WITH_FILES = [method for method in METHODS.values() if isinstance(method.weights_file, str)]
_CARD_KEYS = ("method", "backbone", "classes", "templates", "preprocessing", "settings", "seed")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run, as its folder describes it."""

    folder: Path
    card: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.card["classes"])

    @property
    def held_out(self) -> tuple[str, ...]:
        """Classes that were kept out of training."""
        return tuple(self.card.get("held_out", ()))

    @property
    def phrasing(self) -> dict[str, str]:
        """What stands for each class in the templates, those held out included."""
        phrases = self.card.get("phrasing") or {}  # runs of earlier versions took the names' words
        return {name: phrases.get(name, class_phrase(name)) for name in (*self.classes, *self.held_out)}

    @property
    def method(self) -> Method:
        settings = resolve(self.card["settings"], {})  # a run of an earlier version lacks what came later
        return create_method(self.card["method"], settings)

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_json(self.card["preprocessing"])

    def config(self) -> dict[str, Any]:
        """The resolved flat configuration."""
        return _read_json(self.folder / "config.json")

    def history(self) -> list[dict[str, Any]]:
        """One mapping per epoch or candidate, from log.jsonl."""
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def prompts(self) -> Tensor:
        """The class prompts' embeddings [C, D] that the run was trained with."""
        return load_prompts(self.folder)

    def tensors(self) -> dict[str, Tensor]:
        """The trained weights, as the method names them.

        Raises:
            RunError: they are missing or damaged.
        """
        path = self.folder / self.method.weights_file
        return {} if self.card["method"] == "zero-shot" else _load_tensors(path)

    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file in hex; empty where the method has none.

        Raises:
            RunError: it is missing.
        """
        path = self.folder / self.method.weights_file
        if self.card["method"] == "zero-shot":
            return ""
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise RunError(f"{path} cannot be read", remedy="Train the run again.") from error

    def as_source(self) -> Source:
        """What a method that starts from this run needs."""
        return Source(method=self.method, tensors=self.tensors())

    def frame(self, *, model: str | None = None, device: str = "cpu") -> Frame:
        """What the trained classifier is set into; see `classifier`."""
        card = self.card

        def load() -> Backbone:
            return load_backbone(model or card["backbone"]["name"], device=device, precision="float32")

        return Frame(
            classes=self.classes,
            templates=tuple(card["templates"]),
            phrases=tuple(self.phrasing[name] for name in self.classes),
            prompts_CD=self.prompts(),
            logit_scale=card["backbone"]["logit_scale"],
            load_backbone=load,
        )

    def classifier(self, *, model: str | None = None, device: str = "cpu", frame: Frame | None = None) -> Classifier:
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
        except (KeyError, RuntimeError, ValueError) as error:
            weights = self.folder / self.method.weights_file
            raise RunError(
                f"{weights} does not hold the weights of the method {self.card['method']!r}",
                remedy="Train the run again.",
            ) from error
        return classifier.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """A training between two steps, as `save_state` wrote it."""

    snapshot: Snapshot
    weights_hash: str
    """Of the backbone that it was trained on."""
    history: list[dict[str, Any]]
    seconds: float
    """Time of the training's finished epochs."""
    hard_pairs: dict[str, Any] | None
    """The mined pairs that the current epoch is composed of."""

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.snapshot.values["epoch"])


def resolve_run(path: Path) -> Path:
    """The run folder meant by a path: the folder itself, or a file inside it.

    Raises:
        RunError: there is no finished run.
    """
    historic = path.name in HISTORIC_FILES and path.parent.is_dir()
    folder = path.parent if path.is_file() or (historic and not path.exists()) else path
    if not folder.exists():
        raise RunError(f"There is no run folder {path}", remedy="Train one first: clip-har train --help.")
    if not (folder / "card.json").is_file():
        begun = (folder / "config.json").is_file()
        said = "is a run that was not finished" if begun else "is not a run folder (it has no card.json)"
        remedy = "Finish it with clip-har train --resume." if begun else "Give the folder that clip-har train wrote."
        raise RunError(f"{folder} {said}", remedy=remedy)
    return folder


def load_run(path: Path) -> Run:
    """Open a finished run.

    Raises:
        RunError: no run there, or its card is damaged or from a newer version.
    """
    folder = resolve_run(path)
    card = _read_json(folder / "card.json")
    missing = [key for key in (*_CARD_KEYS, "trainable_params") if key not in card]
    version = card.get("format_version")
    if missing or not isinstance(version, int) or card["method"] not in METHODS:
        raise RunError(f"{folder / 'card.json'} is not a card of a run", remedy="Train the run again.")
    if version > FORMAT_VERSION:
        raise RunError(
            f"{folder} was written by clip-har {card.get('package_version', 'of a later version')}",
            remedy="Install that version or a later one.",
        )
    return Run(folder=folder, card=card)


def check_folder(folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a run folder that may not be written to, before anything slow happens. Writes nothing.

    Raises:
        RunError: a run is there and `resume` is not asked, or it was made with other settings, or there is none.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out {folder} is a file", remedy="Give a folder.")
    if not has_run(folder):
        if resume:
            raise RunError(f"There is no run in {folder} to resume", remedy="Start it without --resume.")
        return
    if not resume:
        remedy = "Choose another --out, or continue it with --resume."
        raise RunError(f"{folder} already holds a run", remedy=remedy)
    differing = differing_settings(_read_json(folder / "config.json"), config)
    if differing:
        raise RunError(
            f"The run in {folder} was made with other settings: {', '.join(differing)}",
            remedy="Give the same settings to resume it, or choose another --out.",
        )


def has_run(folder: Path) -> bool:
    """Whether a run was begun here that has something to lose: a saved state, or a finished run."""
    return (folder / "config.json").is_file() and (is_finished(folder) or any((folder / "last").glob("step-*")))


def differing_settings(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides the outcome and differs between two flat configurations, as "epochs 5 -> 15"."""
    keys = sorted((earlier.keys() | now.keys()) - _FREE_SETTINGS)
    return [f"{key} {earlier.get(key)} -> {now.get(key)}" for key in keys if earlier.get(key) != now.get(key)]


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a finished run."""
    return (folder / "card.json").is_file()


def save_weights(folder: Path, method: Method, classifier: Classifier, backbone_name: str) -> None:
    """Write the classifier's weights, in the method's own format, whole or not at all."""
    tensors = method.tensors(classifier)
    if tensors:
        for name, content in method.extra_files(classifier, backbone_name).items():
            write_json(folder / name, content)
        write_atomically(folder / method.weights_file, save(tensors, {"format": "pt"}))


def save_prompts(folder: Path, prompts_CD: Tensor) -> None:
    """Write the class prompts' embeddings, so that the run answers without its text tower."""
    write_atomically(folder / "prompts.safetensors", save({"prompts_CD": prompts_CD.contiguous()}))


def load_prompts(folder: Path) -> Tensor:
    """What `save_prompts` wrote.

    Raises:
        RunError: it is missing or damaged.
    """
    return _load_tensors(folder / "prompts.safetensors")["prompts_CD"]


def clear(folder: Path) -> None:
    """Remove what an earlier run that saved no state may have left behind."""
    for name in ("hard_pairs.json", "log.jsonl", *{method.weights_file for method in _WITH_FILES}):
        (folder / name).unlink(missing_ok=True)
    for name in ("last", "answers", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def save_log(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write log.jsonl: one line per epoch or candidate."""
    write_atomically(folder / "log.jsonl", "".join(json.dumps(dict(entry)) + "\n" for entry in history))


def save_state(
    folder: Path,
    snapshot: Snapshot,
    history: Sequence[Mapping[str, Any]],
    seconds: float,
    *,
    weights_hash: str,
    hard_pairs: Mapping[str, Any] | None = None,
) -> None:
    """Write all that `fit` needs to continue from here; the state before it is kept beside it."""
    metadata = {
        "weights_hash": weights_hash,
        "seconds": repr(seconds),
        "history": json.dumps([dict(entry) for entry in history]),
        "values": json.dumps(snapshot.values),
        "hard_pairs": json.dumps(hard_pairs),
    }
    metadata["checksum"] = _checksum(snapshot.tensors, metadata)
    name = f"step-{snapshot.values['step']:08d}.safetensors"
    write_atomically(folder / "last" / name, save(snapshot.tensors, metadata))
    others = sorted(path for path in (folder / "last").glob("step-*.safetensors") if path.name != name)
    before = [path for path in others if path.name < name]
    for old in set(others) - set(before[-1:]):  # also any that claims to be newer: it was passed over
        old.unlink()


def load_state(folder: Path) -> SavedState | None:
    """The newest state that is whole, or None: a damaged one is passed over for the one before it."""
    for path in sorted((folder / "last").glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            if metadata.pop("checksum") == _checksum(tensors, metadata):
                return _saved_state(tensors, metadata)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError):
            continue
    return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as readable JSON, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def add_to_card(folder: Path, key: str, content: Mapping[str, Any]) -> None:
    """Add to the card of a finished run, or replace what it says there."""
    write_json(folder / "card.json", {**_read_json(folder / "card.json"), key: content})


def _saved_state(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> SavedState:
    return SavedState(
        snapshot=Snapshot(tensors=tensors, values=json.loads(metadata["values"])),
        weights_hash=metadata["weights_hash"],
        history=json.loads(metadata["history"]),
        seconds=float(metadata["seconds"]),
        hard_pairs=json.loads(metadata["hard_pairs"]),
    )


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (OSError, SafetensorError) as error:
        reason = "is missing" if not path.exists() else "is damaged"
        raise RunError(f"{path} {reason}", remedy="Train the run again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}", remedy="Train the run again.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is not what clip-har writes", remedy="Train the run again.")
    return content
