"""The commands of `clip-har data`: flags in, tables out, exit codes. No logic; that is in workflows.

Running a command line, and what each exit code means, is in cli.py.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from clip_har.audit.settings import AuditSettings, Limits
from clip_har.errors import ConfigError

EXIT_FINDINGS = 3
"""What was looked at has more faults than the limits allow."""

data_app = App(
    name="data",
    help="Fetch HAR, find a dataset's faults, clean and split it; nothing is written into the dataset's folder.",
    help_format="plaintext",
)


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
    from clip_har.console import ConsoleProgress, Output
    from clip_har.workflows.auditing import audit_data

    settings, limits = settings or AuditSettings(), limits or Limits()
    found = audit_data(
        data,
        settings=settings,
        limits=limits,
        json_file=json_file,
        html_file=html,
        progress=ConsoleProgress(),
        command=_audit_command(data, settings, limits, {"json": json_file, "html": html}),
    )
    output = Output()
    output.audit(found)
    written = [(label, file) for label, file in (("Page", html), ("JSON", json_file)) if file is not None]
    output.files(*written, ("Next", shlex.join(["clip-har", "data", "clean", str(data), "--plan", "plan.csv"])))
    return 0 if found.clean else EXIT_FINDINGS


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
    from clip_har.console import ConsoleProgress, Output
    from clip_har.workflows.auditing import apply_cleaning, propose_cleaning

    progress, output = ConsoleProgress(), Output()
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
        return 0
    found = propose_cleaning(data, plan, settings=settings, relabel_suspects=relabel_suspects, progress=progress)
    output.audit(found)
    again = ["clip-har", "data", "clean", str(data), "--plan", str(plan), "--out", "clean.csv"]
    output.files(("Plan", plan), ("When it is edited", shlex.join(again)))
    return 0


def _audit_command(data: Path, settings: AuditSettings, limits: Limits, files: dict[str, Path | None]) -> str:
    """The command line as one would type it again, for the page."""
    given: dict[str, Any] = {
        field.name.replace("_", "-"): value
        for part in (settings, limits)
        for field in dataclasses.fields(part)
        if (value := getattr(part, field.name)) != field.default
    }
    given |= {name: file for name, file in files.items() if file is not None}
    flags = [
        text
        for name, value in given.items()
        for text in ((f"--no-{name}",) if value is False else (f"--{name}", str(value)))
    ]
    return shlex.join(["clip-har", "data", "audit", str(data), *flags])
