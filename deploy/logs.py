"""Logging to stderr, as text lines or JSON objects. Loggers are named after their modules.

A command writes each line at once, in order with what else it prints. A service logs in the background: it never waits
for stderr, and lines for which there is no room are counted instead.
"""

import json
import logging
import threading
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Literal

from rich.text import Text

from deploy.console import console, stderr
from tidecast.text import escaped

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
PACKAGES = ("tidecast", "pipeline", "model", "deploy")
"""Loggers that `configure_logging` sets the level of; other libraries' records are written from WARNING on."""
QUIET = ("matplotlib",)
"""Libraries whose warnings are about themselves: where a cache may lie, how long a font takes."""
PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "tidecast: ", logging.CRITICAL: "tidecast: "}
MAX_WAITING = 1000
"""Most lines of a service that wait for stderr."""
LAST_LINES_S = 1.0
"""Seconds that stderr has for the last lines of a service."""


class TextFormatter(logging.Formatter):
    """A line of text, with a prefix from WARNING on, and the number of the worker that says it, if it is one."""

    timestamps = False
    """Whether lines start with the local time."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._who = "" if worker is None else f"worker {worker}: "

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback, if there is one, on lines below it."""
        timed = self.timestamps and record.levelno < logging.ERROR  # the last line of a failure is the same for all
        time = f"{datetime.fromtimestamp(record.created):%Y-%m-%d %H:%M:%S} " if timed else ""
        line = f"{time}{PREFIXES.get(record.levelno, '')}{self._who}{escaped(record.getMessage())}"
        traceback = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        return "\n".join([line, *map(escaped, traceback)])


class JsonFormatter(logging.Formatter):
    """A JSON object on one line: time (ISO 8601, UTC), level, logger, message; of a worker its number."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._who = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **self._who,
            "message": super().format(record),
        }
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


class StderrHandler(logging.Handler):
    """Writes each record through the console, so that a progress bar stays below it; counts those that are lost."""

    def __init__(self) -> None:
        super().__init__()
        self._lost, self._counting = 0, threading.Lock()

    def lose(self, lines: int = 1) -> None:
        """Count lines that were not written. Never waits for one that is being written."""
        with self._counting:
            self._lost += lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; before it, if lines were lost since the last one, how many."""
        self.tell_lost()
        if not _written(self.format(record)):
            self.lose()

    def tell_lost(self) -> None:
        """Write how many lines were lost since this was last told, if any."""
        with self._counting:
            lost, self._lost = self._lost, 0
        told = f"{lost:,} log lines are missing here: stderr did not take them"
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, told, None, None)
        if lost and not _written(self.format(record)):
            self.lose(lost)


def _written(line: str) -> bool:
    before = stderr.lost
    console.print(Text(line), soft_wrap=True)
    return stderr.lost == before


class BoundedQueueHandler(QueueHandler):
    """Queues records for another thread to write; never waits."""

    def __init__(self, target: StderrHandler) -> None:
        self._target, self.waiting = target, Queue[logging.LogRecord](MAX_WAITING)
        super().__init__(self.waiting)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record with its message as it is now."""
        record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it if there is no room."""
        try:
            self.waiting.put_nowait(record)
        except Full:
            self._target.lose()


_handler = StderrHandler()
_background: tuple[BoundedQueueHandler, QueueListener] | None = None


def configure_logging(level: LogLevel = "info", log_format: LogFormat = "text", worker: int | None = None) -> None:
    """Write log records from `level` on to stderr, as a worker's if it is one; a second call replaces the first."""
    if _background is None:
        logging.getLogger().addHandler(_handler)
    for library in QUIET:
        logging.getLogger(library).setLevel(logging.ERROR)
    set_level(level)
    set_format(log_format, worker)


def set_level(level: LogLevel) -> None:
    """Write log records from this level on."""
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def set_format(log_format: LogFormat, worker: int | None = None) -> None:
    """Write them in this format."""
    _handler.setFormatter(JsonFormatter(worker) if log_format == "json" else TextFormatter(worker))


def show_timestamps() -> None:
    """Start each text line with its time from now on, for a long-running process."""
    if isinstance(_handler.formatter, TextFormatter):
        _handler.formatter.timestamps = True


def log_in_background() -> None:
    """Never wait for stderr from now on, until `finish_logging`; Python's warnings are logged as well."""
    global _background
    queue = BoundedQueueHandler(_handler)
    _background = queue, QueueListener(queue.waiting, _handler)
    root = logging.getLogger()
    root.removeHandler(_handler)
    root.addHandler(queue)
    logging.captureWarnings(True)
    _background[1].start()


def finish_logging() -> bool:
    """Write what still waits, and log at once from now on; False if stderr has not taken it within LAST_LINES_S."""
    global _background
    if _background is None:
        return True
    handler, listener = _background
    waiting = handler.waiting
    with waiting.all_tasks_done:
        if not waiting.all_tasks_done.wait_for(lambda: not waiting.unfinished_tasks, LAST_LINES_S):
            return False
    _background = None
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(handler)
    logging.getLogger().addHandler(_handler)
    listener.stop()
    _handler.tell_lost()
    return True
