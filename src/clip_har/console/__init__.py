"""How progress and results look in a terminal. Results go to standard output, all else to standard error."""

from clip_har.console.output import Output
from clip_har.console.progress import ConsoleProgress

__all__ = ["ConsoleProgress", "Output"]
