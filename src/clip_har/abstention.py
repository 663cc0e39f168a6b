"""What a service or a page asks of a run's predictions, unless something else is asked of them.

What the thresholds mean is in predict.py and evaluation/confidence.py.
"""

from __future__ import annotations

import dataclasses

from clip_har.checkpoint import Run
from clip_har.predict import AbstentionPolicy, recorded_calibration

DEFAULT_LEVEL = 0.9
"""Coverage of prediction sets, and accuracy of the predictions that are not withheld."""


def with_defaults(asked: AbstentionPolicy, run: Run) -> AbstentionPolicy:
    """The same policy; what it does not ask for, 90 % if the run's validation images allow it."""
    calibration = recorded_calibration(run)
    if calibration is None:
        return asked
    if asked.coverage is None:
        asked = dataclasses.replace(asked, coverage=DEFAULT_LEVEL)
    if asked.accuracy is None and asked.abstain_below is None and calibration.abstain_threshold(DEFAULT_LEVEL):
        asked = dataclasses.replace(asked, accuracy=DEFAULT_LEVEL)
    return asked
