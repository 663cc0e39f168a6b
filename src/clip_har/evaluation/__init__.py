"""Scores -> metrics, confidence intervals and paired tests, as frozen dataclasses.

No files, no plots and no tensors: everything here takes and returns numpy arrays and plain values.
"""

from clip_har.evaluation.comparison import ComparisonRow, Summary, baseline_row, comparison_row
from clip_har.evaluation.confidence import Calibration, calibrate, check_confidence
from clip_har.evaluation.evaluate import BASELINE_NAME, collapse_warnings, evaluate
from clip_har.evaluation.metrics import (
    CALIBRATION_BINS,
    COLLAPSE_SHARE,
    ValidationFigures,
    adaptive_calibration_error,
    collapse_of,
    compute_metrics,
    confused_pairs,
    expected_calibration_error,
    validation_figures,
)
from clip_har.evaluation.pairwise import PairedTest, pairwise_tests
from clip_har.evaluation.records import (
    LOWER_IS_BETTER,
    SCALARS,
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
from clip_har.evaluation.resampling import interval_over_seeds, stratified_weights
from clip_har.evaluation.statistics import (
    EXACT_BELOW,
    RESAMPLES,
    bootstrap_accuracy,
    mcnemar_p,
    sign_flip_p,
)

__all__ = [
    "BASELINE_NAME",
    "CALIBRATION_BINS",
    "COLLAPSE_SHARE",
    "EXACT_BELOW",
    "LOWER_IS_BETTER",
    "RESAMPLES",
    "SCALARS",
    "BoolArray",
    "Calibration",
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
    "PairedTest",
    "Summary",
    "ValidationFigures",
    "adaptive_calibration_error",
    "baseline_row",
    "bootstrap_accuracy",
    "calibrate",
    "check_confidence",
    "collapse_of",
    "collapse_warnings",
    "comparison_row",
    "compute_metrics",
    "confused_pairs",
    "evaluate",
    "expected_calibration_error",
    "interval_over_seeds",
    "mcnemar_p",
    "pairwise_tests",
    "predictions_from",
    "sign_flip_p",
    "stratified_weights",
    "validation_figures",
]
