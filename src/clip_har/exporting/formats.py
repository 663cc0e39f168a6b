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
from clip_har.exporting import adapter_folder, open_clip_folder, transformers_folder, web_folder
from clip_har.exporting.certificate import Answers
from clip_har.exporting.image_model import ImageClassifier, image_classifier, require_exportable
from clip_har.exporting.int8 import quantise
from clip_har.exporting.onnx_file import OnnxAnswers, add_description, require_onnx, write_onnx
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
    page: web_folder.PageParts | None = None
    """For the formats that are a page."""


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
    is_page: bool = False
    """Whether it is a page, for which `Job.page` must be found."""


def _check_onnx(run: Run) -> None:
    require_onnx()
    require_exportable(run)


def _write_onnx(job: Job) -> Answers:
    return _write_graph(job, quantised=False)


def _write_int8(job: Job) -> Answers:
    return _write_graph(job, quantised=True)


def _write_web(job: Job) -> Answers:
    return _write_page(job, quantised=False)


def _write_web_int8(job: Job) -> Answers:
    return _write_page(job, quantised=True)


def _write_page(job: Job, *, quantised: bool) -> Answers:
    assert job.page is not None
    answers = _write_graph(job, quantised=quantised, check=web_folder.require_small)
    web_folder.write(job.run, job.page, job.folder)
    return answers


def _write_graph(job: Job, *, quantised: bool, check: Callable[[ImageClassifier], None] = lambda _: None) -> Answers:
    module = image_classifier(job.run, job.backbone, model=job.model, temperature=job.temperature)
    check(module)
    job.progress.note(f"Writing the graph of {job.run.card.method}")
    path = write_onnx(module, job.run.preprocessing.image_size, job.folder)
    if quantised:
        job.progress.note("Quantising the image encoder")
        job.progress.note(str(quantise(path, job.examples())))
    add_description(path, job.description)
    return OnnxAnswers(path)


FORMATS: Mapping[str, Format] = {
    "onnx": Format(check=_check_onnx, write=_write_onnx),
    "onnx-int8": Format(check=_check_onnx, write=_write_int8, min_agreement=0.99, reads_training_images=True),
    "openclip": Format(
        check=open_clip_folder.require_model,
        write=lambda job: open_clip_folder.write(job.run, job.backbone, job.model, job.temperature, job.folder),
    ),
    "transformers": Format(
        check=transformers_folder.require_form,
        write=lambda job: transformers_folder.write(job.run, job.backbone, job.model, job.temperature, job.folder),
    ),
    "peft": Format(
        check=adapter_folder.require_adapter,
        write=lambda job: adapter_folder.write(job.run, job.folder),
        compared=False,
    ),
    "hub": Format(check=_check_onnx, write=_write_onnx),
    "web": Format(check=_check_onnx, write=_write_web, is_page=True),
    "web-int8": Format(
        check=_check_onnx, write=_write_web_int8, min_agreement=0.99, reads_training_images=True, is_page=True
    ),
}
