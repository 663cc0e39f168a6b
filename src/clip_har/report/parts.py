"""What may be shown of an evaluation beside its metrics, gathered in one record; each part is optional.

The parts come from `clip_har.evaluation.findings`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clip_har.audit.records import Check
from clip_har.evaluation.findings import (
    Confidence,
    EmbeddingMap,
    Explanation,
    Robustness,
    ShiftScore,
    Unseen,
    WiseCurve,
)
from clip_har.evaluation.unknown import UnknownActions


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The dataset behind an evaluation, in numbers."""

    counts: Mapping[str, Mapping[str, int]]
    """Split -> class -> images."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Path and reason of each image that was left out."""
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    """What an audit of the same data found; empty where there was none."""


@dataclass(frozen=True, kw_only=True)
class ReportParts:
    """The optional parts of an evaluation's report; a part that is not given is not shown."""

    confidence_baseline: Confidence | None = None
    """Calibration, selective prediction and conformal sets of zero-shot."""
    confidence_finetuned: Confidence | None = None
    """The same of the run."""
    robustness: Robustness | None = None
    shifts: tuple[ShiftScore, ...] = ()
    unseen: Unseen | None = None
    unknown: UnknownActions | None = None
    wise_curve: WiseCurve | None = None
    explanations: tuple[Explanation, ...] = ()
    embedding_map: EmbeddingMap | None = None
    data: DataSummary | None = None


NOTHING = ReportParts()
"""An evaluation of which only the metrics are known."""
