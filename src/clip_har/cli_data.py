"""The commands of `clip-har data`: flags in, tables out, exit codes. No logic; that is in commands/.

Running a command line, and what each exit code means, is in cli.py.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from clip_har.audit.settings import AuditSettings, Limits
from clip_har.config.converters import SetAside
from clip_har.download.har import SourceName
from clip_har.errors import ConfigError
from clip_har.progress import SILENT, Progress

EXIT_DONE, EXIT_FINDINGS = 0, 3
"""Done; and what was looked at has more faults than allowed."""

data_app = App(
    name="data",
    help="Fetch HAR, find a dataset's faults, clean and split it; nothing is written into the dataset's folder.",
    help_format="plaintext",
)


@data_app.command
def fetch(name: str, /, *, source: SourceName = "kaggle", out: Path = Path("har"), archive: Path | None = None) -> int:
    """Fetch the HAR dataset and arrange it as class folders; --data har then finds it.

    A connection that is cut, or a full disk, costs nothing: the same command goes on where it stopped.

    Example: clip-har data fetch har --source kaggle --out har

    Args:
        name: The dataset: har.
        source: kaggle: 12,600 labelled images, and unlabelled ones for predict. kaggle-structured: class folders with a
            test split. hub: Bingsu/Human_Action_Recognition on the Hugging Face hub, less its placeholder labels.
        out: A new folder for the images: train/CLASS/, and test/CLASS/ where there is a labelled test split.
        archive: The archive as downloaded from the dataset's Kaggle page in a browser; nothing is then downloaded.
    """
    from clip_har import commands
    from clip_har.console import Output

    fetched = commands.fetch(name, source, out, archive=archive, progress=shown_progress())
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
    settings: Annotated[AuditSettings | None, Parameter(name="*")] = None,
    limits: Annotated[Limits | None, Parameter(name="*")] = None,
    *,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    html: Path | None = None,
) -> int:
    """Find what is wrong with a dataset: unreadable and odd images, copies, leaks between splits, doubtful labels.

    Exit code 0 when nothing is above its limit, 3 when something is.

    Example: clip-har data audit photos --html audit.html --max-duplicates 5

    Args:
        data: Dataset, as for train --data.
        json_file: File for everything that was found, as JSON.
        html: File for one page with thumbnails to work through; its choices download as a plan for data clean.
    """
    from clip_har.commands.audit import audit_data
    from clip_har.console import Output

    settings, limits = settings or AuditSettings(), limits or Limits()
    found = audit_data(
        data,
        settings=settings,
        limits=limits,
        json_file=json_file,
        html_file=html,
        progress=shown_progress(),
        command=_audit_command(data, settings, limits, {"json": json_file, "html": html}),
    )
    output = Output()
    output.audit(found)
    next_command = ["clip-har", "data", "split", str(data)]
    if found.findings:
        next_command = ["clip-har", "data", "clean", str(data), *_flags(settings), "--plan", "plan.csv"]
    written = [(label, file) for label, file in (("Page", html), ("JSON", json_file)) if file is not None]
    output.files(*written, ("Next", shlex.join(next_command)))
    return EXIT_DONE if found.clean else EXIT_FINDINGS


@data_app.command
def clean(
    data: Path,
    /,
    settings: Annotated[AuditSettings | None, Parameter(name="*")] = None,
    *,
    plan: Path,
    out: Path | None = None,
    relabel_suspects: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write a plan of what to keep, drop, relabel and move; with --out, apply it to a new manifest.

    No image is ever touched. First without --out, then look through the plan and edit it, then with --out.

    Example: clip-har data clean photos --plan plan.csv
             clip-har data clean photos --plan plan.csv --out clean.csv
             clip-har train --data clean.csv

    Args:
        data: Dataset, as for train --data.
        plan: CSV file, a row for each image: action keep, drop, relabel (new_class) or move (new_split), and reason.
        out: File for the manifest that the plan makes of the dataset; it loads as --data.
        relabel_suspects: Let the plan give suspected label errors the class that the model suggests.
    """
    from clip_har.commands.audit import apply_cleaning, propose_cleaning
    from clip_har.console import Output

    progress, output = shown_progress(), Output()
    if out is not None:
        if settings is not None or relabel_suspects:
            raise ConfigError(
                "--out applies a plan as it is, so settings of the audit mean nothing", remedy="Leave them out."
            )
        cleaned = apply_cleaning(data, plan, out)
        for warning in cleaned.warnings:
            progress.warn(warning)
        output.line(", ".join(f"{action} {count:,}" for action, count in sorted(cleaned.done.items())))
        output.files(("Manifest", out), ("Next", shlex.join(["clip-har", "train", "--data", str(out)])))
        return EXIT_DONE
    found = propose_cleaning(data, plan, settings=settings, relabel_suspects=relabel_suspects, progress=progress)
    output.audit(found)
    again = ["clip-har", "data", "clean", str(data), "--plan", str(plan), "--out", "clean.csv"]
    output.files(("Plan", plan), ("When it is edited", shlex.join(again)))
    return EXIT_DONE


