"""Dead letters as a table, and as a file in which they can be repaired; redrive.py sends such a file."""

import heapq
import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from deploy.console import out, print_table, printable
from deploy.settings.files import open_log
from pipeline.formats.dead_letters import DeadLetter, raw, read_dead_letter
from pipeline.log import EventLog
from tidecast.errors import ConfigError, unusable
from tidecast.times import format_time

logger = logging.getLogger(__name__)


def read_dead_letters(log: EventLog, topic: str, reason: str | None = None) -> Iterator[DeadLetter]:
    """A topic's dead letters, or those with one reason. Raises ConfigError if all of its records are something else."""
    dead_letters = others = 0
    for partition, bounds in log.bounds(topic).items():
        for records in log.read(topic, partition, *bounds):
            for letter in map(read_dead_letter, records):
                dead_letters, others = dead_letters + (letter is not None), others + (letter is None)
                if letter is not None and reason in (None, letter.reason):
                    yield letter
    if others and not dead_letters:
        raise ConfigError(f"{topic} holds no dead letters: those of a service are on GROUP-dead-letters")


@dataclass(slots=True)
class ReasonSummary:
    """The dead letters with one reason: how many, the times of their oldest and newest records, one example."""

    count: int
    first: int
    last: int
    detail: str

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        self.count += 1
        self.first, self.last = min(self.first, letter.timestamp), max(self.last, letter.timestamp)


class Summary(NamedTuple):
    """Dead letters by reason, the most frequent first, and the newest ones, the newest last."""

    reasons: dict[str, ReasonSummary]
    newest: list[DeadLetter]


def summarise(dead_letters: Iterator[DeadLetter], last: int) -> Summary:
    """Count dead letters by reason, and keep the `last` newest."""
    reasons: dict[str, ReasonSummary] = {}

    def counted() -> Iterator[DeadLetter]:
        for letter in dead_letters:
            initial = ReasonSummary(0, letter.timestamp, letter.timestamp, letter.detail)
            reasons.setdefault(letter.reason, initial).add(letter)
            yield letter

    stream = counted()
    newest = heapq.nlargest(last, stream, key=lambda letter: (letter.timestamp, letter.partition, letter.offset))
    deque(stream, maxlen=0)  # nlargest(0) consumes nothing
    by_count = sorted(reasons.items(), key=lambda item: -item[1].count)
    return Summary(dict(by_count), newest[::-1])


def print_dead_letters(bootstrap: str, topic: str, last: int, reason: str | None, as_json: bool) -> dict[str, object]:
    """`tidecast dead-letters`: print a summary and the newest ones, unless JSON is wanted; the counts."""
    with closing(open_log(bootstrap)) as log:
        reasons, newest = summarise(read_dead_letters(log, topic, reason), last)
    if not as_json:
        if reasons:
            print_table(_table(topic, reasons))
        else:
            out.print(f"{topic}: no dead letters", soft_wrap=True)
        for letter in newest:
            out.print(_line(letter), soft_wrap=True)
    count = sum(each.count for each in reasons.values())
    return {"topic": topic, "letters": count, "reasons": {name: asdict(each) for name, each in reasons.items()}}


def _table(topic: str, reasons: dict[str, ReasonSummary]) -> Table:
    table = Table(title=topic, title_justify="left", box=SIMPLE)
    table.add_column("reason", no_wrap=True)
    table.add_column("letters", no_wrap=True, justify="right")
    for heading in ("first", "last"):
        table.add_column(heading, width=10)  # date over time
    table.add_column("for example")
    for name, summary in reasons.items():
        first, last = (format_time(ts, "seconds") for ts in (summary.first, summary.last))
        row = (printable(name), f"{summary.count:,}", first, last, printable(summary.detail))
        table.add_row(*row)
    return table


def _line(letter: DeadLetter) -> Text:
    time, topic = format_time(letter.timestamp, "seconds"), printable(letter.topic)
    position, value = f"{time} {topic}/{letter.partition}:{letter.offset}", printable(raw(letter.value or ""))
    reason, detail = printable(letter.reason), printable(letter.detail)
    return Text.assemble((position, "dim"), " ", (reason, "bold"), f": {detail} | {value}")


def export_dead_letters(bootstrap: str, topic: str, file: str, reason: str | None) -> dict[str, object]:
    """`tidecast dead-letters --export`: write dead letters as JSON lines, one per invalid record; how many.

    A service that was killed may have written a dead letter twice. Raises ConfigError for a file that exists.
    """
    encode, exported = msgspec.json.Encoder().encode, set[tuple[Any, ...]]()
    with closing(open_log(bootstrap)) as log, _new_file(file) as output:
        for letter in read_dead_letters(log, topic, reason):
            origin = (letter.topic, letter.partition, letter.offset)
            if origin not in exported:
                exported.add(origin)
                output.write(encode(letter).decode() + "\n")
    logger.info(f"{len(exported):,} dead letters of {topic} written to {'stdout' if file == '-' else file}")
    return {"topic": topic, "exported": len(exported)}


@contextmanager
def _new_file(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        return
    try:
        with Path(file).open("x", encoding="utf-8", newline="\n") as output:  # an existing one may hold repairs
            yield output
    except OSError as error:
        raise unusable(file, error, ConfigError) from None
