"""RUN/out_of_fold.safetensors: what cross-validation answered for the images that the run was then fitted on.

These answers stand for the run's own wherever its accuracy or confidence on those images is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clip_har.errors import RunError
from clip_har.files import write_atomically
from clip_har.methods import OutOfFold

OUT_OF_FOLD_FILE = "out_of_fold.safetensors"


def save_out_of_fold(folder: Path, found: OutOfFold) -> None:
    """Write the answers into a run folder."""
    tensors = {"labels_N": found.labels_N.contiguous(), "probabilities_NC": found.probabilities_NC.contiguous()}
    write_atomically(folder / OUT_OF_FOLD_FILE, save(tensors, {"sha256": json.dumps(found.hashes)}))


def load_out_of_fold(folder: Path, classes: int) -> OutOfFold:
    """The answers in a run folder, for so many classes.

    Raises:
        RunError: they are missing, damaged or of other classes.
    """
    path = folder / OUT_OF_FOLD_FILE
    try:
        with safe_open(path, framework="pt") as file:
            hashes = tuple(json.loads(file.metadata()["sha256"]))
            labels_N, probabilities_NC = file.get_tensor("labels_N"), file.get_tensor("probabilities_NC")
        if not _is_whole(hashes, labels_N, probabilities_NC, classes):
            raise ValueError
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = "is damaged" if path.exists() else "is missing"
        raise RunError(f"{path} {reason}", remedy="Train the run again.") from error
    return OutOfFold(hashes=hashes, labels_N=labels_N, probabilities_NC=probabilities_NC)


def _is_whole(hashes: tuple[Any, ...], labels_N: Tensor, probabilities_NC: Tensor, classes: int) -> bool:
    return (
        all(isinstance(sha256, str) for sha256 in hashes)
        and not labels_N.is_floating_point()
        and labels_N.shape == (len(hashes),)
        and probabilities_NC.shape == (len(hashes), classes)
        and bool(((labels_N >= 0) & (labels_N < classes)).all())
        and bool(probabilities_NC.isfinite().all())
    )
