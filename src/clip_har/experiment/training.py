"""`train`: one method, fitted with validation, log and checkpoints, into one run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

from clip_har import checkpoint, distributed, run_folders
from clip_har.config import Settings, SourceSettings, TrainConfig, apply_preset, resolve
from clip_har.dataset import write_manifest, write_unreadable
from clip_har.errors import ConfigError, RunError
from clip_har.experiment.auto import choose
from clip_har.experiment.confidence import fit_calibration
from clip_har.experiment.decoded import with_decoded_cache
from clip_har.experiment.fit import OnEpoch, TrainingRun
from clip_har.experiment.members import (
    as_members,
    check_members,
    member_runs,
    member_settings,
    require_unseen_validation,
    train_seconds,
)
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.refitting import Selection, select, trains_twice
from clip_har.experiment.setup import Experiment
from clip_har.experiment.unknown import fit_unknown
from clip_har.files import remove_stray_temporaries
from clip_har.memory import PeakMemory, keep_freed_memory
from clip_har.methods import Classifier, Method, Source, Task, create_method, method_class
from clip_har.pretrained import split_image_size
from clip_har.pretrained.image_size import require_size
from clip_har.progress import Progress
from clip_har.prompts import filled
from clip_har.protocol import differing, require_same
from clip_har.run_card import ModelOfRun, RunCard, write_card
from clip_har.training_states import Start, load_state, prompts_sha256


def train_prepared(
    config: TrainConfig,
    folder: Path,
    experiment: Experiment,
    progress: Progress,
    command: str,
    *,
    last_epoch: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> checkpoint.Run:
    """Train into a run folder that `check_folder` allows, from its last saved state if there is one.

    The caller is the folder's only writer.

    Args:
        config: with a method's name, its preset applied.
        last_epoch: after which to end the run that was begun, if before its time.
        on_epoch: see `OnEpoch`.
    """
    config = dataclasses.replace(config, out=folder)
    source, settings = _settings(config, experiment)
    members: tuple[checkpoint.Run, ...] = ()
    members_seconds = 0.0
    selection: Selection | None = None
    combining = method_class(config.method, config)
    if settings.refit and not trains_twice(combining) and experiment.model_was_trained_on_these:
        progress.warn(
            f"{config.method} is judged by cross-validation (--refit) on images that its model was fine-tuned on: "
            "validation accuracy and calibration are too optimistic"
        )
    train = partial(_member, experiment=experiment, progress=progress, command=command)
    if combining.combines:
        if combining.chooses_members:
            chosen, members_seconds = choose(config, folder, experiment, progress, train)
            members = tuple(chosen)
        else:
            members = tuple(member_runs(config, folder, combining, experiment, train, refit=settings.refit))
            members_seconds = train_seconds(members)
        settings = dataclasses.replace(settings, members=member_settings(members))
    elif settings.refit and trains_twice(combining):
        if last_epoch is not None:
            raise RunError(
                "A training with --refit cannot be ended early", remedy="Resume it with the --epochs it began with."
            )
        selection = select(config, folder, experiment, progress, train)
        members_seconds = selection.seconds
    if last_epoch is not None and last_epoch > settings.optimizer.epochs:
        raise RunError(
            f"The run in {folder} was started with {settings.optimizer.epochs} epochs, not {last_epoch}",
            remedy="Pass fewer --epochs to end it early, or choose another --out.",
        )
    method = create_method(config.method, settings)
    start = _start(experiment, settings)
    saved = load_state(folder, method, warn=progress.warn)
    if saved is not None:
        _require_same_start(folder, saved.start, start, experiment)
        if saved.start.parents not in ("", start.parents):
            progress.warn(f"{config.method} begins again: the runs it builds on are not those it began with")
            saved = None
    if distributed.is_main():
        remove_stray_temporaries(folder, folder / "last", folder / "answers")
        if saved is None:
            checkpoint.clear(folder)
        checkpoint.write_config(folder, config)
        write_manifest(experiment.whole, folder / "manifest.csv")
        write_unreadable(experiment.dataset, folder / "unreadable.csv")
        checkpoint.save_prompts(folder, experiment.model.prompts_CD)
    distributed.barrier()
    keep_freed_memory()
    peak = PeakMemory(experiment.model.backbone.device)
    task = _task(config, settings, experiment, source, progress)
    if members:
        task = dataclasses.replace(task, members=as_members(members, task.train, task.val, experiment, progress))
    fitting = TrainingRun(folder, method, task, experiment, start, progress, on_epoch, selection)
    try:
        fitting.fit(saved, last_epoch)
    except KeyboardInterrupt as interrupt:  # the command line says how to continue
        raise (KeyboardInterrupt(str(folder)) if checkpoint.has_run(folder) else interrupt) from None
    extra = fitting.place_weights() if distributed.is_main() else ()
    distributed.barrier()
    card = card_content(settings, experiment, method, fitting.classifier)
    card = dataclasses.replace(
        card,
        validation=fitting.validation_of_the_kept_weights(),
        processes=distributed.world_size(),
        train_seconds=fitting.seconds + members_seconds,
        peak_memory_bytes=peak.bytes(),
        command=command,
    )
    del fitting  # its classifier: the run's own is loaded for the calibration
    trained = checkpoint.Run(folder=folder, card=card)
    answering = Predictions(trained, experiment, progress)
    calibration = fit_calibration(answering)
    card = dataclasses.replace(card, confidence=calibration.to_json(), unknown=fit_unknown(answering))
    if distributed.is_main():  # last of all: from now on the run counts as finished
        write_card(folder, card, checkpoint.recorded_files(method, extra))
    distributed.barrier()
    return checkpoint.load_run(folder)


def finished_or_trained(
    config: TrainConfig,
    folder: Path,
    experiment: Experiment,
    progress: Progress,
    command: str,
    *,
    on_epoch: OnEpoch | None = None,
) -> checkpoint.Run:
    """The run of a config in a folder: reused where it is finished, continued where it was begun, else trained.

    The caller is the folder's only writer.

    Raises:
        RunError: the folder has a run with other settings, or on other images, prompts or weights.
    """
    run_folders.check_folder(folder, config, resume=checkpoint.has_run(folder))
    if not checkpoint.is_finished(folder):
        return train_prepared(config, folder, experiment, progress, command, on_epoch=on_epoch)
    run = checkpoint.load_run(folder)
    if run.caution:
        progress.warn(run.caution)
    remedy = "Choose another --out, or remove that folder."
    require_same(folder, run.protocol, experiment.protocol, remedy=remedy)
    progress.note(f"{folder.name}: trained before, reused from {folder}")
    return run


def _member(
    config: TrainConfig, folder: Path, *, experiment: Experiment, progress: Progress, command: str
) -> checkpoint.Run:
    """A method's run in the folder of what combines it: as it is where it is finished, else trained."""
    try:
        return finished_or_trained(apply_preset(config), folder, experiment, progress, command)
    except KeyboardInterrupt as interrupt:  # it is the whole that is continued
        raise (KeyboardInterrupt(str(folder.parent.parent)) if interrupt.args else interrupt) from None


