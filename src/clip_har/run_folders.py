"""Whether a training may write to a folder, and what is in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clip_har.checkpoint import RECORDED, has_run, read_json, weights_files
from clip_har.config import TrainConfig, differing_settings
from clip_har.errors import RunError
from clip_har.out_of_fold import OUT_OF_FOLD_FILE
from clip_har.run_card import CARD_NAME
from clip_har.unread_settings import unread_settings


def check_folder(folder: Path, config: TrainConfig, *, resume: bool) -> None:
    """Refuse a run folder that may not be written to, before anything slow happens. Writes nothing.

    Raises:
        RunError: a run is there and `resume` is not asked, or it was trained with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out {folder} is a file", remedy="Pass a folder with --out.")
    if not has_run(folder):
        return
    if not resume:
        remedy = "Choose another --out, or resume it with --resume."
        raise RunError(f"{folder} already contains a run", remedy=remedy)
    differing = differing_settings(read_json(folder / "config.json"), config, unread=unread_settings(config))
    if differing:
        raise RunError(
            f"The run in {folder} was trained with other settings: {', '.join(differing)}",
            remedy="Pass the same settings to resume it, or choose another --out.",
        )


def other_files(folder: Path) -> list[str]:
    """Names in a folder that no run writes."""
    if not folder.is_dir():
        return []
    own = {*RECORDED, OUT_OF_FOLD_FILE, *weights_files(), CARD_NAME, "adapter_config.json", "wandb_id.txt"}
    own |= {"last", "answers", "members", "eval", "explain", "explain-images", "tuned_model"}
    own |= {"tried.json", "tensorboard", "wandb"}
    return sorted(path.name for path in folder.iterdir() if path.name not in own and not path.name.startswith("."))


def ends_after(folder: Path, config: TrainConfig) -> tuple[TrainConfig, int | None]:
    """What --resume with fewer --epochs asks for: the config that the run began with, and the epoch to end it after.

    The learning rate keeps the schedule that it began with. Where nothing is shortened: the same config, and None.
    """
    asked = config.optimizer.epochs
    if not config.resume or asked is None or not has_run(folder):
        return config, None
    begun = read_json(folder / "config.json").get("epochs")
    if begun is not None and (not isinstance(begun, int) or asked >= begun):
        return config, None
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, epochs=begun)), asked
