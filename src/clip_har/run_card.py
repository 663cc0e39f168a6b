"""card.json: what a finished run is, sealed, with the SHA-256 of its files. Reads format 1, which had neither.

What the entries mean is for checkpoint.py and experiment/.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from clip_har.errors import RunError
from clip_har.files import write_atomically
from clip_har.integrity import SEAL_KEY, file_sha256, is_sealed, seal_holds, sealed

FORMAT_VERSION = 2
CARD_NAME = "card.json"
_FIRST_SEALED_VERSION = 2
RESTORE = "Restore it from a copy, or train the run again."
"""What to do about a file of a run that is missing or damaged."""


@dataclass(frozen=True, kw_only=True)
class ModelOfRun:
    """The pretrained model that a run was trained on."""

    name: str
    weights_hash: str
    logit_scale: float
    """The factor on cosine similarities."""
    activation: str = ""
    embed_dim: int = 0
    parameters: int = 0
    logit_bias: float | None = None
    projection: str | None = None
    chain: tuple[str, ...] = ()
    files_sha256: str = ""
    """See `backbone.BackboneInfo`; runs of early versions have none."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The checkpoint that a run was made from by `clip-har import`."""

    file: str
    sha256: str
    epoch: int | None = None
    train_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What card.json says of a finished run; the fields are its keys, in its order."""

    format_version: int = FORMAT_VERSION
    package_version: str = ""
    method: str
    preset: str | None = None
    source: str = ""
    """The method's paper."""
    backbone: ModelOfRun
    classes: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    """Classes that were kept out of training."""
    templates: tuple[str, ...]
    phrasing: Mapping[str, str] | None = None
    """Class, those held out included -> what stands for it in the templates. None: the words of its name."""
    sentences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Class -> its prompts."""
    preprocessing: Mapping[str, Any]
    """As `Preprocessing.to_json` writes it."""
    precision: str = ""
    """Of the image encoder when the run was trained."""
    settings: Mapping[str, Any]
    """Flat, as the version that trained the run knew them."""
    seed: int
    data: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Split -> its images."""
    manifest_sha256: str = ""
    unreadable: int = 0
    trainable_params: int
    trainable_fraction: float = 0.0
    encode_seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """Figures on the validation images of the weights that were kept; empty without such images."""
    processes: int = 1
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    imported: Imported | None = None
    command: str = ""
    confidence: Mapping[str, Any] | None = None
    """As `Calibration.to_json` writes it."""
    unknown: Mapping[str, Any] | None = None
    """Thresholds for unknown actions, and how they did on held-out classes, as `experiment.unknown` writes it."""
    files: Mapping[str, str] | None = None
    """File of the run -> its SHA-256. None before format 2."""

    def to_json(self) -> dict[str, Any]:
        """The card as JSON holds it; what does not apply is omitted."""
        content = dataclasses.asdict(self)
        return {key: value for key, value in content.items() if value not in (None, {}) or key in _ALWAYS_WRITTEN}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunCard:
        """The card that JSON holds, of the present format or an earlier one.

        Raises:
            ValueError: naming the entries that are missing, unknown or cannot be meant.
        """
        unknown = sorted(content.keys() - _KINDS.keys())
        required = {each.name for each in dataclasses.fields(cls) if each.default is MISSING is each.default_factory}
        wrong = [
            key
            for key, fits in _KINDS.items()
            if (key in required or content.get(key) is not None) and not (key in content and fits(content[key]))
        ]
        problems = [
            f"{', '.join(names)} {said}"
            for names, said in ((wrong, "missing or invalid"), (unknown, "unknown"))
            if names
        ]
        if problems:
            raise ValueError("; ".join(problems))
        given = {key: value for key, value in content.items() if value is not None}
        for key in ("classes", "held_out", "templates"):
            given[key] = tuple(given.get(key, ()))
        model = {key: value for key, value in given["backbone"].items() if key in _MODEL_KINDS}
        given["backbone"] = ModelOfRun(**model | {"chain": tuple(model.get("chain", ()))})
        if "imported" in given:
            given["imported"] = Imported(**given["imported"])
        return cls(**given)


def write_card(folder: Path, card: RunCard, files: Iterable[str]) -> None:
    """Write card.json with the SHA-256 of the run's files, as they are read back now, and its seal.

    Args:
        files: names in the folder; those that do not exist are skipped.

    Raises:
        OSError: a file cannot be read, or the card cannot be written.
    """
    recorded = {name: file_sha256(folder / name) for name in sorted(files) if (folder / name).is_file()}
    _write(folder, dataclasses.replace(card, files=recorded))


