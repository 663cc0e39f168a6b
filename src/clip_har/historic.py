"""The historic project's commands, with their flags unchanged, on today's workflows. scripts/ holds their names."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter

from clip_har import cli
from clip_har.cli_data import EXIT_DONE
from clip_har.errors import RunError


def train_clip_lora(
    *,
    data_dir: Path,
    model_name: str = "ViT-B/32",
    batch_size: int = 64,
    epochs: int = 15,
    lr: float = 1e-3,
    rank: int = 16,
    alpha: float = 32.0,
    checkpoint_dir: Path = Path("checkpoints/clip_lora"),
) -> int:
    """Train LoRA on the embeddings; started again, it continues where it was.

    Example: python scripts/train_clip_lora.py --data_dir data --epochs 15 --checkpoint_dir checkpoints/clip_lora

    Args:
        data_dir: Folder of labelled images.
        model_name: Backbone, as for clip-har train --model.
        batch_size: Images per optimizer step.
        epochs: Passes over the training images.
        lr: Peak learning rate.
        rank: Rank of the update.
        alpha: Numerator of the scale alpha / rank.
        checkpoint_dir: Run folder to write.
    """
    from clip_har.checkpoint import has_run

    values = {"batch-size": batch_size, "epochs": epochs, "lr": lr, "rank": rank, "alpha": alpha}
    flags = [f"--{name}={value}" for name, value in values.items()]
    resume = ["--resume"] if has_run(checkpoint_dir) else []
    places = [f"--data={data_dir}", f"--model={model_name}", f"--out={checkpoint_dir}"]
    return cli.run_command(["train", "--method=lora", *places, *flags, *resume])


def train_clip_augmented(
    *,
    data_dir: Path,
    model_name: str = "ViT-B/32",
    batch_size: int = 64,
    epochs: int = 15,
    lr: float = 1e-3,
    checkpoint_dir: Path = Path("checkpoints/clip_augmented"),
) -> int:
    """Train LoRA on augmented views, random prompt templates and hard pairs; started again, it continues.

    Example: python scripts/train_clip_augmented.py --data_dir data --epochs 15 --checkpoint_dir checkpoints/augmented

    Args:
        data_dir: Folder of labelled images.
        model_name: Backbone, as for clip-har train --model.
        batch_size: Images per optimizer step.
        epochs: Passes over the training images.
        lr: Peak learning rate.
        checkpoint_dir: Run folder to write.
    """
    from clip_har.checkpoint import has_run

    values = {"batch-size": batch_size, "epochs": epochs, "lr": lr}
    flags = [f"--{name}={value}" for name, value in values.items()]
    resume = ["--resume"] if has_run(checkpoint_dir) else []
    places = [f"--data={data_dir}", f"--model={model_name}", f"--out={checkpoint_dir}"]
    return cli.run_command(["train", "--preset=augmented", *places, *flags, *resume])


def evaluate_lora_clip(
    *,
    data_dir: Path,
    checkpoint: Path,
    model_name: str = "ViT-B/32",
    rank: int | None = None,
    alpha: float | None = None,
    output_csv: Path = Path("lora_clip_results.csv"),
) -> int:
    """Score a LoRA run beside zero-shot and write the historic tables.

    Example: python scripts/evaluate_lora_clip.py --data_dir data --checkpoint checkpoints/clip_lora/clip_lora_best.pt

    Args:
        data_dir: Folder of labelled images with a test split.
        checkpoint: Run folder, or a file in it.
        model_name: Backbone the run was trained on.
        rank: Rank the run was trained with; checked.
        alpha: Alpha the run was trained with; checked.
        output_csv: Table to write (Metric,Value,Type); NAME_confusion_matrix.csv is written beside it.
    """
    from clip_har.checkpoint import load_run

    run = load_run(checkpoint)
    for name, given in (("rank", rank), ("alpha", alpha)):
        trained = run.card["settings"].get(name)
        if given is not None and given != trained:
            raise RunError(
                f"{run.folder} was trained with {name} {trained}, not {given}", remedy=f"Leave out --{name}."
            )
    code = _evaluate(data_dir, checkpoint, model_name, run.folder / "eval")
    _copy_tables(run.folder / "eval", output_csv)
    return code


def evaluate_clip_har(
    *,
    data_dir: Path,
    model_name: str | None = None,
    checkpoint: Path | None = None,
    save_dir: Path = Path("results"),
) -> int:
    """Score a run beside zero-shot; without --checkpoint, zero-shot alone.

    Example: python scripts/evaluate_clip_har.py --data_dir data --save_dir results/baseline

    Args:
        data_dir: Folder of labelled images with a test split.
        model_name: Backbone. Default: the run's own, else ViT-B/32.
        checkpoint: Run folder, or a file in it.
        save_dir: Folder for the tables, plots and the report.
    """
    return _evaluate(data_dir, checkpoint, model_name, save_dir)


def main_clip(
    *,
    data_dir: Path = Path("data"),
    model_name: str = "ViT-B/32",
    epochs: int = 15,
    checkpoint_dir: Path = Path("checkpoints/clip_lora_15e"),
    output_csv: Path = Path("results/lora_clip_15e_results.csv"),
) -> int:
    """Train LoRA, then evaluate it: the historic pipeline from end to end.

    Example: python scripts/main_clip.py --data_dir data

    Args:
        data_dir: Folder of labelled images.
        model_name: Backbone, as for clip-har train --model.
        epochs: Passes over the training images.
        checkpoint_dir: Run folder to write.
        output_csv: Table to write; NAME_confusion_matrix.csv is written beside it.
    """
    code = train_clip_lora(data_dir=data_dir, model_name=model_name, epochs=epochs, checkpoint_dir=checkpoint_dir)
    if code != EXIT_DONE:
        return code
    return evaluate_lora_clip(
        data_dir=data_dir, checkpoint=checkpoint_dir, model_name=model_name, output_csv=output_csv
    )


def main(command: Callable[..., int], argv: Sequence[str] | None = None) -> int:
    """Run one historic command line with today's errors and exit codes."""
    name = command.__name__
    app = App(
        name=f"python scripts/{name}.py",
        help_format="plaintext",
        default_parameter=Parameter(name_transform=lambda field: field),  # --data_dir, as it was
    )
    app.default(command)
    return cli.main(argv, app=app)


def _evaluate(data_dir: Path, checkpoint: Path | None, model_name: str | None, out: Path) -> int:
    optional: list[tuple[str, Any]] = [("checkpoint", checkpoint), ("model", model_name)]
    flags = [f"--{name}={value}" for name, value in optional if value is not None]
    return cli.run_command(["evaluate", f"--data={data_dir}", f"--out={out}", *flags])


def _copy_tables(folder: Path, output_csv: Path) -> None:
    output_csv.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "results.csv", output_csv)
    matrix = output_csv.with_name(f"{output_csv.stem}_confusion_matrix.csv")
    shutil.copyfile(folder / "confusion_matrix.csv", matrix)
