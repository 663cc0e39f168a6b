"""RUN/last/: the newest training states and the best weights so far, for --resume. A damaged one is never used.

A state names the best weights at its time by their SHA-256, so that a run cannot finish with others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from clip_har.errors import RunError
from clip_har.integrity import file_sha256
from clip_har.methods import Classifier, Method
from clip_har.protocol import Protocol
from clip_har.tensor_files import tensor_bytes, write_hashed_tensors, write_tensors
from clip_har.trainer import Snapshot


@dataclass(frozen=True, kw_only=True)
class BestWeights:
    """The weights that were best on validation when a state was saved."""

    file: str
    """Their name in last/."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training began with, as hashes; continuing with anything else would be another training."""

    weights: str
    """Of the backbone."""
    manifest: str
    prompts: str
    """Of their embeddings."""
    parents: str = ""
    """Of the runs that it builds on, in their order; empty without any, and in a state of an earlier version."""

    @property
    def protocol(self) -> Protocol:
        """The same, to compare; a state of an earlier version lacks some of it."""
        return Protocol(model=self.weights, images=self.manifest or None, prompts=self.prompts or None)


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """A training between two steps, as `save_state` wrote it."""

    snapshot: Snapshot
    start: Start
    best: BestWeights | None
    """None before the first validation; and in a state of an earlier version, which did not record them."""
    history: list[dict[str, Any]]
    seconds: float
    """Time of the training's finished epochs."""
    hard_pairs: dict[str, Any] | None
    """The mined pairs that the current epoch is composed of."""

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.snapshot.values["epoch"])


def prompts_sha256(prompts_CD: Tensor) -> str:
    """SHA-256 of the class embeddings' values in hex."""
    return hashlib.sha256(prompts_CD.contiguous().numpy().tobytes()).hexdigest()


def save_best(folder: Path, method: Method, classifier: Classifier, step: int) -> BestWeights | None:
    """Write the best weights so far next to those of the saved states; None where there is nothing to save."""
    tensors = method.tensors(classifier)
    if not tensors:
        return None
    file = f"best-{step:08d}.safetensors"
    return BestWeights(file=file, sha256=write_hashed_tensors(folder / "last" / file, tensors, {"format": "pt"}))


def place_best(folder: Path, method: Method, best: BestWeights | None) -> None:
    """Give the best weights their place in the finished run, and read them back.

    Raises:
        RunError: what is read back is not what was trained.
    """
    if best is None:
        return
    source, target = folder / "last" / best.file, folder / method.weights_file
    if source.exists():
        source.replace(target)
    if not _has(target, best.sha256):
        raise RunError(
            f"{target} cannot be read back unchanged",
            remedy="Check the disk, then train again into another --out.",
        )


def save_state(
    folder: Path,
    snapshot: Snapshot,
    history: Sequence[Mapping[str, Any]],
    seconds: float,
    *,
    start: Start,
    best: BestWeights | None = None,
    hard_pairs: Mapping[str, Any] | None = None,
) -> None:
    """Write all that `fit` needs to continue from here; the state before it is kept next to it."""
    metadata = {
        "weights_hash": start.weights,
        "start": json.dumps({"manifest": start.manifest, "prompts": start.prompts, "parents": start.parents}),
        "best": json.dumps(None if best is None else {"file": best.file, "sha256": best.sha256}),
        "seconds": repr(seconds),
        "history": json.dumps([dict(entry) for entry in history]),
        "values": json.dumps(snapshot.values),
        "hard_pairs": json.dumps(hard_pairs),
    }
    metadata["checksum"] = _checksum(snapshot.tensors, metadata)
    name = f"step-{snapshot.values['step']:08d}.safetensors"
    write_tensors(folder / "last" / name, snapshot.tensors, metadata)
    others = sorted(path for path in (folder / "last").glob("step-*.safetensors") if path.name != name)
    before = [path for path in others if path.name < name]
    for old in set(others) - set(before[-1:]):  # also any that claims to be newer: it was passed over
        old.unlink()
    wanted = {best.file if best else None, *(_best_of(path) for path in before[-1:])}
    for path in (folder / "last").glob("best-*.safetensors"):
        if path.name not in wanted:
            path.unlink()


def load_state(
    folder: Path, method: Method | None = None, *, warn: Callable[[str], None] = lambda _text: None
) -> SavedState | None:
    """The newest state that is whole and whose best weights are; None where there is none.

    Args:
        method: whose weights' file the best weights may have become already.
        warn: told of each state that is passed over, and if none is left.
    """
    paths = sorted((folder / "last").glob("step-*.safetensors"), reverse=True)
    for path in paths:
        state = _read_state(path)
        if state is None:
            warn(f"{path} is damaged and is ignored")
        elif not _best_is_whole(folder, state.best, method):
            warn(f"{path} is ignored: the best weights it refers to are missing or damaged")
        else:
            return state
    if paths:
        warn(f"No saved state in {folder / 'last'} can be used: training restarts from the beginning")
    return None


def _read_state(path: Path) -> SavedState | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata.pop("checksum") == _checksum(tensors, metadata):
            return _saved_state(tensors, metadata)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _saved_state(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> SavedState:
    start = json.loads(metadata.get("start", "{}"))  # a state of an earlier version recorded neither of these
    best = json.loads(metadata.get("best", "null"))
    if best is not None and not re.fullmatch(r"best-\d+\.safetensors", best["file"]):
        raise ValueError("a path outside the run folder")
    return SavedState(
        snapshot=Snapshot(tensors=tensors, values=json.loads(metadata["values"])),
        start=Start(
            weights=metadata["weights_hash"],
            manifest=start.get("manifest", ""),
            prompts=start.get("prompts", ""),
            parents=start.get("parents", ""),
        ),
        best=None if best is None else BestWeights(**best),
        history=json.loads(metadata["history"]),
        seconds=float(metadata["seconds"]),
        hard_pairs=json.loads(metadata["hard_pairs"]),
    )


def _best_is_whole(folder: Path, best: BestWeights | None, method: Method | None) -> bool:
    if best is None:
        return True
    placed = [] if method is None else [folder / method.weights_file]
    return any(_has(path, best.sha256) for path in (folder / "last" / best.file, *placed))


def _best_of(state: Path) -> str | None:
    """The file of the best weights that a state names."""
    try:
        with safe_open(state, framework="pt") as file:
            best = json.loads(file.metadata().get("best", "null"))
        return None if best is None else str(best["file"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        return None


def _has(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(dict(metadata), sort_keys=True).encode(), digest_size=16)
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