def read_card(folder: Path) -> RunCard:
    """The run's card, checked: its seal, its version, and the type of every entry.

    Raises:
        RunError: it is missing, damaged, not a card, or from a later version.
    """
    path = folder / CARD_NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", remedy=RESTORE) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it is not valid JSON", remedy=RESTORE) from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is not the card of a run", remedy=RESTORE)
    version: Any = content.get("format_version")
    if _is_count(version) and version > FORMAT_VERSION:
        raise RunError(
            f"{folder} was written by clip-har {content.get('package_version', 'of a later version')}",
            remedy="Install that version or a later one.",
        )
    try:
        card = RunCard.from_json({key: value for key, value in content.items() if key != SEAL_KEY})
    except ValueError as error:
        raise RunError(f"{path} is not the card of a run: {error}", remedy=RESTORE) from error
    needs_seal = card.format_version >= _FIRST_SEALED_VERSION
    if (needs_seal or is_sealed(content)) and not seal_holds(content):
        raise RunError(f"{path} was changed after the run was trained (its checksum does not match)", remedy=RESTORE)
    return card


def add_to_card(folder: Path, **entries: Any) -> None:
    """Set fields on the card of a finished run.

    Raises:
        RunError: the card is damaged.
        OSError: it cannot be written.
    """
    _write(folder, dataclasses.replace(read_card(folder), **entries))


def check_files(folder: Path, card: RunCard, names: Iterable[str] | None = None) -> None:
    """Compare files with the checksums on the card; a run without checksums passes.

    Args:
        names: files to check; those the card does not record pass. By default all that it records.

    Raises:
        RunError: naming the first file that is missing or is not what the run wrote.
    """
    recorded = card.files or {}
    for name in recorded if names is None else names:
        if name not in recorded:
            continue
        path = folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            reason = "is missing" if not path.exists() else f"cannot be read: {error.strerror}"
            raise RunError(f"{path} {reason}", remedy=RESTORE) from error
        if found != recorded[name]:
            raise RunError(
                f"{path} is damaged or was changed after the run was trained (its checksum does not match)",
                remedy=RESTORE,
            )


def _write(folder: Path, card: RunCard) -> None:
    text = json.dumps(sealed(card.to_json()), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / CARD_NAME, text)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _maps_to(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _is_model(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"name", "weights_hash", "logit_scale"} <= value.keys()
        and all(fits(value[key]) for key, fits in _MODEL_KINDS.items() if key in value)
    )


def _is_imported(value: Any) -> bool:
    return isinstance(value, dict) and {"file", "sha256"} <= value.keys() <= {"file", "sha256", "epoch", "train_loss"}


def _is_files(value: Any) -> bool:
    """Plain names with their hashes: a name with a separator would let a card ask about files elsewhere."""
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9_.-]+", name) and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        for name, sha256 in value.items()
    )


_MODEL_KINDS: dict[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "weights_hash": _is_text,
    "logit_scale": _is_number,
    "activation": _is_text,
    "embed_dim": _is_count,
    "parameters": _is_count,
    "logit_bias": lambda value: value is None or _is_number(value),
    "projection": lambda value: value is None or _is_text(value),
    "chain": _is_texts,
    "files_sha256": _is_text,
}
_KINDS: dict[str, Callable[[Any], bool]] = {
    "format_version": _is_count,
    "package_version": _is_text,
    "method": _is_text,
    "preset": _is_text,
    "source": _is_text,
    "backbone": _is_model,
    "classes": lambda value: _is_texts(value) and len(value) == len(set(value)) > 0,
    "held_out": _is_texts,
    "templates": lambda value: _is_texts(value) and len(value) > 0,
    "phrasing": _maps_to(_is_text),
    "sentences": _maps_to(_is_texts),
    "preprocessing": _is_object,
    "precision": _is_text,
    "settings": _is_object,
    "seed": _is_count,
    "data": _is_text,
    "splits": _maps_to(_is_count),
    "manifest_sha256": _is_text,
    "unreadable": _is_count,
    "trainable_params": _is_count,
    "trainable_fraction": _is_number,
    "encode_seconds": _is_number,
    "versions": _maps_to(_is_text),
    "validation": _is_object,
    "processes": _is_count,
    "train_seconds": _is_number,
    "peak_memory_bytes": _is_count,
    "imported": _is_imported,
    "command": _is_text,
    "confidence": _is_object,
    "unknown": _is_object,
    "files": _is_files,
}
"""Entry -> whether a value can be meant."""
_ALWAYS_WRITTEN = frozenset({"preset", "preprocessing", "settings", "peak_memory_bytes"})
