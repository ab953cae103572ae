"""Terminal output: the console and progress bars on stderr, results and a command's JSON summary on stdout.

Whatever is printed is text, never markup, and names come from others: control characters are escaped here.
"""

import io
import json
import logging
import math
import os
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidecast.text import escaped

logger = logging.getLogger(__name__)

WIDTH = 120
"""Most characters of a text from a record that are printed."""


class TextConsole(Console):
    """A console that prints strings as they are, in tables too: no markup, control characters escaped."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **how: Any) -> Text:
        """The text, on one line."""
        return super().render_str(escaped(text), **how)


class Stderr(io.TextIOBase):
    """sys.stderr as it is now. What it does not take is lost: no failure of it may end a command."""

    lost = 0
    """Writes of which all or some was lost."""

    def write(self, text: str) -> int:
        """Write at once, and wait where stderr is full."""
        try:
            self._write(text)
        except (OSError, ValueError):  # closed at its other end, on a full disk; closed here
            self.lost += 1
        return len(text)

    def _write(self, text: str) -> None:
        if sys.stderr is None:
            raise ValueError("closed before this process began")
        try:
            descriptor = sys.stderr.fileno()
        except io.UnsupportedOperation:  # no file, but an object of whoever runs us
            sys.stderr.write(text)
            sys.stderr.flush()
            return
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                select.select([], [descriptor], [])

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()


stderr = Stderr()
# In distributed training only rank 0 writes.
console = TextConsole(file=stderr, quiet=os.environ.get("RANK", "0") != "0")
out = TextConsole()
"""On stdout."""


class ProgressCallback(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` of the total are done; `note` is shown next to it, `total` is the total if it was not known before."""
        ...


def finish(summary: Mapping[str, object], as_json: bool) -> None:
    """Print a command's summary as one line of JSON on stdout, if `as_json`."""
    if as_json:
        typer.echo(json.dumps(summary))


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "") -> Iterator[ProgressCallback]:
    """A progress bar on a terminal, otherwise a log line at every fifth of the total.

    The total is given here, or with the first report, and then does not change; of `%` only the share is shown.
    """
    if not console.is_terminal:
        yield _log_fifths(what, total, unit)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    fields = ("description", "fields[count]", "fields[note]")
    what_column, count, note = (TextColumn(f"{{task.{each}}}", markup=False) for each in fields)
    with Progress(what_column, BarColumn(), count, TimeRemainingColumn(), note, console=console) as bar:
        task = bar.add_task(escaped(what), total=total, note="", count="")

        def report(done: int, note: str = "", total: int | None = total) -> None:
            count = _count(done, total or done, unit)
            bar.update(task, completed=done, note=escaped(note), total=total, count=count)

        yield report


def _count(done: int, total: int, unit: str) -> str:
    return f"{done}%" if unit == "%" else f"{done:,} of {total:,}"


def _log_fifths(what: str, total: int | None, unit: str) -> ProgressCallback:
    logged = 0

    def report(done: int, note: str = "", total: int | None = total) -> None:
        nonlocal logged
        fifth = 5 * done // max(total or done, 1)
        if fifth > logged:
            logged = fifth
            logger.info(f"{what}: {_count(done, total or done, unit)}{note and f', {note}'}")

    return report


def digits(values: Sequence[float]) -> int:
    """The significant digits that show values: 6, and of a large level so many that its changes can be seen."""
    largest, span = max(map(abs, values), default=0), max(values, default=0) - min(values, default=0)
    if span <= 1e-12 * largest:  # constant, but for rounding
        return 6 if largest < 1e6 else 15
    return min(17, max(6, math.ceil(math.log10(largest / span)) + 3))


def print_table(table: Table) -> None:
    """Print a table on stdout; where that is no terminal, in plain columns that are as wide as their contents."""
    if out.is_terminal:
        out.print(table)
        return
    table.box, table.pad_edge = None, False
    for column in table.columns:
        column.no_wrap, column.width = True, None
    plain = TextConsole(no_color=True, width=100_000)
    with plain.capture() as captured:
        plain.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def printable(raw: bytes | str) -> str:
    """Text from a record that is safe to print: control characters escaped, at most WIDTH characters."""
    text = escaped(raw if isinstance(raw, str) else raw[: 4 * WIDTH].decode(errors="backslashreplace"))
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + ".."