def check_sources(config: TrainConfig) -> None:
    """Refuse runs to start from or to combine that cannot be used, before the images are encoded.

    Args:
        config: with its preset applied.

    Raises:
        ConfigError: a run that is missing from the config, or that the method cannot use.
        RunError: a folder holds no finished run.
    """
    method = method_class(config.method, config)
    if method.starts_from is not None:
        _source_run(config, method)
    if method.combines and not method.chooses_members:
        check_members(config, method)


def _source_run(config: TrainConfig, method: type[Method]) -> checkpoint.Run:
    if config.start_from is None:
        raise ConfigError(f"{config.method} {method.purpose_of_source}", remedy="Pass it with --start-from RUN.")
    return checkpoint.load_run(config.start_from)


def _settings(config: TrainConfig, experiment: Experiment) -> tuple[Source | None, Settings]:
    """The run that is started from, if any, and the settings without gaps."""
    method = method_class(config.method, config)
    defaults = method.defaults(config, experiment.model.backbone)
    refits_by_default = method.refits_by_default and not experiment.model_was_trained_on_these
    settings = resolve(config, defaults, refits=method.refits, refits_by_default=refits_by_default)
    side = settings.augmentation.train_image_size
    if side is not None and method.reads(settings) == "image":
        info = experiment.model.backbone.info
        require_size(experiment.model.backbone.model, side, split_image_size(info.name)[0])
    if method.starts_from is None:
        return None, settings
    run = _source_run(config, method)
    require_same(run.folder, run.protocol, experiment.protocol)
    if not settings.refit and trains_twice(type(run.method)):
        require_unseen_validation(run, config.method)
    then = SourceSettings(
        method=run.card.method,
        settings=run.settings,
        trainable_params=run.card.trainable_params,
        weights_sha256=run.weights_sha256(),
    )
    return run.as_source(), dataclasses.replace(settings, source=then)


