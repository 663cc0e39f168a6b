"""`explain`: why a run answers as it does, for images that are named or for the most telling ones of a split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clip_har import checkpoint
from clip_har.config import ExplainConfig
from clip_har.errors import ConfigError
from clip_har.evaluation.findings import ExplainResult
from clip_har.experiment.explanations import Explainer, explanations_csv
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, feature_store, prepare, without_images
from clip_har.experiment.zero_shot_model import zero_shot_model
from clip_har.files import write_atomically
from clip_har.predict import load_run_backbone
from clip_har.progress import SILENT, Progress


def explain(config: ExplainConfig, *, progress: Progress = SILENT) -> tuple[ExplainResult, Path]:
    """Explain a run; write explain.json, explain.csv and the overlays.

    Raises:
        UserError: run, data, model or images cannot be used.
    """
    if config.data is None and not config.images:
        raise ConfigError("Nothing to explain", remedy="Give a dataset with --data, or name image files.")
    run = checkpoint.load_run(config.run)
    out = config.out or run.folder / ("explain-images" if config.images else "explain")
    prepared = _prepared(run, config, out, progress)
    answering = Predictions(run, prepared, progress, keep=not config.images)
    explainer = Explainer(run, answering, prepared, config, out, progress)
    result = explainer.of_files(config.images) if config.images else explainer.of_dataset()
    checkpoint.write_json(out / "explain.json", dataclasses.asdict(result))
    write_atomically(out / "explain.csv", explanations_csv(result))
    return result, out


def _prepared(run: checkpoint.Run, config: ExplainConfig, out: Path, progress: Progress) -> Experiment:
    """The dataset with its training images; without one, the model and the prompts alone."""
    if config.data is not None:
        return prepare(
            config.data,
            config.backbone,
            out=out,
            progress=progress,
            run=run,
            for_training=False,
            encoded=("train", "val", "test"),
        )
    given = config.backbone
    backbone = load_run_backbone(run, model=given.model, device=given.device, precision=given.precision)
    store = feature_store(given, backbone, progress)
    model = zero_shot_model(backbone, store, run.classes, run.card.templates, run.phrasing, run.prompts())
    return without_images(model, run.classes)
