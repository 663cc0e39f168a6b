"""`import`: a checkpoint of the predecessor project becomes a run folder like any other.

How the file is read is in legacy_checkpoint.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clip_har import checkpoint
from clip_har.backbone import load_backbone
from clip_har.config import (
    DEFAULT_MODEL,
    DataConfig,
    Defaults,
    ImportConfig,
    LoraConfig,
    Settings,
    TrainConfig,
    resolve,
    validate,
)
from clip_har.dataset import write_manifest, write_unreadable
from clip_har.errors import ConfigError, RunError
from clip_har.experiment.confidence import fit_calibration
from clip_har.experiment.fit import figures_on
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, feature_store, prepare, without_images
from clip_har.experiment.training import card_content
from clip_har.experiment.zero_shot_model import zero_shot_model
from clip_har.legacy_checkpoint import LegacyCheckpoint, read_legacy_checkpoint
from clip_har.locking import exclusive
from clip_har.methods import ClassifierContext, Method, create_method
from clip_har.pretrained import HISTORIC_NAMES
from clip_har.progress import SILENT, Progress
from clip_har.prompts import resolve_phrases, resolve_templates
from clip_har.run_card import Imported, RunCard, write_card
from clip_har.tuned_models import load_given


def import_folder(file: Path) -> Path:
    """Where a checkpoint is imported to by default."""
    return file.with_suffix("")


def import_checkpoint(
    file: Path,
    config: ImportConfig,
    *,
    assumed_alpha: float | None = None,
    progress: Progress = SILENT,
    command: str = "",
) -> checkpoint.Run:
    """Make a run folder of a checkpoint of the predecessor project.

    Args:
        assumed_alpha: alpha to assume, with a warning, if nothing else gives one.

    Raises:
        UserError: the file, the model, the data or the run folder cannot be used, or something is not known.
    """
    validate(config)
    out = config.out or import_folder(file)
    _require_free(out)
    legacy = read_legacy_checkpoint(file)
    given = _given(file, config, legacy, assumed_alpha, progress)
    validate(given)
    model = str(given.backbone.model)
    reference = load_given(model, device="cpu", precision="float32")
    legacy.require_clip(reference.model.state_dict(), reference.info.name)
    if not legacy.clip:
        progress.warn(f"{file} has no CLIP weights: whether it was trained on {model} cannot be checked")
    tensors = legacy.matrices(reference.info.embed_dim)
    del reference
    rank = tensors["image.lora_A"].shape[0]
    if config.rank not in (None, rank):
        raise RunError(f"{file} was trained with rank {rank}, not {config.rank}", remedy="Remove --rank.")
    given = dataclasses.replace(given, lora=dataclasses.replace(given.lora, rank=rank))
    tensors["logit_scale"] = torch.tensor(legacy.log_scale)
    with exclusive(out):
        _require_free(out)
        experiment = _prepared(file, config, given, legacy, out, progress)
        return _write(file, config, given, legacy, tensors, experiment, out, progress, command)


def _require_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out} is a file", remedy="Pass a folder with --out.")
    if checkpoint.has_run(out):
        raise RunError(f"{out} already contains a run", remedy="Pass another folder with --out, or remove that one.")


def _given(
    file: Path, config: ImportConfig, legacy: LegacyCheckpoint, assumed_alpha: float | None, progress: Progress
) -> TrainConfig:
    """The configuration that the run would have had here, from the flags, else from the file's config."""
    alpha = config.alpha if config.alpha is not None else legacy.number("alpha", "lora_alpha")
    if alpha is None and assumed_alpha is not None:
        alpha = assumed_alpha
        progress.warn(f"{file} does not contain alpha: {alpha:g} is assumed, the predecessor project's default")
    if alpha is None:
        raise ConfigError(
            f"{file} does not contain alpha", remedy="Pass --alpha (the predecessor project's default was 32)."
        )
    named = legacy.text("model_name", "model", "clip_model")
    model = config.backbone.model or (named if named in HISTORIC_NAMES else None) or DEFAULT_MODEL
    templates = config.backbone.templates or legacy.texts("text_templates", "templates", "template", "prompt_template")
    if not all("{}" in template for template in templates if template not in config.backbone.templates):
        raise ConfigError(f"The templates in the config of {file} have no {{}}", remedy="Pass --templates.")
    if not templates:
        progress.warn(f"{file} does not contain prompt templates: the default ones are used; --templates sets others")
    return TrainConfig(
        data=config.data or DataConfig(data=Path()),
        backbone=dataclasses.replace(config.backbone, model=model, templates=templates),
        method="lora",
        lora=LoraConfig(placement="embedding", alpha=alpha, renormalise=False),
        features="embedding",
    )


