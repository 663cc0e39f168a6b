"""Scores -> metrics, confidence intervals and paired tests, as frozen dataclasses.

No files, no plots and no tensors: everything here takes and returns numpy arrays and plain values.
"""

from clip_har.evaluation.comparison import ComparisonRow, baseline_row, comparison_row
from clip_har.evaluation.measuring import BASELINE_NAME, collapse_warnings, evaluate
from clip_har.evaluation.metrics import (
    CALIBRATION_BINS,
    COLLAPSE_SHARE,
    collapse_of,
    compute_metrics,
    confused_pairs,
    expected_calibration_error,
    top_k_accuracy,
)
from clip_har.evaluation.records import (
    BoolArray,
    ClassMetrics,
    ConfusedPair,
    EpochRecord,
    EvalResult,
    Evaluated,
    FloatArray,
    IntArray,
    Interval,
    Metrics,
    predictions_from,
)
from clip_har.evaluation.statistics import (
    EXACT_BELOW,
    RESAMPLES,
    bootstrap_accuracy,
    bootstrap_difference,
    bootstrap_mean_accuracy,
    mcnemar_p,
    sign_flip_p,
)

__all__ = [
    "BASELINE_NAME",
    "CALIBRATION_BINS",
    "COLLAPSE_SHARE",
    "EXACT_BELOW",
    "RESAMPLES",
    "BoolArray",
    "ClassMetrics",
    "ComparisonRow",
    "ConfusedPair",
    "EpochRecord",
    "EvalResult",
    "Evaluated",
    "FloatArray",
    "IntArray",
    "Interval",
    "Metrics",
    "baseline_row",
    "bootstrap_accuracy",
    "bootstrap_difference",
    "bootstrap_mean_accuracy",
    "collapse_of",
    "collapse_warnings",
    "comparison_row",
    "compute_metrics",
    "confused_pairs",
    "evaluate",
    "expected_calibration_error",
    "mcnemar_p",
    "predictions_from",
    "sign_flip_p",
    "top_k_accuracy",
]
