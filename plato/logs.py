"""Structured logs: one JSON object per line, including the `extra` fields of each call."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, then the record's extra fields."""

    def __init__(self, **fields: str) -> None:
        """`fields` are added to every line (deployment and replica, for example)."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        for key, value in vars(record).items():
            # A leading underscore is a library's own; Ray adds one to every record.
            if key not in _STANDARD and not key.startswith("_"):
                line.setdefault(key, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what standard error is at the moment: a progress bar stands in for it."""

    @property
    def stream(self) -> Any:
        """Read by `logging`."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """Set by `logging`."""


def configure_logs(level: str, **fields: str) -> None:
    """Send the logs of `plato` and `deployments` to standard error. Idempotent."""
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter(**fields))
    for name in ("plato", "deployments"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
