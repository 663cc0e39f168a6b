"""Where a method stands to zero-shot, in words that tables, plots, the page and the terminal share.

The tests behind the words are in `clip_har.evaluation`; colours and marks are in `comparison_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clip_har import wording
from clip_har.evaluation import ComparisonRow, EvalResult, baseline_row

ZERO_SHOT = "zero-shot"
METHOD = "method"
ABOVE = "above zero-shot"
INDISTINCT = "not distinguishable from zero-shot"
BELOW = "below zero-shot"
COLLAPSED = "collapsed"
LOUD = {
    INDISTINCT: "NOT DISTINGUISHABLE from zero-shot",
    BELOW: "BELOW zero-shot",
    COLLAPSED: "COLLAPSED",
}
"""The standings that must not be overlooked, as plain text raises its voice."""


def zero_shot_level(rows: Sequence[ComparisonRow], results: Mapping[str, EvalResult]) -> float | None:
    """Zero-shot's accuracy: of its own row, or as the other methods were measured against it."""
    baseline = baseline_row(rows)
    if baseline is not None:
        return baseline.accuracy
    return next((result.baseline.metrics.accuracy for result in results.values()), None)


def standing(row: ComparisonRow, level: float | None) -> str:
    """Where a method stands to zero-shot, whose accuracy is `level`.

    Above or below needs a p below 0.05 of the row's paired test. A collapse outweighs everything else. Where
    zero-shot is not known, a method is just a method.
    """
    if row.collapsed:
        return COLLAPSED
    if wording.is_baseline(row.method):
        return ZERO_SHOT
    if level is None or row.mcnemar_p is None:
        return METHOD
    if row.mcnemar_p >= wording.SIGNIFICANT_BELOW:
        return INDISTINCT
    return ABOVE if row.accuracy > level else BELOW


def verdict_lines(rows: Sequence[ComparisonRow], level: float | None) -> list[str]:
    """One line of plain text for each method but zero-shot: its gain, and what the gain is worth."""
    told = [(row, standing(row, level)) for row in rows]
    told = [(row, where) for row, where in told if where not in (ZERO_SHOT, METHOD)]
    width = max((len(row.name) for row, _ in told), default=0)
    return [f"{row.name.ljust(width)}  {_verdict(row, where, level)}" for row, where in told]


def reading_notes(rows: Sequence[ComparisonRow]) -> list[str]:
    """How intervals and p-values of these rows are to be read, a sentence each."""
    several = any(len(row.seeds) > 1 for row in rows)
    without_seed = several and any(len(row.seeds) == 1 and wording.is_baseline(row.method) for row in rows)
    single = any(len(row.seeds) == 1 and not (without_seed and wording.is_baseline(row.method)) for row in rows)
    notes = []
    if several:
        notes.append(
            "Of several seeds, accuracy and macro F1 are means, ± is their sample standard deviation, the interval "
            "combines a bootstrap over images with Student’s t over the seeds, and p is from a sign-flip test over "
            "images on the seeds’ mean predictions, which does not cover the variation across seeds."
        )
    if without_seed:
        notes.append(
            "Zero-shot is evaluated once, because no seed changes it; its interval is a bootstrap over images."
        )
    if single:
        notes.append(
            f"{'Of a single seed, the' if several else 'The'} interval is a bootstrap over images and p is from "
            "McNemar’s test; neither covers the variation across training seeds."
        )
    notes.append(
        "All tests are two-sided, against zero-shot on the same images, and p is not corrected for the number of "
        "methods. The best of several methods on the same test images is a slightly optimistic estimate."
    )
    return notes


def _verdict(row: ComparisonRow, where: str, level: float | None) -> str:
    said = LOUD.get(where, where)
    gain = "" if level is None else f"{wording.points(row.accuracy - level).rjust(5)} points, "
    evidence = "" if where == COLLAPSED or row.mcnemar_p is None else f" ({wording.p_value(row.mcnemar_p)})"
    note = f"; {wording.one_line(row.note)}" if row.note else ""
    return f"{gain}{said}{evidence}{note}"
