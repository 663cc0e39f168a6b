"""The overview of one evaluation: in domain, corruptions, shift, unseen actions and calibration side by side.

Values and words only; the details of each part are in `sections`.
"""

from __future__ import annotations

from dataclasses import dataclass

from clip_har import wording
from clip_har.evaluation import EvalResult
from clip_har.report.html import split_word
from clip_har.report.parts import ReportParts


@dataclass(frozen=True, kw_only=True)
class OverviewRow:
    """One line of the overview; values are fractions."""

    name: str
    note: str
    """What was measured on what, in a few words."""
    before: float
    """Of zero-shot."""
    after: float | None
    """Of the run; None without one."""
    lower_is_better: bool = False
    as_fraction: bool = False
    """Whether it is written as 0.729, as F1 and ECE are, rather than as 72.9 %."""
    evidence: str = ""
    """An interval or a p-value of the difference; may be empty."""

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.after is None else self.after - self.before

    @property
    def better(self) -> bool | None:
        """Whether tuning is on the good side; None where it changed nothing that is shown, or there is no run."""
        if self.difference is None or abs(self.difference) < 0.0005:
            return None
        return (self.difference < 0) == self.lower_is_better


def overview(result: EvalResult, findings: ReportParts) -> list[tuple[str, list[OverviewRow]]]:
    """The rows of what is known under the names of their groups, in reading order."""
    groups = {
        "In domain": _in_domain(result),
        "Corruptions": _corruptions(findings),
        "Distribution shift": _shifts(findings),
        "Unseen classes": _unseen(findings),
        "Calibration": _calibration(result, findings),
    }
    return [(group, rows) for group, rows in groups.items() if rows]


def _in_domain(result: EvalResult) -> list[OverviewRow]:
    after = result.finetuned.metrics if result.finetuned else None
    images = f"{result.n:,} {split_word(result.split)} images"
    interval = result.difference_ci95
    evidence = "" if interval is None else f"{wording.points(interval[0])} to {wording.points(interval[1])}"
    return [
        OverviewRow(
            name="Accuracy",
            note=images,
            before=result.baseline.metrics.accuracy,
            after=after.accuracy if after else None,
            evidence=evidence,
        ),
        OverviewRow(
            name="Macro F1",
            note="mean over classes",
            before=result.baseline.metrics.macro_f1,
            after=after.macro_f1 if after else None,
            as_fraction=True,
        ),
    ]


def _corruptions(findings: ReportParts) -> list[OverviewRow]:
    found = findings.robustness
    if found is None:
        return []
    kinds = len({score.kind for score in found.scores})
    severities = len({score.severity for score in found.scores})
    word = "severity" if severities == 1 else "severities"
    return [
        OverviewRow(
            name="Mean accuracy",
            note=f"{wording.counted(kinds, 'corruption')}, {severities} {word}, {found.images:,} images",
            before=found.mean_baseline,
            after=found.mean_finetuned,
        )
    ]


def _shifts(findings: ReportParts) -> list[OverviewRow]:
    return [
        OverviewRow(
            name=shift.name,
            note=f"{shift.images:,} images, {shift.classes} classes",
            before=shift.baseline,
            after=shift.finetuned,
            evidence="" if shift.mcnemar_p is None else wording.p_value(shift.mcnemar_p),
        )
        for shift in findings.shifts
    ]


def _unseen(findings: ReportParts) -> list[OverviewRow]:
    found = findings.unseen
    if found is None:
        return []
    rows = (
        ("Base classes", f"{len(found.base_classes)} trained on", found.baseline.base, found.finetuned.base),
        ("Unseen classes", f"{len(found.novel_classes)} held out", found.baseline.novel, found.finetuned.novel),
        ("Harmonic mean", "of the two", found.baseline.harmonic, found.finetuned.harmonic),
    )
    return [OverviewRow(name=name, note=note, before=before, after=after) for name, note, before, after in rows]


def _calibration(result: EvalResult, findings: ReportParts) -> list[OverviewRow]:
    rows = [
        OverviewRow(
            name="ECE",
            note="expected calibration error",
            before=result.baseline.metrics.ece,
            after=result.finetuned.metrics.ece if result.finetuned else None,
            lower_is_better=True,
            as_fraction=True,
        )
    ]
    before, after = findings.confidence_baseline, findings.confidence_finetuned
    if before is not None:
        rows.append(
            OverviewRow(
                name="ECE, scaled",
                note="after temperature scaling",
                before=before.ece_after,
                after=None if after is None else after.ece_after,
                lower_is_better=True,
                as_fraction=True,
            )
        )
    return rows
