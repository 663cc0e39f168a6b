"""The predecessor project's commands with their flags, mapped to clip-har's; scripts/ has their entry points."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from cyclopts import App, CycloptsError, Parameter

from clip_har import cli
from clip_har.cli.shared import EXIT_DONE, shown_progress
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, ImportConfig, TrainConfig, load_config_file
from clip_har.errors import RunError, UserError

_DEFAULTS: Mapping[str, Any] = {"model": "ViT-B/32", "batch_size": 64, "epochs": 15, "lr": 1e-3}
DEFAULT_ALPHA = 32.0
"""Alpha of the predecessor's commands; its checkpoints need not contain it."""
_TYPED = {"data": "data_dir", "model": "model_name", "batch-size": "batch_size"}
_FLAG = re.compile(r"--([a-z][a-z-]*)(?![\w-])")

Command = TypeVar("Command", bound=Callable[..., int])


def _flags_as_typed(**renamed: str) -> Callable[[Command], Command]:
    """Let a command's errors name its own flags, where they come from the command of clip-har that it calls.

    Args:
        renamed: flag of clip-har -> flag of the command, besides those that are the same for all.
    """

    def decorate(command: Command) -> Command:
        own, names = inspect.signature(command).parameters, {**_TYPED, **renamed}

        def typed(text: str) -> str:
            return _FLAG.sub(lambda match: f"--{names.get(match[1], match[1])}", text)

        @functools.wraps(command)
        def run(**given: Any) -> int:
            try:
                return command(**given)
            except CycloptsError as error:
                raise UserError(
                    typed(str(error)), remedy=f"See python scripts/{command.__name__}.py --help."
                ) from error
            except UserError as error:
                remedy = typed(error.remedy)
                other = [f"--{name}" for name in _FLAG.findall(remedy) if name not in (*own, "help")]
                if other and "clip-har" not in remedy:
                    remedy += f" This script has no {' or '.join(other)}: set it in a --config file."
                raise type(error)(typed(error.what), remedy=remedy) from error

        return cast("Command", run)

    return decorate


@_flags_as_typed(out="checkpoint_dir")
def train_clip_lora(
    *,
    data_dir: Path,
    config: Path | None = None,
    model_name: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    rank: int | None = None,
    alpha: float | None = None,
    checkpoint_dir: Path | None = None,
) -> int:
    """Train LoRA on the embeddings. Started again, it resumes.

    Example: python scripts/train_clip_lora.py --data_dir data --epochs 15 --checkpoint_dir checkpoints/clip_lora

    Args:
        data_dir: Folder of labelled images.
        config: JSON or TOML config file, such as config_har.json; flags take precedence.
        model_name: Backbone, as for clip-har train --model. Default: ViT-B/32.
        batch_size: Images per optimizer step. Default: 64.
        epochs: Passes over the training images. Default: 15.
        lr: Peak learning rate. Default: 1e-3.
        rank: Rank of the update. Default: 16.
        alpha: Numerator of the scale alpha / rank. Default: 32.
        checkpoint_dir: Run folder to write. Default: checkpoints/clip_lora.
    """
    given: dict[str, Any] = {"batch_size": batch_size, "epochs": epochs, "lr": lr, "rank": rank, "alpha": alpha}
    given |= {"model": model_name, "out": checkpoint_dir}
    defaults = {**_DEFAULTS, "rank": 16, "alpha": 32.0, "out": Path("checkpoints/clip_lora")}
    return _train("--method=lora", data_dir, config, given, defaults)


