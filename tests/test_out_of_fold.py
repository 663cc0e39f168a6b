"""RUN/out_of_fold.safetensors: what is written is read, and nothing that cannot be meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clip_har.errors import RunError
from clip_har.methods import OutOfFold
from clip_har.out_of_fold import OUT_OF_FOLD_FILE, load_out_of_fold, save_out_of_fold

LABELS_N = torch.tensor([0, 2, 1])
PROBABILITIES_NC = torch.full((3, 3), 1 / 3)


def test_the_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_out_of_fold(tmp_path, OutOfFold(hashes=("a", "b", "c"), labels_N=LABELS_N, probabilities_NC=PROBABILITIES_NC))
    found = load_out_of_fold(tmp_path, 3)
    assert found.hashes == ("a", "b", "c")
    assert torch.equal(found.labels_N, LABELS_N) and torch.equal(found.probabilities_NC, PROBABILITIES_NC)
    with pytest.raises(RunError, match="is damaged"):
        load_out_of_fold(tmp_path, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(hashes=[["a"], ["b"], ["c"]]),
        lambda found: found.update(hashes=["a", "b"]),
        lambda found: found.update(hashes=7),
        lambda found: found.update(labels_N=LABELS_N + 1),
        lambda found: found.update(labels_N=LABELS_N - 1),
        lambda found: found.update(labels_N=LABELS_N.float()),
        lambda found: found.update(labels_N=LABELS_N[:, None]),
        lambda found: found.update(probabilities_NC=PROBABILITIES_NC * float("nan")),
        lambda found: found.update(probabilities_NC=PROBABILITIES_NC[:, :, None]),
        lambda found: found.update(probabilities_NC=PROBABILITIES_NC[:, :2].contiguous()),
    ],
)
def test_what_cannot_be_meant_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    found: dict[str, Any] = {"hashes": ["a", "b", "c"], "labels_N": LABELS_N, "probabilities_NC": PROBABILITIES_NC}
    change(found)
    hashes = found.pop("hashes")
    save_file(found, tmp_path / OUT_OF_FOLD_FILE, {"sha256": json.dumps(hashes)})
    with pytest.raises(RunError, match="is damaged"):
        load_out_of_fold(tmp_path, 3)
