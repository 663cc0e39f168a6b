"""The commands of `clip-har data`: flags in, tables out, exit codes. No logic; that is in workflows.

Running a command line, and what each exit code means, is in cli.py.
"""

from __future__ import annotations

from cyclopts import App

data_app = App(
    name="data",
    help="Fetch HAR, find a dataset's faults, clean and split it; nothing is written into the dataset's folder.",
    help_format="plaintext",
)