@_flags_as_typed(out="checkpoint_dir")
def train_clip_augmented(
    *,
    data_dir: Path,
    config: Path | None = None,
    model_name: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    checkpoint_dir: Path | None = None,
) -> int:
    """Train LoRA on augmented views, random prompt templates and hard negatives. Started again, it resumes.

    Example: python scripts/train_clip_augmented.py --data_dir data --epochs 15 --checkpoint_dir checkpoints/augmented

    Args:
        data_dir: Folder of labelled images.
        config: JSON or TOML config file, such as config_har.json; flags take precedence.
        model_name: Backbone, as for clip-har train --model. Default: ViT-B/32.
        batch_size: Images per optimizer step. Default: 64.
        epochs: Passes over the training images. Default: 15.
        lr: Peak learning rate. Default: 1e-3.
        checkpoint_dir: Run folder to write. Default: checkpoints/clip_augmented.
    """
    given = {"batch_size": batch_size, "epochs": epochs, "lr": lr, "model": model_name, "out": checkpoint_dir}
    defaults = {**_DEFAULTS, "out": Path("checkpoints/clip_augmented")}
    return _train("--preset=augmented", data_dir, config, given, defaults)


@_flags_as_typed(out="output_csv")
def evaluate_lora_clip(
    *,
    data_dir: Path,
    checkpoint: Path,
    config: Path | None = None,
    model_name: str | None = None,
    rank: int | None = None,
    alpha: float | None = None,
    output_csv: Path = Path("lora_clip_results.csv"),
) -> int:
    """Evaluate a LoRA run and zero-shot CLIP and write the predecessor's tables.

    Example: python scripts/evaluate_lora_clip.py --data_dir data --checkpoint checkpoints/clip_lora/clip_lora_best.pt

    Args:
        data_dir: Folder of labelled images with a test split.
        checkpoint: Run folder, or a file in it; or a checkpoint of the predecessor project, which is first imported
            into a run folder next to it (see clip-har import).
        config: JSON or TOML config file, such as config_har.json; flags take precedence.
        model_name: Backbone the run was trained on. Default: the run's own.
        rank: Rank the run was trained with; checked.
        alpha: Alpha the run was trained with; checked.
        output_csv: Table to write (Metric,Value,Type); NAME_confusion_matrix.csv is written next to it.
    """
    from clip_har.checkpoint import load_run

    run = load_run(_run_folder(checkpoint, data_dir, config, model_name, alpha))
    lora = run.settings.lora
    for name, given, trained in (("rank", rank, lora.rank), ("alpha", alpha, lora.alpha)):
        if given is not None and given != trained:
            raise RunError(f"{run.folder} was trained with {name} {trained}, not {given}", remedy=f"Remove --{name}.")
    code = _evaluate(data_dir, run.folder, config, model_name, run.folder / "eval")
    _copy_tables(run.folder / "eval", output_csv)
    return code


@_flags_as_typed(out="save_dir")
def evaluate_clip_har(
    *,
    data_dir: Path,
    config: Path | None = None,
    model_name: str | None = None,
    checkpoint: Path | None = None,
    save_dir: Path = Path("results"),
) -> int:
    """Evaluate a run and zero-shot CLIP; without --checkpoint, zero-shot alone.

    Example: python scripts/evaluate_clip_har.py --data_dir data --save_dir results/baseline

    Args:
        data_dir: Folder of labelled images with a test split.
        config: JSON or TOML config file, such as config_har.json; flags take precedence.
        model_name: Backbone. Default: the run's own, else ViT-B/32.
        checkpoint: Run folder, or a file in it; or a checkpoint of the predecessor project, which is first imported
            into a run folder next to it (see clip-har import).
        save_dir: Folder for the tables, plots and the report.
    """
    run = None if checkpoint is None else _run_folder(checkpoint, data_dir, config, model_name)
    return _evaluate(data_dir, run, config, model_name, save_dir)


@_flags_as_typed(out="checkpoint_dir")
def main_clip(
    *,
    data_dir: Path = Path("data"),
    config: Path | None = None,
    model_name: str | None = None,
    epochs: int | None = None,
    checkpoint_dir: Path | None = None,
    output_csv: Path = Path("results/lora_clip_15e_results.csv"),
) -> int:
    """Train LoRA, then evaluate it: the predecessor's full pipeline.

    Example: python scripts/main_clip.py --data_dir data

    Args:
        data_dir: Folder of labelled images.
        config: JSON or TOML config file, such as config_har.json; flags take precedence.
        model_name: Backbone, as for clip-har train --model. Default: ViT-B/32.
        epochs: Passes over the training images. Default: 15.
        checkpoint_dir: Run folder to write. Default: checkpoints/clip_lora_15e.
        output_csv: Table to write; NAME_confusion_matrix.csv is written next to it.
    """
    folder = checkpoint_dir or _out_of(config) or Path("checkpoints/clip_lora_15e")
    code = train_clip_lora(
        data_dir=data_dir, config=config, model_name=model_name, epochs=epochs, checkpoint_dir=folder
    )
    if code != EXIT_DONE:
        return code
    return evaluate_lora_clip(
        data_dir=data_dir, checkpoint=folder, config=config, model_name=model_name, output_csv=output_csv
    )