def _task(
    config: TrainConfig, settings: Settings, experiment: Experiment, source: Source | None, progress: Progress
) -> Task:
    """What the method learns from; with cached augmented views where it learns from cached embeddings."""
    task = experiment.task(config.seed, shots=config.shots, source=source)
    reads = method_class(config.method, settings).reads(settings)
    seen = settings.augmentation
    if settings.engine.decoded_cache:
        train = with_decoded_cache(experiment, task.train, reads, seen, progress)
        task = dataclasses.replace(task, train=train)
    if seen.augment == "none" or reads == "image":
        return task
    return dataclasses.replace(task, train=experiment.with_views(task.train, seen.augment, seen.views))


def _start(experiment: Experiment, settings: Settings) -> Start:
    parents = [parent.weights_sha256 for parent in (settings.source, *settings.members) if parent is not None]
    return Start(
        weights=experiment.model.backbone.info.weights_hash,
        manifest=experiment.whole.manifest_hash(),
        prompts=prompts_sha256(experiment.model.prompts_CD),
        parents=hashlib.sha256(" ".join(parents).encode()).hexdigest() if parents else "",
    )


def _require_same_start(folder: Path, saved: Start, now: Start, experiment: Experiment) -> None:
    """Refuse to continue a run on other images or other weights than it began with."""
    aspect = differing(saved.protocol, now.protocol)
    if aspect is None:
        return
    things = {
        "model": f"weights of {experiment.model.backbone.info.name}",
        "images": f"images in {experiment.dataset.root}",
        "prompts": "prompts",
    }
    raise RunError(
        f"The {things[aspect]} are not those the run in {folder} was started with",
        remedy="Restore them, or train again into another --out.",
    )


def card_content(settings: Settings, experiment: Experiment, method: Method, classifier: Classifier) -> RunCard:
    """What card.json says of a finished run, except how it was trained and how well."""
    model = experiment.model.backbone.info
    trainable = method.trainable_params(classifier)
    return RunCard(
        package_version=version("clip-har"),
        method=settings.method,
        preset=settings.preset,
        source=method.source,
        backbone=ModelOfRun(
            name=model.name,
            weights_hash=model.weights_hash,
            activation=model.activation,
            embed_dim=model.embed_dim,
            parameters=model.parameters,
            logit_scale=model.logit_scale,
            logit_bias=model.logit_bias,
            projection=model.projection,
            chain=model.chain,
            files_sha256=model.files_sha256,
        ),
        classes=experiment.dataset.classes,
        held_out=() if experiment.novel is None else experiment.novel.classes,
        templates=experiment.model.templates,
        phrasing=dict(experiment.model.phrasing),
        sentences={
            name: filled(experiment.model.phrasing[name], experiment.model.templates)
            for name in experiment.dataset.classes
        },
        preprocessing=model.preprocessing.to_json(),
        precision=experiment.model.backbone.precision,
        settings=settings.to_json(),
        seed=settings.seed,
        data=str(experiment.dataset.root),
        splits=experiment.dataset.counts(),
        manifest_sha256=experiment.whole.manifest_hash(),
        unreadable=len(experiment.dataset.unreadable),
        trainable_params=trainable,
        trainable_fraction=trainable / model.parameters,
        encode_seconds=experiment.encoding.seconds,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    packages = ("clip-har", "torch", "open_clip_torch", "peft", "scikit-learn", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
