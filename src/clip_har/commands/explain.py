"""`explain`: why a run answers as it does, for images that are named or for the most informative ones of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from clip_har import checkpoint, report
from clip_har.config import BackboneConfig, DataConfig, ExplainConfig, validate
from clip_har.errors import ConfigError
from clip_har.evaluation.findings import ExplainResult
from clip_har.experiment.explanations import Explainer, explanations_csv
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, feature_store, prepare, without_images
from clip_har.experiment.thumbnails import thumbnail_loader
from clip_har.experiment.zero_shot_model import zero_shot_model
from clip_har.files import write_atomically
from clip_har.progress import SILENT, Progress
from clip_har.run_backbone import load_run_backbone


def explain(
    folder: Path,
    config: ExplainConfig,
    images: Sequence[Path] = (),
    *,
    progress: Progress = SILENT,
    command: str = "",
) -> tuple[ExplainResult, Path]:
    """Explain a run; write explain.json, explain.csv, report.html and the overlays.

    Args:
        folder: the run's.
        images: photographs to explain in place of the dataset's.
        command: the command line that makes the same files again.

    Raises:
        UserError: run, data, model or images cannot be used.
    """
    validate(config)
    if config.data is None and not images:
        raise ConfigError("Nothing to explain", remedy="Pass a dataset with --data, or image files.")
    run = checkpoint.load_run(folder)
    out = config.out or run.folder / ("explain-images" if images else "explain")
    prepared = _prepared(run, config, out, progress)
    answering = Predictions(run, prepared, progress, keep=not images)
    explainer = Explainer(run, answering, prepared, config, out, progress)
    result = explainer.of_files(images) if images else explainer.of_dataset()
    checkpoint.write_json(out / "explain.json", dataclasses.asdict(result))
    write_atomically(out / "explain.csv", explanations_csv(result))
    addresses = {record.name: record.path for record in prepared.dataset.records} | {str(path): path for path in images}
    report.write_explanations(result, out, command=command, load_thumbnail=thumbnail_loader(addresses))
    return result, out


def _prepared(run: checkpoint.Run, config: ExplainConfig, out: Path, progress: Progress) -> Experiment:
    """The dataset with its training images; without one, the model and the prompts alone."""
    given = BackboneConfig(
        model=config.model.model,
        device=config.model.device,
        precision=config.model.precision,
        workers=config.workers,
        cache=config.cache,
    )
    if config.data is not None:
        return prepare(
            DataConfig(data=config.data),
            given,
            out=out,
            progress=progress,
            run=run,
            for_training=False,
            encoded=("train", "val", "test"),
        )
    backbone = load_run_backbone(run, model=given.model, device=given.device, precision=given.precision)
    store = feature_store(given, backbone, progress)
    model = zero_shot_model(backbone, store, run.classes, run.card.templates, run.phrasing, run.prompts())
    return without_images(model, run.classes)