def main(command: Callable[..., int], argv: Sequence[str] | None = None) -> int:
    """Run one command line of the predecessor with clip-har's errors and exit codes."""
    name = command.__name__
    app = App(
        name=f"python scripts/{name}.py",
        help_format="plaintext",
        default_parameter=Parameter(name_transform=lambda field: field),  # --data_dir, as it was
    )
    app.default(command)
    return cli.main(argv, app=app)


def _train(
    what: str, data_dir: Path, config: Path | None, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> int:
    """Train by a method or preset; a setting that is not given is the config file's, else the predecessor's default."""
    from clip_har.checkpoint import has_run

    in_file = {} if config is None else load_config_file(config, TrainConfig)
    values = {name: given[name] for name in given if given[name] is not None}
    values |= {name: value for name, value in defaults.items() if name not in values and name not in in_file}
    out = Path(values.get("out") or in_file["out"])
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    resume = ["--resume"] if has_run(out) else []
    return cli.run_command(["train", what, f"--data={data_dir}", *_config_flag(config), *flags, *resume])


def _evaluate(data_dir: Path, checkpoint: Path | None, config: Path | None, model_name: str | None, out: Path) -> int:
    optional: list[tuple[str, Any]] = [("checkpoint", checkpoint), ("model", model_name)]
    flags = [f"--{name}={value}" for name, value in optional if value is not None]
    return cli.run_command(["evaluate", f"--data={data_dir}", f"--out={out}", *_config_flag(config), *flags])


def _config_flag(config: Path | None) -> list[str]:
    return [] if config is None else [f"--config={config}"]


def _out_of(config: Path | None) -> Path | None:
    """The run folder that a config file names."""
    out = None if config is None else load_config_file(config, TrainConfig).get("out")
    return None if out is None else Path(out)


def _run_folder(
    checkpoint: Path, data_dir: Path, config: Path | None, model_name: str | None, alpha: float | None = None
) -> Path:
    """The run meant by a path: the path itself, or the run that a predecessor's checkpoint is or was imported to."""
    from clip_har import commands
    from clip_har.checkpoint import is_finished, load_run
    from clip_har.integrity import file_sha256
    from clip_har.legacy_checkpoint import is_checkpoint_file

    if not is_checkpoint_file(checkpoint):
        return checkpoint
    folder = commands.import_folder(checkpoint)
    if is_finished(folder):
        imported = load_run(folder).card.imported
        if imported is None or imported.sha256 != file_sha256(checkpoint):
            raise RunError(f"{folder} is not the run of {checkpoint}", remedy="Remove or rename that folder.")
        return folder
    in_file = {} if config is None else load_config_file(config, EvaluateConfig)
    asked = ImportConfig(
        data=DataConfig(data=data_dir),
        backbone=BackboneConfig(
            model=model_name or in_file.get("model"),
            templates=tuple(in_file.get("templates", ())),
            workers=in_file.get("workers", -1),
        ),
        alpha=alpha,
    )
    commands.import_checkpoint(checkpoint, asked, assumed_alpha=DEFAULT_ALPHA, progress=shown_progress())
    return folder


def _copy_tables(folder: Path, output_csv: Path) -> None:
    output_csv.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "results.csv", output_csv)
    matrix = output_csv.with_name(f"{output_csv.stem}_confusion_matrix.csv")
    shutil.copyfile(folder / "confusion_matrix.csv", matrix)
