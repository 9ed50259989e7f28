"""Log lines as JSON, one line an event, so that no text of a client can forge another line."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "set_up_logging"]

_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record, and the dict in its ``fields`` attribute, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(level: str = "info") -> None:
    """Send what happens in this process to stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``. Of other packages only warnings and
            worse are sent.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.setLevel(level.upper())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("maskserve").setLevel(level.upper())
    logging.captureWarnings(True)
    # About damaged EXIF; Python would remember each new text, and strangers choose the texts.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    threading.excepthook = _log_failed_thread


def _log_failed_thread(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread else "unknown"
    _log.error("thread %s failed", name, exc_info=failure.exc_value)
