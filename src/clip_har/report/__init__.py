"""Results of an evaluation or a comparison -> tables, plots and one self-contained HTML file.

The public functions of the package; what is measured comes from `clip_har.evaluation`.
"""

from clip_har.report.parts import DataSummary, ReportParts
from clip_har.report.pictures import ThumbnailLoader
from clip_har.report.sweep_plots import SWEEP_PLOTS, write_sweep_plots
from clip_har.report.write import (
    COMPARISON_PLOTS,
    EVALUATION_PLOTS,
    write_audit,
    write_comparison,
    write_contact_sheet,
    write_evaluation,
    write_explanations,
    write_few_shot,
    write_models,
)

__all__ = [
    "COMPARISON_PLOTS",
    "EVALUATION_PLOTS",
    "SWEEP_PLOTS",
    "DataSummary",
    "ReportParts",
    "ThumbnailLoader",
    "write_audit",
    "write_comparison",
    "write_contact_sheet",
    "write_evaluation",
    "write_explanations",
    "write_few_shot",
    "write_models",
    "write_sweep_plots",
]
