"""The formats of an export: what each refuses, and what it writes into a folder.

Where the folder goes, and the comparison with the run, is for the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.exporting import adapter_folder, open_clip_folder
from clip_har.exporting.certificate import Answers
from clip_har.exporting.image_model import image_classifier, require_exportable
from clip_har.exporting.onnx_file import OnnxAnswers, add_description, quantise, require_onnx, write_onnx
from clip_har.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Job:
    """What an export is made from."""

    run: Run
    backbone: Backbone
    """The run's, in float32 on the CPU."""
    model: str | None
    """Where the backbone is now, if not where the run's card says."""
    temperature: float
    description: Mapping[str, Any]
    folder: Path
    """Where the files go."""
    examples: Callable[[], Iterator[Tensor]]
    """Training images in batches [B, 3, H, W]."""
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Format:
    """One value of --format."""

    check: Callable[[Run], None]
    """Refuses runs that have no such form, before anything slow."""
    write: Callable[[Job], Answers | None]
    """Writes the files; what they answer, or None where they are copies of the run's own."""
    min_agreement: float = 0.999
    """Fraction of the images whose label must be the run's."""
    reads_training_images: bool = False
    compared: bool = True
    """Whether what is written can be compared with the run."""


def _check_onnx(run: Run) -> None:
    require_onnx()
    require_exportable(run)


def _write_onnx(job: Job) -> Answers:
    job.progress.note(f"Writing the graph of {job.run.card.method}")
    module = image_classifier(job.run, job.backbone, model=job.model, temperature=job.temperature)
    path = write_onnx(module, job.run.preprocessing.image_size, job.folder)
    add_description(path, job.description)
    return OnnxAnswers(path)


def _write_int8(job: Job) -> Answers:
    job.progress.note(f"Writing the graph of {job.run.card.method}")
    module = image_classifier(job.run, job.backbone, model=job.model, temperature=job.temperature)
    path = write_onnx(module, job.run.preprocessing.image_size, job.folder)
    job.progress.note("Quantising the image encoder")
    quantise(path, job.examples())
    add_description(path, job.description)
    return OnnxAnswers(path)


FORMATS: Mapping[str, Format] = {
    "onnx": Format(check=_check_onnx, write=_write_onnx),
    "onnx-int8": Format(check=_check_onnx, write=_write_int8, min_agreement=0.99, reads_training_images=True),
    "openclip": Format(
        check=open_clip_folder.require_model,
        write=lambda job: open_clip_folder.write(job.run, job.backbone, job.model, job.temperature, job.folder),
    ),
    "peft": Format(
        check=adapter_folder.require_adapter,
        write=lambda job: adapter_folder.write(job.run, job.folder),
        compared=False,
    ),
    "hub": Format(check=_check_onnx, write=_write_onnx),
}
