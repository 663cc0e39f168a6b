"""`export`: a run in the format of another tool, compared with the run on validation images and never on test.

What each format is, is in exporting/.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_har import checkpoint
from clip_har.backbone import Backbone
from clip_har.commands.outputs import require_outside_dataset
from clip_har.config import BackboneConfig, DataConfig, ExportConfig, validate
from clip_har.dataset.sources import locate
from clip_har.errors import ConfigError, DataError
from clip_har.evaluation.confidence import Calibration
from clip_har.experiment.predictions import stratified
from clip_har.experiment.setup import Experiment, prepare
from clip_har.exporting.certificate import CERTIFICATE, Certificate, certify, compare
from clip_har.exporting.description import describe, size_of
from clip_har.exporting.formats import FORMATS, Format, Job
from clip_har.exporting.model_card import model_card, push, test_metrics
from clip_har.exporting.placing import DESCRIPTION, place, require_free, staged
from clip_har.exporting.web_folder import PageParts, page_parts
from clip_har.images.batches import decode_batches
from clip_har.methods import LabelledImages
from clip_har.predict import AbstentionPolicy, recorded_calibration
from clip_har.progress import SILENT, Progress
from clip_har.run_backbone import load_run_backbone
from clip_har.run_model import RunModel

BATCH_SIZE = 16
OF_PAGES = ("coverage", "accuracy", "abstain_below", "reject_unknown", "web_runtime")
"""Settings of the formats that are a page."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of an export."""

    folder: Path
    files: tuple[str, ...]
    """Names in the folder; empty if nothing was written."""
    certificate: Certificate | None
    refusal: str | None = None
    """Why nothing was written, on a line."""
    address: str | None = None
    """Of the repository that it was uploaded to."""

    def to_json(self) -> dict[str, Any]:
        found = {"folder": str(self.folder), "files": list(self.files)}
        return found | {"certificate": None if self.certificate is None else self.certificate.to_json()}


def export(run_folder: Path, config: ExportConfig, *, progress: Progress = SILENT) -> Exported:
    """Write a run in another format.

    Returns:
        What was written; nothing if its labels differ from the run's too often.

    Raises:
        UserError: the run, the format, the data or the folder cannot be used.
    """
    validate(config)
    run, form = checkpoint.load_run(run_folder), FORMATS[config.format]
    form.check(run)
    _check_places(run, config)
    page = _page(run, config, progress) if form.is_page else None
    compared = config.certificate and form.compared
    data = _data(run, config) if compared or form.reads_training_images else None
    with staged(config.out) as stage:
        experiment = None if data is None else _prepared(run, config, data, progress)
        certificate = _write(run, config, form, experiment if compared else None, stage, experiment, page, progress)
        if certificate is not None and not certificate.passed:
            return Exported(folder=config.out, files=(), certificate=certificate, refusal=_refusal(certificate, config))
        files = tuple(sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()))
        place(stage, config.out)
    address = None if config.push is None else push(config.out, files, config.push)
    return Exported(folder=config.out, files=files, certificate=certificate, address=address)


def _check_places(run: checkpoint.Run, config: ExportConfig) -> None:
    if config.push is not None and config.format != "hub":
        raise ConfigError(f"--push requires --format hub, not {config.format}", remedy="Remove it, or change --format.")
    given = [name for name in OF_PAGES if getattr(config, name) is not None]
    if given and not FORMATS[config.format].is_page:
        flag = f"--{given[0].replace('_', '-')}"
        raise ConfigError(f"{flag} requires --format web, not {config.format}", remedy="Remove it, or change --format.")
    require_free(config.out, run, force=config.force)
    if config.data is not None:
        require_outside_dataset(config.data, out=config.out)


def _page(run: checkpoint.Run, config: ExportConfig, progress: Progress) -> PageParts:
    return page_parts(run, AbstentionPolicy.of(config), config.web_runtime, config.cache, progress)


def _write(
    run: checkpoint.Run,
    config: ExportConfig,
    form: Format,
    compared: Experiment | None,
    stage: Path,
    experiment: Experiment | None,
    page: PageParts | None,
    progress: Progress,
) -> Certificate | None:
    """Fill the folder; the certificate, if there are images to compare on."""
    calibration = recorded_calibration(run)
    if calibration is None:
        progress.warn(f"{run.folder} has no calibration data: probabilities are not calibrated")
    backbone = _backbone(run, config, experiment)
    description = describe(run, config.format)
    job = Job(
        run=run,
        backbone=backbone,
        model=config.model,
        temperature=1.0 if calibration is None else calibration.temperature,
        description=description,
        folder=stage,
        examples=lambda: _examples(experiment, config.calibration_images),
        progress=progress,
        page=page,
    )
    answers = form.write(job)
    names = [path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file()]
    certificate = None
    if compared is not None and answers is not None:
        minimum = form.min_agreement if config.min_agreement is None else config.min_agreement
        certificate = _certificate(job, answers, compared, calibration, minimum, size_of(stage, names))
        checkpoint.write_json(stage / CERTIFICATE, certificate.to_json())
        names.append(CERTIFICATE)
    else:
        progress.warn(
            "The files are copies of the run's, compared by checksum; no certificate.json is written"
            if not form.compared
            else "The export was not compared with the run (--no-certificate): its predictions may differ"
        )
    if config.format == "hub":
        text = model_card(run, certificate, test_metrics(run))
        (stage / "README.md").write_text(text, encoding="utf-8")
        names.append("README.md")
    top = sorted({name.partition("/")[0] for name in names})
    checkpoint.write_json(stage / DESCRIPTION, {**description, "files": top})
    return certificate


