"""Logging to stderr, as text lines or JSON objects. Loggers are named after their modules."""

import logging
import sys
from datetime import UTC, datetime
from typing import Literal

import msgspec
from rich.markup import escape

from deploy.console import console

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
PACKAGES = ("tidecast", "pipeline", "model", "deploy")
"""Loggers that `configure_logging` sets the level of; other libraries' records are written from WARNING on."""
PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "tidecast: ", logging.CRITICAL: "tidecast: "}


class TextHandler(logging.Handler):
    """Writes a text line per record, through the console, so that a progress bar stays below it."""

    timestamps = False
    """Whether lines start with the local time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, with a prefix from WARNING on."""
        timed = self.timestamps and record.levelno < logging.ERROR  # the last line of a failure is the same for all
        time = f"{datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S} " if timed else ""
        line = f"{time}{PREFIXES.get(record.levelno, '')}{self.format(record)}"
        console.print(escape(line), soft_wrap=True)


class JsonHandler(logging.Handler):
    """Writes a JSON object per record, on one line: time (ISO 8601, UTC), level, logger, message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the object to stderr."""
        if console.quiet:
            return
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.format(record),
        }
        print(msgspec.json.encode(fields).decode(), file=sys.stderr, flush=True)  # noqa: T201


_handler: logging.Handler | None = None


def configure_logging(level: LogLevel = "info", log_format: LogFormat = "text") -> None:
    """Write log records from `level` on to stderr; a second call replaces the first."""
    global _handler
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    _handler = JsonHandler() if log_format == "json" else TextHandler()
    root.addHandler(_handler)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def show_timestamps() -> None:
    """Start each text line with its time from now on, for a long-running process."""
    if isinstance(_handler, TextHandler):
        _handler.timestamps = True
