"""Logging: to standard error, as text for people or as one JSON object a line for collectors.

There is no line per decision: the audit log is that record.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from typing_extensions import override


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Time, level, logger, thread, message, and the traceback if there is one.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Set up the root logger of this process, replacing what was there."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # The pool warns of each failed attempt to connect; health and the errors of requests say it
    # better.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # Three lines for each migration; ours is one.
    logging.getLogger("yoyo").setLevel(logging.WARNING)
