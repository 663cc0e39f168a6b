"""The log: one JSON object per line, with counts, times and names of models, and nothing of any image."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

from clip_har.shown_text import shown_json

LOGGER = "clip_har.serving"


class JsonLines(logging.Formatter):
    """A record as a JSON object: time, level, event, the record's `facts`, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        entry: dict[str, object] = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        entry |= getattr(record, "facts", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return shown_json(json.dumps(entry, ensure_ascii=False))


def start_logging() -> logging.Logger:
    """Send the service's log, and what its HTTP server reports, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == LOGGER else logging.WARNING)
    return logging.getLogger(LOGGER)
