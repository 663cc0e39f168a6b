"""What an export's answers are worth next to the run's own, on images; written as certificate.json.

Which images these are is for the command to say.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_har.evaluation.confidence import SHOWN_LEVELS, Calibration
from clip_har.evaluation.metrics import expected_calibration_error
from clip_har.evaluation.records import FloatArray, IntArray

CERTIFICATE = "certificate.json"
Answers = Callable[[Tensor], Tensor]
"""Preprocessed images [B, 3, H, W] -> calibrated probabilities [B, C] on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good one model's answers are."""

    accuracy: float
    """Fraction of the images whose most likely class is their own."""
    ece: float
    """Expected calibration error of the calibrated confidence."""
    coverage: dict[str, float] | None
    """Stated coverage of prediction sets -> the fraction of images whose set contains their class. None: the run has no
    calibration data."""
    images_per_second: float | None
    """Image encoder and classifier on preprocessed images, without the first batch; None with a single batch."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """An export compared with its run on the same images."""

    images: int
    data: str
    """The dataset, of which the validation images are taken."""
    fitted_on_images: bool
    """Whether the run was fitted on these images too: accuracy and agreement are then higher than on new ones."""
    agreement: float
    """Fraction of the images with the same most likely class."""
    min_agreement: float
    """What was asked for."""
    largest_probability_difference: float
    """Of any class of any image, after calibration."""
    original: Quality
    """The run in torch, in float32 on the CPU."""
    export: Quality
    bytes: int
    """Size of the exported model's files."""
    threads: int
    """Of the CPU that both used."""

    @property
    def passed(self) -> bool:
        return self.agreement >= self.min_agreement

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Both models' answers for the same images, and how long they took."""

    original_NC: FloatArray
    export_NC: FloatArray
    targets_N: IntArray
    original_seconds: float
    export_seconds: float
    timed: int
    """Images of the batches that were timed."""


def compare(
    batches: Iterable[tuple[Tensor, Tensor]], original: Answers, export: Answers, advance: Callable[[int], None]
) -> Compared:
    """Run both models on the same batches, in turn first and second; the first batch is not timed.

    Args:
        batches: images [B, 3, H, W] and their class indices [B].
        advance: told the number of images after each batch.
    """
    answers: tuple[list[Tensor], list[Tensor]] = ([], [])
    labels, seconds, timed = [], [0.0, 0.0], 0
    for number, (images_BCHW, labels_B) in enumerate(batches):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            answers[which].append((original, export)[which](images_BCHW))
            seconds[which] += (time.perf_counter() - start) * (number > 0)
        labels.append(labels_B)
        timed += len(labels_B) * (number > 0)
        advance(len(labels_B))
    return Compared(
        original_NC=torch.cat(answers[0]).double().numpy(),
        export_NC=torch.cat(answers[1]).double().numpy(),
        targets_N=torch.cat(labels).numpy(),
        original_seconds=seconds[0],
        export_seconds=seconds[1],
        timed=timed,
    )


def certify(
    found: Compared,
    calibration: Calibration | None,
    *,
    data: str,
    fitted_on_images: bool,
    min_agreement: float,
    size: int,
) -> Certificate:
    """The certificate of a comparison."""
    original_N, export_N = found.original_NC.argmax(axis=1), found.export_NC.argmax(axis=1)
    return Certificate(
        images=len(found.targets_N),
        data=data,
        fitted_on_images=fitted_on_images,
        agreement=float((original_N == export_N).mean()),
        min_agreement=min_agreement,
        largest_probability_difference=float(np.abs(found.original_NC - found.export_NC).max()),
        original=_quality(found.original_NC, found, calibration, found.original_seconds),
        export=_quality(found.export_NC, found, calibration, found.export_seconds),
        bytes=size,
        threads=torch.get_num_threads(),
    )


def _quality(probabilities_NC: FloatArray, found: Compared, calibration: Calibration | None, seconds: float) -> Quality:
    right_N = probabilities_NC.argmax(axis=1) == found.targets_N
    coverage = None
    if calibration is not None:
        own_N = probabilities_NC[np.arange(len(right_N)), found.targets_N]
        coverage = {str(level): float((1 - own_N <= calibration.set_threshold(level)).mean()) for level in SHOWN_LEVELS}
    return Quality(
        accuracy=float(right_N.mean()),
        ece=expected_calibration_error(probabilities_NC.max(axis=1), right_N),
        coverage=coverage,
        images_per_second=found.timed / seconds if found.timed else None,
    )
