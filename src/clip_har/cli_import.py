"""The command `clip-har import`: flags in, a line out. No logic; that is in commands/import_checkpoint.py.

Running a command line, and what each exit code means, is in cli.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from clip_har.cli_data import EXIT_DONE, shown_progress, speaks
from clip_har.config import BackboneConfig, DataConfig, Precision
from clip_har.config.converters import Names, SetAside

if TYPE_CHECKING:
    from clip_har.commands import ImportConfig


def import_(
    file: Path,
    /,
    *,
    out: Path | None = None,
    model: str | None = None,
    data: Path | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    manifest: Path | None = None,
    set_aside: SetAside | None = None,
    classes: Names | None = None,
    templates: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    phrasings: str | None = None,
    rank: int | None = None,
    alpha: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    workers: int = -1,
    cache: Path | None = None,
) -> int:
    """Convert a LoRA checkpoint of the predecessor project (clip_lora_best.pt) into a run folder.

    evaluate, predict and explain then use it like any run, with the same predictions. No code in the file is run.

    Example: clip-har import clip_lora_best.pt --model ViT-B/32 --data photos --alpha 32 --out runs/imported

    Args:
        file: The checkpoint.
        out: Run folder to write. Default: next to the file, with the file's name without .pt.
        model: Backbone it was trained on; its weights must be those in the file. Default: the file's config, else
            ViT-B/32.
        data: Dataset it was trained on, as for train --data: gives the classes and the splits, and the validation
            images are scored.
        val_fraction: Fraction of the training images in the validation split, if the dataset has none. In (0, 0.5].
        test_fraction: Fraction of all images in the test split, if the dataset has no splits. In (0, 0.5].
        split_seed: Seed of the splits.
        manifest: Split manifest, as for train --manifest.
        set_aside: Splits of the data to ignore: test, val or both.
        classes: Class names separated by commas, instead of --data.
        templates: Prompt templates with {} for the class, or files with one per line. Default: the file's config, else
            seven on actions.
        phrasings: Class descriptions, as for train --phrasings. Default: names.
        rank: Rank it was trained with; checked against the file.
        alpha: Alpha it was trained with. Default: the file's config.
        device: Where the model runs: auto, cpu, cuda, cuda:1, mps.
        precision: Arithmetic of the image encoder; auto picks bfloat16 where the hardware has it.
        workers: Processes that decode images; -1 means one per core.
        cache: Folder of cached embeddings and splits. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har.
    """
    from clip_har import commands
    from clip_har.console import Output

    config = commands.ImportConfig(
        file=file,
        out=out,
        data=None
        if data is None
        else DataConfig(
            data=data,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            manifest=manifest,
            set_aside=set_aside,
        ),
        classes=classes or (),
        backbone=BackboneConfig(
            model=model,
            templates=templates,
            phrasings=phrasings,
            device=device,
            precision=precision,
            workers=workers,
            cache=cache,
        ),
        rank=rank,
        alpha=alpha,
    )
    run = commands.import_checkpoint(config, progress=shown_progress(), command=_command(config))
    if not speaks():
        return EXIT_DONE
    lora, figures = run.settings.lora, run.card.validation
    scored = "" if not figures else f", validation accuracy {figures['val_accuracy']:.2%}"
    output = Output()
    output.line(f"lora of rank {lora.rank}, alpha {lora.alpha:g}{scored}")
    target = data if data is not None else Path("FOLDER")
    next_command = ("clip-har", "evaluate", "--data", str(target), "--checkpoint", str(run.folder))
    output.files(("Run", run.folder), ("Next", shlex.join(next_command)))
    return EXIT_DONE


def _command(config: ImportConfig) -> str:
    """The command line as one would type it again, without the flags of where it runs, for the card."""
    data = config.data
    given: dict[str, object] = {"out": config.out, "model": config.backbone.model, "data": data and data.data}
    if data is not None:
        given |= {"manifest": data.manifest, "set-aside": ",".join(data.set_aside or ())}
        fractions = {"val-fraction": data.val_fraction, "test-fraction": data.test_fraction}
        given |= fractions | {"split-seed": data.split_seed}
    given |= {"classes": ",".join(config.classes), "phrasings": config.backbone.phrasings, "rank": config.rank}
    words = ["clip-har", "import", str(config.file), *(f"--templates={text}" for text in config.backbone.templates)]
    words += [f"--{name}={value}" for name, value in given.items() if value not in (None, "")]
    return shlex.join([*words, *([f"--alpha={config.alpha:g}"] if config.alpha is not None else [])])
