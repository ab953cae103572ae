"""What people read: lines and a progress bar while work goes on, on stderr, and at its end JSON on stdout."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

WIDTH = 120
"""Most characters of a text that is shown in a line."""

# Of several processes that train together one speaks.
console = Console(stderr=True, highlight=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")


class ProgressCallback(Protocol):
    """How far the work is."""

    def __call__(self, done: int, note: str = "", total: int | None = None) -> None:
        """So much of the total is done; `note` says how it goes, `total` corrects what was expected."""
        ...


def finish(summary: Mapping[str, object], as_json: bool) -> None:
    """What was done, as one line of JSON on stdout, if somebody wants it."""
    if as_json:
        typer.echo(json.dumps(summary))


@contextmanager
def progress(what: str, total: int) -> Iterator[ProgressCallback]:
    """A bar on a terminal, a line at every fifth elsewhere."""
    if not console.is_terminal:
        yield _in_fifths(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task(escape(what), total=total, note="")

        def report(done: int, note: str = "", total: int | None = None) -> None:
            bar.update(task, completed=done, note=escape(note), total=total)

        yield report


def _in_fifths(what: str, expected: int) -> ProgressCallback:
    said = 0

    def report(done: int, note: str = "", total: int | None = None) -> None:
        nonlocal said
        whole = expected if total is None else total
        fifth = 5 * done // max(whole, 1)
        if fifth > said:
            said = fifth
            logger.info(f"{what}: {done:,} of {whole:,}{note and f', {note}'}")

    return report


def printable(raw: bytes | str) -> str:
    """What a terminal can show: no control characters, at most WIDTH long."""
    text = raw if isinstance(raw, str) else raw[: 4 * WIDTH].decode(errors="backslashreplace")
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + ".."
