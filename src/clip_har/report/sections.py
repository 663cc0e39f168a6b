"""The optional parts of an evaluation's page as its template wants them: confidence, corruptions, data.

Explanations are in `explanations`; a part that was not measured is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clip_har.evaluation.findings import Robustness
from clip_har.report.finding_plots import by_kind, confidences
from clip_har.report.html import split_word
from clip_har.report.parts import DataSummary, ReportParts

UNREADABLE_SHOWN = 20
ENVIRONMENT_KEYS = {
    "device": "Device",
    "precision": "Precision",
    "platform": "Platform",
    "seed": "Seed",
    "seeds": "Seeds",
    "backbone": "Model",
    "weights_hash": "Weights (SHA-256)",
    "manifest_sha256": "Split manifest (SHA-256)",
    "data": "Data",
}
"""Keys of the facts that say what these numbers were made with."""


def confidence_tables(findings: ReportParts, label: str) -> dict[str, Any] | None:
    """Selective prediction and conformal sets of each model that was examined."""
    models = confidences(findings, label)
    if not models:
        return None
    return {
        "selective": [(name, point) for name, found in models.items() for point in found.selective],
        "conformal": [(name, level) for name, found in models.items() for level in found.conformal],
        "aurc": [(name, found.aurc) for name, found in models.items()],
        "temperatures": [(name, found.temperature) for name, found in models.items()],
    }


def corruption_rows(robustness: Robustness | None) -> dict[str, Any] | None:
    """One row for each corruption and model: accuracy by severity, and the mean."""
    if robustness is None or not robustness.scores:
        return None
    severities = sorted({score.severity for score in robustness.scores})
    rows = []
    for kind, scores in by_kind(robustness.scores).items():
        at = {score.severity: score for score in scores}
        before = [at[severity].baseline if severity in at else None for severity in severities]
        after = [at[severity].finetuned if severity in at else None for severity in severities]
        rows.append({"kind": kind.replace("-", " "), "before": _with_mean(before), "after": _with_mean(after)})
    return {"severities": severities, "rows": rows, "tuned": robustness.clean_finetuned is not None}


def _with_mean(values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {"values": values, "mean": sum(known) / len(known) if known else None}


def data_summary(summary: DataSummary | None, said: Sequence[str] = ()) -> dict[str, Any] | None:
    """Images of each class and split, what was left out, what an audit found.

    Args:
        summary: the data, or None.
        said: warnings that the page has above already.
    """
    if summary is None:
        return None
    splits = list(summary.counts)
    names = list(dict.fromkeys(name for counts in summary.counts.values() for name in counts))
    return {
        "splits": [split_word(split) for split in splits],
        "classes": [(name, [summary.counts[split].get(name, 0) for split in splits]) for name in names],
        "totals": [sum(summary.counts[split].values()) for split in splits],
        "unreadable": summary.unreadable[:UNREADABLE_SHOWN],
        "n_unreadable": len(summary.unreadable),
        "warnings": [warning for warning in summary.warnings if warning not in said],
        "checks": [
            {
                "name": check.name.replace("_", " "),
                "found": f"{check.found:,}" if check.performed else "not checked",
                "limit": "none" if check.limit is None else f"{check.limit:,}",
                "above": check.above,
            }
            for check in summary.checks
        ],
    }


def environment_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to make the same numbers again: hardware, seed, hashes, versions."""
    rows = [
        (label, ", ".join(map(str, facts[key])) if isinstance(facts[key], list | tuple) else str(facts[key]))
        for key, label in ENVIRONMENT_KEYS.items()
        if facts.get(key) is not None
    ]
    return rows + [(str(name), str(version)) for name, version in (facts.get("versions") or {}).items()]
