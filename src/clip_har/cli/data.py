"""The commands of `clip-har data`: flags in, tables out, exit codes. No logic; that is in commands/.

Running a command line, and what each exit code means, is in runner.py.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from clip_har.cli.shared import EXIT_DONE, EXIT_FINDINGS, ConfigFile, shown_progress
from clip_har.config import (
    AuditConfig,
    AuditLimits,
    AuditSettings,
    CleanConfig,
    FetchConfig,
    SplitConfig,
    VerifyConfig,
)

data_app = App(
    name="data",
    help="Download HAR; audit, clean and split datasets. The dataset directory is never modified.",
    help_format="plaintext",
)


@data_app.command
def fetch(
    name: str,
    /,
    config: Annotated[FetchConfig | None, Parameter(name="*")] = None,
    *,
    config_file: ConfigFile = None,
) -> int:
    """Download the HAR dataset and arrange it as class folders, for use with --data har.

    If the download is interrupted, run the same command again to resume it.

    Example: clip-har data fetch har --source kaggle --out har

    Args:
        name: The dataset: har.
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    config = config or FetchConfig()
    fetched = commands.fetch(name, config.source, config.out, archive=config.archive, progress=shown_progress())
    output, arranged = Output(), fetched.arranged
    output.line(f"{fetched.folder}: {arranged.labelled:,} labelled images")
    if arranged.unlabelled:
        output.line(f"{fetched.folder}/.unlabelled: {arranged.unlabelled:,} images for clip-har predict")
    output.files(("Next", shlex.join(["clip-har", "compare", "--data", name, "--model", "ViT-B/32"])))
    return EXIT_DONE


@data_app.command
def audit(
    data: Path,
    /,
    config: Annotated[AuditConfig | None, Parameter(name="*")] = None,
    *,
    config_file: ConfigFile = None,
) -> int:
    """Find dataset issues: unreadable images, outliers, duplicates, train/test leakage and likely label errors.

    Exit code: 0 if all counts are within their limits, otherwise 3.

    Example: clip-har data audit photos --html audit.html --max-duplicates 5

    Args:
        data: Dataset, as for train --data.
    """
    from clip_har.commands.audit import audit_data
    from clip_har.console import Output

    del config_file
    config = config or AuditConfig()
    found = audit_data(
        data,
        settings=config.settings,
        limits=config.limits,
        json_file=config.json,
        html_file=config.html,
        progress=shown_progress(),
        command=_audit_command(data, config),
    )
    output = Output()
    output.audit(found)
    next_command = ["clip-har", "data", "split", str(data)]
    if found.findings:
        next_command = ["clip-har", "data", "clean", str(data), *_flags(config.settings), "--plan", "plan.csv"]
    written = [(label, file) for label, file in (("Page", config.html), ("JSON", config.json)) if file is not None]
    output.files(*written, ("Next", shlex.join(next_command)))
    return EXIT_DONE if found.clean else EXIT_FINDINGS


@data_app.command
def clean(
    data: Path,
    /,
    config: Annotated[CleanConfig, Parameter(name="*")],
    *,
    config_file: ConfigFile = None,
) -> int:
    """Write a plan of images to keep, drop, relabel and move; with --out, apply it and write a new manifest.

    Image files are never modified. Run it without --out, review and edit the plan, then run it with --out.

    Example: clip-har data clean photos --plan plan.csv
             clip-har data clean photos --plan plan.csv --out clean.csv
             clip-har train --data clean.csv

    Args:
        data: Dataset, as for train --data.
    """
    from clip_har.commands.audit import apply_cleaning, propose_cleaning
    from clip_har.console import Output

    del config_file
    progress, output = shown_progress(), Output()
    plan, out = config.plan, config.out
    if out is not None:
        if config.settings is not None or config.relabel_suspects:
            progress.note(
                "--out applies the plan as it is: settings of the audit and --relabel-suspects have no effect"
            )
        cleaned = apply_cleaning(data, plan, out)
        for warning in cleaned.warnings:
            progress.warn(warning)
        output.line(", ".join(f"{action} {count:,}" for action, count in sorted(cleaned.done.items())))
        output.files(("Manifest", out), ("Next", shlex.join(["clip-har", "train", "--data", str(out)])))
        return EXIT_DONE
    found = propose_cleaning(
        data, plan, settings=config.settings, relabel_suspects=config.relabel_suspects, progress=progress
    )
    output.audit(found)
    again = ["clip-har", "data", "clean", str(data), "--plan", str(plan), "--out", "clean.csv"]
    output.files(("Plan", plan), ("When it is edited", shlex.join(again)))
    return EXIT_DONE


@data_app.command
def split(
    data: Path,
    /,
    config: Annotated[SplitConfig | None, Parameter(name="*")] = None,
    *,
    config_file: ConfigFile = None,
) -> int:
    """Create a stratified train, val and test split of a dataset and write it as a manifest.

    The manifest is a CSV of path, SHA-256, class and split. Publish it, check a copy of the data against it with
    data verify, and pass it to train and evaluate with --manifest. An existing val or test split is kept. The split
    depends on the images' content and the seed, not on names or their order.

    Example: clip-har data split photos --out manifest.csv

    Args:
        data: Dataset, as for train --data.
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    made = commands.split(data, config or SplitConfig(), progress=shown_progress())
    output = Output()
    for path, dataset in zip(made.files, made.datasets, strict=True):
        counts = ", ".join(f"{name} {count:,}" for name, count in dataset.counts().items())
        output.line(f"{path}: {len(dataset.classes)} classes; {counts} images")
    if made.groups:
        groups = f"{made.groups:,} group{'' if made.groups == 1 else 's'}"
        output.line(f"Kept together: {made.grouped:,} images in {groups}")
    next_command = ("clip-har", "compare", "--data", str(data), "--manifest", str(made.files[0]))
    output.files(("Next", shlex.join(next_command)))
    return EXIT_DONE


@data_app.command
def verify(
    data: Path, /, config: Annotated[VerifyConfig, Parameter(name="*")], *, config_file: ConfigFile = None
) -> int:
    """Check a copy of a dataset against a published manifest, by the content of each image.

    File names may differ. Exit code: 0 if every image of the manifest is there, 3 if images are missing or altered.

    Example: clip-har data verify photos --manifest manifest.csv

    Args:
        data: Dataset, as for train --data.
    """
    from clip_har import commands
    from clip_har.console import Output

    del config_file
    manifest, out = config.manifest, config.out
    found = commands.verify_manifest(data, manifest, out=out)
    output = Output()
    for line in found.lines():
        output.line(line)
    same = found.complete and not (config.strict and found.extra)
    output.line(f"{data} {'has' if found.complete else 'does not have'} all {found.rows:,} images of {manifest}")
    if out is not None:
        output.files(("All that differs", out))
    return EXIT_DONE if same else EXIT_FINDINGS


def _audit_command(data: Path, config: AuditConfig) -> str:
    """The command line as one would type it again, for the page."""
    files = (("--json", config.json), ("--html", config.html))
    written = [text for name, file in files if file is not None for text in (name, str(file))]
    given = (*_flags(config.settings), *_flags(config.limits), *written)
    return shlex.join(["clip-har", "data", "audit", str(data), *given])


def _flags(settings: AuditSettings | AuditLimits) -> Iterator[str]:
    """The flags that give these settings, where they are not the defaults."""
    for field in dataclasses.fields(settings):
        name, value = field.name.replace("_", "-"), getattr(settings, field.name)
        if value != field.default:
            yield from (f"--no-{name}",) if value is False else (f"--{name}", "none" if value is None else str(value))
