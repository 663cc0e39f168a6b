"""`clip-har sweep`: flags in, tables out, exit codes."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clip_har.cli.shared import EXIT_DONE, ConfigFile, command_line, shown_progress
from clip_har.config import SweepConfig, load_table


def sweep(config: Annotated[SweepConfig, Parameter(name="*")], *, config_file: ConfigFile = None) -> int:
    """Search for good training settings; the best on validation is then evaluated on the test images.

    What is searched is the [search] table of --config, a list of values or a range for each setting of train:

    [search]

    method = ["ridge", "lora"]

    lr = {low = 1e-4, high = 1e-2, log = true}

    The other entries of the file are fixed settings, as for train. The same command continues an interrupted sweep;
    started several times, also on several machines that share --out, all work on the same trials.

    Example: clip-har sweep --config sweep.toml --data photos --out runs/sweep
    """
    from clip_har import commands
    from clip_har.console import Output

    if config_file is not None:
        config = dataclasses.replace(config, search=load_table(config_file, "search"))
    found = commands.sweep(config, progress=shown_progress(), command=command_line())
    output = Output()
    output.sweep(found)
    out = config.out
    files: list[tuple[str, Path | str]] = [("Tables", out / "trials.csv"), ("Plots", out / "history.png")]
    if found.best is not None:
        files.append(("Best run", out / "trials" / str(found.best.number)))
    if found.test is not None and found.best is not None:
        files.append(("Report", out / "trials" / str(found.best.number) / "eval" / "report.html"))
    if not found.counts()["running"]:
        files.extend(_next(config))
    output.files(*files)
    return EXIT_DONE


def _next(config: SweepConfig) -> list[tuple[str, Path | str]]:
    best = config.out / "best.toml"
    return [("Train it again", shlex.join(("clip-har", "train", "--config", str(best), "--out", "runs/best")))]