def _prepared(
    file: Path, config: ImportConfig, given: TrainConfig, legacy: LegacyCheckpoint, out: Path, progress: Progress
) -> Experiment:
    """The dataset with its validation images encoded; without one, the model and the prompts of the classes."""
    if config.data is not None:
        if config.classes:
            raise ConfigError("--classes and --data cannot be combined", remedy="Remove --classes.")
        return prepare(config.data, given.backbone, out=out, progress=progress, for_training=False, encoded=("val",))
    classes = config.classes or legacy.texts("class_names", "classes")
    if len(set(classes)) < max(2, len(classes)):
        what = "has no class names" if not classes else f"would get the classes {', '.join(classes)[:80]}"
        raise ConfigError(f"{file} {what}", remedy="Pass --data FOLDER, or --classes with two or more different names.")
    settings = given.backbone
    backbone = load_backbone(str(settings.model), device=settings.device, precision=settings.precision)
    store = feature_store(settings, backbone, progress)
    templates = resolve_templates(settings.templates, settings.phrasings)
    classes = tuple(sorted(classes))
    phrasing = resolve_phrases(settings.phrasings, classes)
    model = zero_shot_model(backbone, store, classes, templates, phrasing)
    return without_images(model, classes)


def _write(
    file: Path,
    config: ImportConfig,
    given: TrainConfig,
    legacy: LegacyCheckpoint,
    tensors: Mapping[str, Tensor],
    experiment: Experiment,
    out: Path,
    progress: Progress,
    command: str,
) -> checkpoint.Run:
    given = dataclasses.replace(given, out=out)
    data = dataclasses.replace(given.data, data=experiment.dataset.root)
    settings = resolve(dataclasses.replace(given, data=data), Defaults())
    method = create_method("lora", settings)
    checkpoint.clear(out)
    checkpoint.write_config(out, given, data_is_known=config.data is not None)
    if config.data is not None:
        write_manifest(experiment.whole, out / "manifest.csv")
        write_unreadable(experiment.dataset, out / "unreadable.csv")
    checkpoint.save_prompts(out, experiment.model.prompts_CD)
    card, extra = _save(out, settings, method, tensors, experiment)
    imported = Imported(file=str(file), sha256=legacy.sha256, epoch=legacy.epoch, train_loss=legacy.train_loss)
    card = dataclasses.replace(card, imported=imported, command=command)
    card = _measured(out, card, experiment, progress)
    write_card(out, card, checkpoint.recorded_files(method, extra))
    return checkpoint.load_run(out)


def _save(
    out: Path,
    settings: Settings,
    method: Method,
    tensors: Mapping[str, Tensor],
    experiment: Experiment,
) -> tuple[RunCard, tuple[str, ...]]:
    """Write the weights; what the card says of them, and the names of the files next to them."""
    frame = ClassifierContext(
        classes=experiment.dataset.classes,
        templates=experiment.model.templates,
        prompts_CD=experiment.model.prompts_CD,
        logit_scale=experiment.model.backbone.info.logit_scale,
        load_backbone=experiment.model.load_backbone,
    )
    classifier = method.restore(frame, tensors)
    extra = checkpoint.save_weights(out, method, classifier, experiment.model.backbone.info.name)
    return card_content(settings, experiment, method, classifier), extra


def _measured(out: Path, card: RunCard, experiment: Experiment, progress: Progress) -> RunCard:
    """The card with what the validation images tell: figures and the confidence, if there are any."""
    if not experiment.dataset.counts()["val"]:
        return card
    run = checkpoint.Run(folder=out, card=card)
    answering, val = Predictions(run, experiment, progress), experiment.images("val")
    answers_NC = answering.finetuned(val)
    assert answers_NC is not None
    return dataclasses.replace(
        card,
        validation=figures_on(answers_NC, val.labels_N, len(experiment.dataset.classes)),
        confidence=fit_calibration(answering).to_json(),
    )
