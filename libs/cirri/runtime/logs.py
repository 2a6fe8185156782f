"""Logs: one JSON object per line on stderr.

The call shape is structlog's (an event, facts as keywords, ``bind``).  structlog itself is not
used because importing it brings in rich and takes 60 ms of a service's start.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events of at least *level*, each with *facts*."""

    def __init__(self, level: str = "info", out: IO[str] | None = None, **facts: Any) -> None:
        self._level, self._out, self._facts = level, out, facts

    def bind(self, **facts: Any) -> Log:
        """A log that adds *facts* to every event."""
        return Log(self._level, self._out, **{**self._facts, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        """Something only its author wants to know."""
        self._write("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        """A decision was applied."""
        self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Something is worse than it should be and may mend itself."""
        self._write("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """Somebody has to do something."""
        self._write("error", event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        """An error, with the trace of the exception being handled."""
        self._write("error", event, {**facts, "trace": traceback.format_exc()})

    def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        if _LEVELS[level] < _LEVELS[self._level]:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "level": level,
            "event": event,
            **self._facts,
            **facts,
        }
        out = self._out or sys.stderr
        out.write(msgspec.json.encode(line, enc_hook=str, order=None).decode() + "\n")
        out.flush()


class StandardLogs(logging.Handler):
    """Sends what other packages log to *log*."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record* as an event."""
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            facts["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write(record.getMessage(), **facts)
