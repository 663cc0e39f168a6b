"""What an audit finds, as dataclasses that the table, the JSON, the page and the plan are written from.

How it is found is in the package's other modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clip_har.audit.label_errors import LabelDoubt
from clip_har.dataset import SPLITS
from clip_har.dataset.layout import FoundFile

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "unreadable",
    "truncated",
    "leak",
    "conflict",
    "duplicate",
    "label",
    "tiny",
    "shape",
    "greyscale",
    "one-tone",
    "missing-class",
    "imbalance",
]
CheckName = Literal["unreadable", "leaks", "conflicts", "duplicates", "label_errors", "odd", "imbalance"]
CHECKS: Mapping[CheckName, tuple[Kind, ...]] = {
    "unreadable": ("unreadable", "truncated"),
    "leaks": ("leak",),
    "conflicts": ("conflict",),
    "duplicates": ("duplicate",),
    "label_errors": ("label",),
    "odd": ("tiny", "shape", "greyscale", "one-tone"),
    "imbalance": ("missing-class", "imbalance"),
}
"""What is counted together, and compared with one limit."""
UNSPLIT = "all"
"""The split of an image that nothing puts into one, in counts and tables."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault, with the images that show it."""

    kind: Kind
    severity: Severity
    files: tuple[FoundFile, ...]
    """The images; in a group of copies, the one to keep comes first. Empty for faults of whole classes."""
    why: str
    action: str
    """What to do about it, as an imperative sentence."""
    notes: tuple[str, ...] = ()
    """One for each file: how it is related to the first."""
    count: int = 1
    """How many images it counts for where limits are compared."""
    doubt: LabelDoubt | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        notes = self.notes or ("",) * len(self.files)
        out: dict[str, Any] = {
            "kind": self.kind,
            "severity": self.severity,
            "why": self.why,
            "action": self.action,
            "count": self.count,
            "files": [
                {
                    "path": file.name,
                    "sha256": file.sha256 or None,
                    "class": file.label,
                    "split": file.split,
                    **({"note": note} if note else {}),
                }
                for file, note in zip(self.files, notes, strict=True)
            ],
        }
        if self.doubt is not None:
            out["given"] = {"class": self.doubt.given, "probability": round(self.doubt.given_probability, 6)}
            out["suggested"] = {
                "class": self.doubt.suggested,
                "probability": round(self.doubt.suggested_probability, 6),
            }
        return out


@dataclass(frozen=True, kw_only=True)
class Check:
    """How many images have one sort of fault, against how many are allowed."""

    name: CheckName
    found: int
    limit: int | None
    """None: any number."""
    performed: bool = True
    """Whether it was looked for at all."""

    @property
    def above(self) -> bool:
        """Whether there are more than the limit allows."""
        return self.limit is not None and self.found > self.limit


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Everything that was found in a dataset."""

    root: Path
    files: tuple[FoundFile, ...]
    """Every image, those that cannot be read among them."""
    findings: tuple[Finding, ...]
    """Worst first; suspected labels by doubt."""
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    model: str | None
    """Whose features were used; None without."""

    @property
    def clean(self) -> bool:
        """Whether every check is within its limit."""
        return not any(check.above for check in self.checks)

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> class -> images, in reading order; every class in every split that occurs."""
        return class_counts(self.files)

    def of(self, check: CheckName) -> tuple[Finding, ...]:
        """The findings that a check counts."""
        return tuple(finding for finding in self.findings if finding.kind in CHECKS[check])

    def to_json(self) -> dict[str, Any]:
        """The whole audit as JSON values."""
        return {
            "data": str(self.root),
            "images": len(self.files),
            "model": self.model,
            "clean": self.clean,
            "counts": self.counts(),
            "checks": {
                check.name: {
                    "found": check.found if check.performed else None,
                    "limit": check.limit,
                    "above": check.above,
                }
                for check in self.checks
            },
            "warnings": list(self.warnings),
            "findings": [finding.to_json() for finding in self.findings],
        }


def class_counts(files: tuple[FoundFile, ...]) -> dict[str, dict[str, int]]:
    """Split -> class -> images; every class in every split that occurs."""
    order: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}
    splits = sorted({file.split or UNSPLIT for file in files}, key=lambda split: order.get(split, len(order)))
    classes = sorted({file.label for file in files})
    counts = {split: dict.fromkeys(classes, 0) for split in splits}
    for file in files:
        counts[file.split or UNSPLIT][file.label] += 1
    return counts
