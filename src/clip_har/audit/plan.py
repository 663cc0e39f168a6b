"""The cleaning plan: what to do with each image and why, as a CSV file that a person edits, and what comes of it.

Applying a plan makes a new manifest; the images are never touched.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip_har.audit.copies import LOOKS_ALIKE, SAME_BYTES
from clip_har.audit.inventory import Inventory
from clip_har.audit.records import Audit, Finding
from clip_har.csv_cells import csv_text, true_cell
from clip_har.dataset import MANIFEST_COLUMNS, SPLITS
from clip_har.dataset.layout import FoundFile
from clip_har.errors import DataError
from clip_har.files import write_atomically
from clip_har.images.addresses import address_text

PLAN_COLUMNS = ("path", "sha256", "class", "split", "action", "new_class", "new_split", "reason")
ACTIONS = ("keep", "drop", "relabel", "move")
SHOWN_PROBLEMS = 20
_NEEDED_COLUMNS = ("path", "sha256", "action")


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One image, and what becomes of it."""

    path: str
    """Its name within the dataset."""
    sha256: str
    label: str
    split: str
    action: str
    new_class: str = ""
    new_split: str = ""
    reason: str = ""

    def cells(self) -> tuple[str, ...]:
        """In the order of PLAN_COLUMNS."""
        return (
            self.path,
            self.sha256,
            self.label,
            self.split,
            self.action,
            self.new_class,
            self.new_split,
            self.reason,
        )


# Proposing


def proposed_plan(audit: Audit, *, relabel_suspects: bool = False) -> list[PlanRow]:
    """A row for every image, those with a reason first.

    What cannot be read is dropped, and of every leak the copies that are not in the split held out first, unless they
    only look alike to the model; of files
    with equal bytes, class and split one is kept. All else is kept and says what to look at.

    Args:
        audit: what was found.
        relabel_suspects: give suspected label errors the class that the model suggests.
    """
    rows = {
        file.name: PlanRow(path=file.name, sha256=file.sha256, label=file.label, split=file.split or "", action="keep")
        for file in audit.files
    }
    for finding in audit.findings:
        for file, change in _changes(finding, relabel_suspects):
            rows[file.name] = _merged(rows[file.name], change)
    return sorted(rows.values(), key=lambda row: (not row.reason, row.path))


def _changes(finding: Finding, relabel_suspects: bool) -> Iterator[tuple[FoundFile, PlanRow]]:
    """What one finding says of each of its images."""
    if not finding.files:
        return
    first = finding.files[0]
    kept: dict[tuple[str, str, str | None], FoundFile] = {}
    for place, file in enumerate(finding.files):
        row = PlanRow(path=file.name, sha256=file.sha256, label=file.label, split=file.split or "", action="keep")
        note = finding.notes[place] if finding.notes else ""
        same = kept.setdefault((file.sha256, file.label, file.split), file)
        if finding.kind in ("unreadable", "truncated"):
            yield file, replace(row, action="drop", reason=f"cannot be read: {finding.why}")
        elif finding.kind == "leak" and file.split not in (None, first.split):
            # What only looks alike to the model is for a person to judge.
            action = "keep" if note == LOOKS_ALIKE else "drop"
            yield file, replace(row, action=action, reason=f"{_relation(note)} {first.name} in {first.split}")
        elif finding.kind == "duplicate" and same is not file:
            yield file, replace(row, action="drop", reason=f"{_relation(SAME_BYTES)} {same.name}")
        elif finding.kind == "duplicate" and place > 0:
            yield file, replace(row, reason=f"{_relation(note)} {first.name}")
        elif finding.kind == "conflict":
            yield file, replace(row, reason=f"conflict: {finding.why}")
        elif finding.doubt is not None:
            new = finding.doubt.suggested if relabel_suspects else ""
            reason = f"suspected label error: {finding.why}"
            yield file, replace(row, action="relabel" if new else "keep", new_class=new, reason=reason)
        elif finding.kind in ("tiny", "shape", "one-tone"):
            yield file, replace(row, reason=finding.why)


def _relation(note: str) -> str:
    return {SAME_BYTES: "same file as", LOOKS_ALIKE: "looks like"}.get(note, "same picture as")


def _merged(row: PlanRow, change: PlanRow) -> PlanRow:
    """Both reasons, and the action that goes further: drop before relabel before keep."""
    reason = "; ".join(dict.fromkeys(part for part in (row.reason, change.reason) if part))
    further = change if (change.action != "keep" and row.action != "drop") else row
    new_class = "" if further.action == "drop" else further.new_class
    return replace(further, new_class=new_class, reason=reason)


def write_plan(rows: Sequence[PlanRow], path: Path) -> None:
    """Write a plan, whole or not at all."""
    write_atomically(path, csv_text(PLAN_COLUMNS, (row.cells() for row in rows)))


# Reading back


