"""The command line: flags in, progress and tables out, exit codes. No logic; that is in commands/ and predict.py."""

from clip_har.cli.runner import main, run_command
from clip_har.cli.shared import EXIT_DONE, EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_OUR_FAULT, EXIT_USER_INPUT

__all__ = [
    "EXIT_DONE",
    "EXIT_FINDINGS",
    "EXIT_INTERRUPTED",
    "EXIT_OUR_FAULT",
    "EXIT_USER_INPUT",
    "main",
    "run_command",
]
