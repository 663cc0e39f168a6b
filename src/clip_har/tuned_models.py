"""A run's folder in place of a model's name: its fine-tuned encoders become a model that other runs start from."""

from __future__ import annotations

import contextlib
from pathlib import Path

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run, load_run
from clip_har.config import Precision
from clip_har.errors import RunError
from clip_har.fusion import SEPARATOR, part_names
from clip_har.integrity import DamagedError, file_sha256, read_sealed_json, write_sealed_json
from clip_har.known_models import load_named
from clip_har.pretrained import absolute, at_size, require_one_meaning, split_image_size
from clip_har.pretrained.tuned import DESCRIPTION, WEIGHTS, Base, write_tuned

FOLDER = "tuned_model"
"""In the run's folder."""
_SEAL = "of_run.json"
"""Which weights of the run the folder was made of, and the checksums of what was made."""


def load_given(name: str, *, device: str, precision: Precision, local_only: bool = False) -> Backbone:
    """Load a model that the user has named: as `known_models.load_named`, or the encoders of a finished run.

    Raises:
        ModelError: as for `load_named`.
        RunError: a run that has changed no encoder, or is damaged.
    """
    models = SEPARATOR.join(map(model_of, part_names(name)))
    return load_named(models, device=device, precision=precision, local_only=local_only)


def model_of(name: str) -> str:
    """The name of the model that a run's folder stands for, made if need be; any other name as it is.

    Raises:
        ModelError: a size is also a part of a path that exists.
        RunError: as for `load_given`.
    """
    require_one_meaning(name)
    folder = folder_of(name)
    if folder is None or not (folder / "card.json").is_file():
        return name
    run = load_run(folder)
    place = run.folder / FOLDER
    if not _is_of(place, run):
        _write(place, run)
    return at_size(f"local-dir:{place}", split_image_size(name)[1])


def folder_of(name: str) -> Path | None:
    """The folder that a model's name means, at any image size; None if it means something else."""
    kind, _, path = split_image_size(absolute(name))[0].partition(":")
    return Path(path) if kind == "local-dir" else None


def _write(place: Path, run: Run) -> None:
    classifier = run.classifier()
    state = run.method.model_state(classifier)
    if state is None:
        raise RunError(
            f"{run.folder} is a run of {run.card.method}, which cannot serve as a model: it changes no encoder that "
            "still gives embeddings",
            remedy=f"Pass the model it was trained on: --model {run.card.backbone.name}",
        )
    trained = run.card.backbone
    chain = (f"{run.card.method} ({run.weights_sha256()[:12]})", *(trained.chain or (trained.name,)))
    try:
        with contextlib.suppress(FileNotFoundError):
            (place / DESCRIPTION).unlink()
        write_tuned(place, Base(name=trained.name, files_sha256=trained.files_sha256, chain=chain), state)
        write_sealed_json(place / _SEAL, _seal(place, run))
    except OSError as error:
        raise RunError(
            f"{place} cannot be written: {error.strerror}", remedy="Copy the run to a folder that can."
        ) from error


def _is_of(place: Path, run: Run) -> bool:
    """Whether the folder holds what was made of this very run, undamaged."""
    try:
        return read_sealed_json(place / _SEAL) == _seal(place, run)
    except (OSError, DamagedError):
        return False


def _seal(place: Path, run: Run) -> dict[str, str]:
    return {
        "run_weights": run.weights_sha256(),
        DESCRIPTION: file_sha256(place / DESCRIPTION),
        WEIGHTS: file_sha256(place / WEIGHTS),
    }
