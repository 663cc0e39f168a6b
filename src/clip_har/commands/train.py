"""`train`: one method into one run folder."""

from __future__ import annotations

from pathlib import Path

from clip_har import checkpoint, distributed, run_folders, tracking
from clip_har.config import TrainConfig, apply_preset, validate
from clip_har.experiment.confidence import too_few_images
from clip_har.experiment.members import MEMBERS_FOLDER
from clip_har.experiment.setup import prepare
from clip_har.experiment.training import check_sources, train_prepared
from clip_har.fusion import require_single_model
from clip_har.locking import exclusive
from clip_har.methods import method_class
from clip_har.progress import SILENT, Progress


def train(config: TrainConfig, *, progress: Progress = SILENT, command: str = "") -> checkpoint.Run:
    """Train one method and leave a run folder.

    Started by `torchrun` or `accelerate launch`, all processes train it together and the first writes the files.

    Raises:
        UserError: settings, data, model or run folder cannot be used; the training's loss is not finite.
    """
    config = apply_preset(config)
    validate(config)
    tracking.require(config.engine)
    method = method_class(config.method, config)
    if idle := method.without_effect(config):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        progress.warn(f"No effect on {config.method}: {flags}")
    if method.works_inside(config):
        require_single_model(config.backbone.model)
    distributed.initialise(config.backbone.device)
    folder = config.out or _default_folder(config)
    with exclusive(folder):
        config, last_epoch = run_folders.ends_after(folder, config)
        run_folders.check_folder(folder, config, resume=config.resume)
        if not checkpoint.has_run(folder) and (others := run_folders.other_files(folder)):
            progress.warn(f"{folder} contains other files, such as {others[0]}; the run is written next to them")
        if config.resume and not _is_begun(folder):
            progress.note(f"Nothing to resume in {folder}: the training starts")
        if config.resume and checkpoint.is_finished(folder):
            progress.note(f"{folder} is already finished")
            finished = checkpoint.load_run(folder)
            finished.weights_sha256()
            return finished
        check_sources(config)
        prepared = prepare(config.data, config.backbone, out=folder, progress=progress, hold_out=config.hold_out)
        try:
            run = train_prepared(config, folder, prepared, progress, command, last_epoch=last_epoch)
        except KeyboardInterrupt as interrupt:  # also between two trainings, and after the last epoch
            raise (KeyboardInterrupt(str(folder)) if _is_begun(folder) else interrupt) from None
        if few := too_few_images(prepared.dataset.counts()["val"]):
            progress.warn(few)
        return run


def _is_begun(folder: Path) -> bool:
    """Whether --resume has something to continue there: the run, or one that it builds on."""
    return checkpoint.has_run(folder) or any(map(checkpoint.has_run, (folder / MEMBERS_FOLDER).glob("*")))


def _default_folder(config: TrainConfig) -> Path:
    """runs/METHOD, or the first of runs/METHOD-2, -3, ... that is free; to resume, the last that is not."""
    name = config.preset or config.method
    folder = free = Path("runs") / name
    number = 1
    while _is_begun(free):
        number += 1
        folder, free = free, Path("runs") / f"{name}-{number}"
    return folder if config.resume else free