def _backbone(run: checkpoint.Run, config: ExportConfig, experiment: Experiment | None) -> Backbone:
    if experiment is not None:
        return experiment.model.backbone
    return load_run_backbone(run, model=config.model, device="cpu", precision="float32")


def _data(run: checkpoint.Run, config: ExportConfig) -> Path:
    """The dataset: the one given, else the run's own, if it is still there."""
    if config.data is not None:
        return config.data
    named = Path(run.card.data)
    with contextlib.suppress(DataError):  # a dataset called by a name that was not fetched
        if run.card.data and locate(named).exists():
            return named
    remedy = "Pass it with --data"
    remedy += (
        "." if FORMATS[config.format].reads_training_images else ", or --no-certificate to export without a comparison."
    )
    raise DataError(f"The dataset of {run.folder} ({run.card.data or 'unknown'}) was not found", remedy=remedy)


def _prepared(run: checkpoint.Run, config: ExportConfig, data: Path, progress: Progress) -> Experiment:
    """The dataset with the run's splits, its validation images encoded, and the run's model in float32 on the CPU."""
    backbone = BackboneConfig(
        model=config.model, device="cpu", precision="float32", workers=config.workers, cache=config.cache
    )
    experiment = prepare(
        DataConfig(data=data),
        backbone,
        out=run.folder / "eval",
        progress=progress,
        run=run,
        for_training=False,
        encoded=("val",),
    )
    if config.certificate and not experiment.dataset.counts()["val"]:
        raise DataError(f"{data} has no validation images", remedy="Pass another dataset with --data.")
    return experiment


def _examples(experiment: Experiment | None, count: int) -> Iterator[Tensor]:
    """A stratified sample of the training images that can be read, preprocessed."""
    assert experiment is not None
    dataset, preprocessing = experiment.dataset, experiment.model.backbone.info.preprocessing
    records = dataset.split("train")
    if not records:
        raise DataError(f"{dataset.root} has no training images", remedy="Pass another dataset with --data.")
    chosen = stratified(torch.from_numpy(dataset.targets("train")), count, seed=0)
    paths = [records[index].path for index in chosen]
    for batch in decode_batches(
        paths, preprocessing.pixel_transform(), batch_size=BATCH_SIZE, workers=experiment.model.store.workers
    ):
        if len(batch.images_BCHW):
            yield preprocessing.normalise(batch.images_BCHW)


def _certificate(
    job: Job, answers: Any, experiment: Experiment, calibration: Calibration | None, minimum: float, size: int
) -> Certificate:
    images = experiment.images("val")
    model = RunModel(job.run, job.backbone, model=job.model)
    fitted = job.run.out_of_fold()  # of the images that a run was fitted on after cross-validation

    def original(images_BCHW: Tensor) -> Tensor:
        probabilities_BC = torch.stack([scores.probabilities_C for scores in model.scores(images_BCHW)])
        if calibration is None:
            return probabilities_BC
        return torch.from_numpy(calibration.confidence(probabilities_BC.numpy()))

    with job.progress.bar("Comparing", total=len(images), unit="images") as bar:
        found = compare(_batches(images), original, answers, bar.advance)
    return certify(
        found,
        calibration,
        data=experiment.dataset.root.name,
        fitted_on_images=fitted is not None and not set(images.table.hashes).isdisjoint(fitted.hashes),
        min_agreement=minimum,
        size=size,
    )


def _batches(images: LabelledImages) -> Iterator[tuple[Tensor, Tensor]]:
    assert images.files is not None
    for indices, images_BCHW in images.files.evaluation_batches(range(len(images)), batch_size=BATCH_SIZE):
        yield images_BCHW, images.labels_N[indices]


def _refusal(certificate: Certificate, config: ExportConfig) -> str:
    exact = "web" if FORMATS[config.format].is_page else "onnx"
    return (
        f"{certificate.agreement:.2%} of {certificate.images:,} validation images get the run's label, below "
        f"--min-agreement {certificate.min_agreement:g}: {config.out} was not written. "
        f"Use --format {exact}, or accept the difference with a lower --min-agreement."
    )