def read_plan(path: Path, inventory: Inventory) -> list[PlanRow]:
    """Read a plan and check it against the dataset as it is now.

    Raises:
        DataError: naming every row that cannot be carried out.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=_delimiter(stream.readline()))
            stream.seek(0)
            lacking = [column for column in _NEEDED_COLUMNS if column not in (reader.fieldnames or ())]
            rows = [] if lacking else [(reader.line_num, _row(cells)) for cells in reader]
            numbered = [(line, row) for line, row in rows if any(row.cells())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a plan: {error}", remedy="Save it as CSV in UTF-8.") from error
    if lacking:
        raise DataError(
            f"{path} has no column {lacking[0]!r}", remedy="Delete it and run the command again to create a new one."
        )
    problems = list(_problems(numbered, inventory))
    if problems:
        shown = "; ".join(problems[:SHOWN_PROBLEMS])
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(f"{path} cannot be applied: {shown}{more}", remedy="Fix these lines; nothing was written.")
    return [row for _, row in numbered]


def _delimiter(header: str) -> str:
    """What stands between the columns: some spreadsheets write semicolons or tabs."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def _row(cells: Mapping[str | None, str | None]) -> PlanRow:
    def cell(name: str) -> str:
        return true_cell(str(cells.get(name) or "")).strip()

    return PlanRow(
        path=true_cell(str(cells.get("path") or "")),
        sha256=cell("sha256"),
        label=cell("class"),
        split=cell("split"),
        action=cell("action").lower(),
        new_class=cell("new_class"),
        new_split=cell("new_split").lower(),
        reason=cell("reason"),
    )


def _problems(rows: Sequence[tuple[int, PlanRow]], inventory: Inventory) -> Iterator[str]:
    """Yield what is wrong with each row, as "line 7: ..."."""
    hashes = {file.name: file.sha256 for file in inventory.images}
    hashes |= {file.name: "" for file, _ in inventory.unreadable}
    classes = {file.label for file in inventory.images}
    seen = Counter(row.path for _, row in rows)
    for line, row in rows:
        for problem in _row_problems(row, hashes, classes):
            yield f"line {line}: {problem}"
        if seen[row.path] > 1:
            yield f"line {line}: {row.path} is listed {seen[row.path]} times"


def _row_problems(row: PlanRow, hashes: Mapping[str, str], classes: set[str]) -> Iterator[str]:
    if row.path not in hashes:
        yield f"the dataset has no {row.path!r}"
    elif row.sha256 and hashes[row.path] != row.sha256:
        yield f"{row.path} has changed since the plan was made"
    if row.action not in ACTIONS:
        yield f"unknown action {row.action!r}; it is keep, drop, relabel or move"
        return
    if row.action == "relabel" and not row.new_class:
        yield "relabel needs a new_class"
    if row.action == "move" and not row.new_split:
        yield "move needs a new_split"
    if row.action in ("keep", "drop") and (row.new_class or row.new_split):
        yield f"new_class or new_split is given, but the action is {row.action}"
    if row.new_class and row.new_class not in classes:
        yield f"there is no class {row.new_class!r}"
    if row.new_split and row.new_split not in SPLITS:
        yield f"there is no split {row.new_split!r}; it is train, val or test"


# Applying


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What a plan made of a dataset."""

    files: tuple[FoundFile, ...]
    """The images left, with their new classes and splits."""
    done: Mapping[str, int]
    """Action -> images."""
    warnings: tuple[str, ...]


def apply_plan(rows: Sequence[PlanRow], inventory: Inventory) -> Cleaned:
    """Carry out a plan that `read_plan` accepted. Images that it does not list are kept.

    Raises:
        DataError: no image is left.
    """
    planned = {row.path: row for row in rows}
    done: Counter[str] = Counter()
    left: list[FoundFile] = []
    for file in inventory.images:
        row = planned.get(file.name)
        done[row.action if row else "keep"] += 1
        if row is None or row.action == "keep":
            left.append(file)
        elif row.action != "drop":
            split = next((split for split in SPLITS if split == row.new_split), file.split)
            left.append(replace(file, label=row.new_class or file.label, split=split))
    if not left:
        raise DataError("The plan drops every image", remedy="Keep some images.")
    return Cleaned(files=tuple(left), done=dict(done), warnings=tuple(_left_over(inventory, planned, left)))


def _left_over(inventory: Inventory, planned: Mapping[str, PlanRow], left: Sequence[FoundFile]) -> Iterator[str]:
    """Yield what the manifest still has that a training will not take, or not like."""
    kept = [file.name for file, _ in inventory.unreadable if file.name in planned]
    kept = [name for name in kept if planned[name].action != "drop"]
    if kept:
        yield f"{len(kept)} files that are not images cannot be listed, such as {kept[0]}"
    splits: dict[str, set[str | None]] = {}
    for file in left:
        splits.setdefault(file.sha256, set()).add(file.split)
    leaking = sum(len(found) > 1 for found in splits.values())
    if leaking:
        yield f"{leaking} images still are in several splits"
    labels = {file.label for file in inventory.images} - {file.label for file in left}
    if labels:
        yield f"No image remains of {', '.join(sorted(labels))}"


def manifest_csv(files: Sequence[FoundFile], folder: Path) -> str:
    """A manifest (path, sha256, class, split) to lie in `folder`.

    Paths are relative to that folder where the image is below it, else absolute.
    """
    here = folder.resolve()

    rows = ((address_text(file.path, here), file.sha256, file.label, file.split or "") for file in files)
    return csv_text(MANIFEST_COLUMNS, rows)
