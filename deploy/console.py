"""Terminal output: the console and progress bars on stderr, a command's JSON summary on stdout."""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

WIDTH = 120
"""Most characters of a text from a record that are printed."""

# In distributed training only rank 0 writes.
console = Console(stderr=True, highlight=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")


class ProgressCallback(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` of the total are done; `note` is shown next to it, `total` replaces the expected total."""
        ...


def finish(summary: Mapping[str, object], as_json: bool) -> None:
    """Print a command's summary as one line of JSON on stdout, if `as_json`."""
    if as_json:
        typer.echo(json.dumps(summary))


@contextmanager
def progress(what: str, total: int) -> Iterator[ProgressCallback]:
    """A progress bar on a terminal, otherwise a log line at every fifth of the total."""
    if not console.is_terminal:
        yield _log_fifths(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(escape(what), total=total, note="")

        def report(done: int, note: str = "", total: int | None = None) -> None:
            bar.update(task, completed=done, note=escape(note), total=total)

        yield report


def _log_fifths(what: str, expected: int) -> ProgressCallback:
    logged = 0

    def report(done: int, note: str = "", total: int | None = None) -> None:
        nonlocal logged
        current_total = expected if total is None else total
        fifth = 5 * done // max(current_total, 1)
        if fifth > logged:
            logged = fifth
            logger.info(f"{what}: {done:,} of {current_total:,}{note and f', {note}'}")

    return report


def digits(values: Sequence[float]) -> int:
    """The significant digits that show values: 6, and of a large level so many that its changes can be seen."""
    largest, span = max(map(abs, values), default=0), max(values, default=0) - min(values, default=0)
    if not span:
        return 6 if largest < 1e6 else 15
    return min(17, max(6, math.ceil(math.log10(largest / span)) + 3))


def printable(raw: bytes | str) -> str:
    """Text that is safe to print: control characters escaped, at most WIDTH characters."""
    text = raw if isinstance(raw, str) else raw[: 4 * WIDTH].decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + ".."
