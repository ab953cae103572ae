"""Terminal output: the console and progress bars on stderr, a command's JSON summary on stdout."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

logger = logging.getLogger(__name__)

WIDTH = 120
"""Most characters of a text from a record that are printed."""

# In distributed training only rank 0 writes.
console = Console(stderr=True, highlight=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")


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
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(escape(what), total=total, note="", count="")

        def report(done: int, note: str = "", total: int | None = total) -> None:
            bar.update(task, completed=done, note=escape(note), total=total, count=_count(done, total or done, unit))

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


def print_table(table: Table) -> None:
    """Print a table on stdout; where that is no terminal, in plain columns that are as wide as their contents."""
    out = Console(highlight=False, emoji=False)
    if out.is_terminal:
        out.print(table)
        return
    table.box, table.pad_edge = None, False
    for column in table.columns:
        column.no_wrap, column.width = True, None
    plain = Console(highlight=False, emoji=False, no_color=True, width=100_000)
    with plain.capture() as captured:
        plain.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def printable(raw: bytes | str) -> str:
    """Text that is safe to print: control characters escaped, at most WIDTH characters."""
    text = raw if isinstance(raw, str) else raw[: 4 * WIDTH].decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + ".."