@data_app.command
def split(
    data: Path,
    /,
    *,
    out: Path = Path("manifest.csv"),
    folds: int | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    group_by: str = "near-duplicates",
    near_distance: int | None = None,
    pool: bool = False,
    set_aside: SetAside | None = None,
    cache: Path | None = None,
    workers: int = -1,
) -> int:
    """Split a dataset into train, val and test, each class in proportion, and write the manifest that says so.

    The manifest is a CSV of path, SHA-256, class and split: publish it, check a copy of the data against it with
    data verify, train and evaluate by it with --manifest. A val/ or test/ that the data has is kept. The split depends
    on the images' content and the seed, not on names or their order.

    Example: clip-har data split photos --out manifest.csv

    Args:
        data: Dataset, as for train --data.
        out: The manifest. It must lie outside the dataset's folder; another split that is there is not overwritten.
        folds: K: write K manifests (manifest-fold-1.csv, ...), with each image in the test split of one of them. The
            data's own splits are set aside. Default: one manifest.
        val_fraction: Share of the training images held out to choose by. In (0, 0.5].
        test_fraction: Share of all images held out for the final figures. In (0, 0.5]; folds test 1/K each.
        seed: Seed of the cuts.
        group_by: Images that must share a split: near-duplicates; or a CSV with the columns path and group, for such as
            photographers or videos; or both, separated by a comma; or none, for the split that train makes by itself.
        near_distance: Bits of 64 in which the perceptual hashes of near-duplicates may differ. Default: the audit's.
        pool: Set the data's own splits aside, and cut test and val out of all images.
        set_aside: Splits of the data to leave out, images and all: test, val or both. Default: none.
        cache: Folder of cached perceptual hashes. Default: $CLIP_HAR_CACHE, else ~/.cache/clip-har.
        workers: Processes that look for near-duplicates; -1 means one per core.
    """
    from clip_har import commands
    from clip_har.console import Output

    config = commands.SplitConfig(
        folds=folds,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        group_by=tuple(part.strip() for part in group_by.split(",") if part.strip()),
        near_distance=near_distance,
        pool=pool,
        set_aside=set_aside or (),
    )
    made = commands.split(data, out, config, cache=cache, workers=workers, progress=shown_progress())
    output = Output()
    for path, dataset in zip(made.files, made.datasets, strict=True):
        counts = ", ".join(f"{name} {count:,}" for name, count in dataset.counts().items())
        output.line(f"{path}: {len(dataset.classes)} classes; {counts} images")
    output.line(f"Kept together: {made.grouped:,} images in {made.groups:,} group{'' if made.groups == 1 else 's'}")
    next_command = ("clip-har", "compare", "--data", str(data), "--manifest", str(made.files[0]))
    output.files(("Next", shlex.join(next_command)))
    return EXIT_DONE


@data_app.command
def verify(data: Path, /, *, manifest: Path, out: Path | None = None, strict: bool = False) -> int:
    """Check a copy of a dataset against a published manifest, image by image, by content.

    Names may differ. Exit code: 0 if every image of the manifest is there, 3 if some are missing or altered.

    Example: clip-har data verify photos --manifest manifest.csv

    Args:
        data: Dataset, as for train --data.
        manifest: The manifest, as data split writes it.
        out: CSV to write of all that differs.
        strict: Exit with 3 also where the folder has images that the manifest does not.
    """
    from clip_har import commands
    from clip_har.console import Output

    found = commands.verify_manifest(data, manifest, out=out)
    output = Output()
    for line in found.lines():
        output.line(line)
    same = found.complete and not (strict and found.extra)
    output.line(f"{data} {'has' if found.complete else 'does not have'} all {found.rows:,} images of {manifest}")
    if out is not None:
        output.files(("All that differs", out))
    return EXIT_DONE if same else EXIT_FINDINGS


def speaks() -> bool:
    """Whether this process is the one of several that talks to the user."""
    return os.environ.get("RANK", "0") == "0"


def shown_progress() -> Progress:
    """Where progress goes: to the terminal, or nowhere from all processes but the first."""
    from clip_har.console import ConsoleProgress

    return ConsoleProgress() if speaks() else SILENT


def _audit_command(data: Path, settings: AuditSettings, limits: Limits, files: dict[str, Path | None]) -> str:
    """The command line as one would type it again, for the page."""
    written = [text for name, file in files.items() if file is not None for text in (f"--{name}", str(file))]
    return shlex.join(["clip-har", "data", "audit", str(data), *_flags(settings), *_flags(limits), *written])


def _flags(settings: AuditSettings | Limits) -> Iterator[str]:
    """The flags that give these settings, where they are not the defaults."""
    for field in dataclasses.fields(settings):
        name, value = field.name.replace("_", "-"), getattr(settings, field.name)
        if value != field.default:
            yield from (f"--no-{name}",) if value is False else (f"--{name}", "none" if value is None else str(value))
