"""What may be shown of an evaluation beside its metrics, gathered in one record; each part is optional.

The parts come from `clip_har.evaluation.findings`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clip_har.audit.records import Check
from clip_har.evaluation.findings import Confidence, EmbeddingMap, Explanation, Robustness, ShiftScore, Unseen


@dataclass(frozen=True, kw_only=True)
class WisePoint:
    """One mixture of zero-shot and tuned weights, on the test split and beyond it. Accuracies are in [0, 1]."""

    share: float
    """Share of the tuned weights: 0 is zero-shot, 1 the run (Wortsman et al. 2022, arXiv 2109.01903)."""
    in_domain: float
    """Accuracy on the test images."""
    corrupted: float | None = None
    """Mean accuracy on corrupted test images; None where it was not measured."""
    unseen: float | None = None
    """Accuracy on the actions that were held out of training; None where none were."""


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
class Findings:
    """The optional parts of an evaluation's report; a part that is not given is not shown."""

    confidence_baseline: Confidence | None = None
    """Calibration, selective prediction and conformal sets of zero-shot."""
    confidence_finetuned: Confidence | None = None
    """The same of the run."""
    robustness: Robustness | None = None
    shifts: tuple[ShiftScore, ...] = ()
    unseen: Unseen | None = None
    wise_curve: tuple[WisePoint, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    embedding_map: EmbeddingMap | None = None
    data: DataSummary | None = None


@dataclass(frozen=True, kw_only=True)
class PairwiseTest:
    """Two methods on the same images: how far apart they are, and whether that may be chance."""

    first: str
    """Name of one entry of the comparison."""
    second: str
    """Name of the other."""
    difference: float
    """Accuracy of the first minus that of the second."""
    p: float
    """p-value of the paired test, as it is."""
    p_holm: float
    """The same after Holm's correction for the number of pairs (Holm 1979)."""


NOTHING = Findings()
"""An evaluation of which only the metrics are known."""
