"""auto: an ensemble of what pays within a time budget. What it tries, and when it stops, is in experiment/auto.py."""

from __future__ import annotations

from typing import ClassVar

from clip_har.methods.ensemble import Ensemble


class Auto(Ensemble):
    """Ensemble selection (Caruana et al. 2004) over methods tried in the order of their expected gain for each second.

    Of the combinations it keeps the cheapest whose cross-entropy is within one standard error of the lowest (the
    one-standard-error rule of Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).
    """

    name = "auto"
    source = "doi 10.1145/1015330.1015432"
    chooses_members: ClassVar[bool] = True
