"""Dead letters: what there is, as a table, and as a file in which a person repairs them (redrive.py sends it)."""

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
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.console import printable
from deploy.settings.files import open_log
from pipeline.formats.dead_letters import DeadLetter, raw, read_dead_letter
from pipeline.log import EventLog
from tidecast.errors import ConfigError
from tidecast.times import format_time

logger = logging.getLogger(__name__)


def letters(log: EventLog, topic: str, reason: str | None = None) -> Iterator[DeadLetter]:
    """A dead-letter topic's letters, or those with one reason. Raises ConfigError if it has records but no letters."""
    found = others = 0
    for partition, bounds in log.bounds(topic).items():
        for records in log.read(topic, partition, *bounds):
            for letter in map(read_dead_letter, records):
                found, others = found + (letter is not None), others + (letter is None)
                if letter is not None and reason in (None, letter.reason):
                    yield letter
    if others and not found:
        raise ConfigError(f"{topic} holds no dead letters: those of a service are on GROUP-dead-letters")


@dataclass(slots=True)
class Tally:
    """How many letters have a reason, the times of the first and the last of their records, and what one says."""

    count: int
    first: int
    last: int
    detail: str

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        self.count += 1
        self.first, self.last = min(self.first, letter.timestamp), max(self.last, letter.timestamp)


class Summary(NamedTuple):
    """The tally of each reason, the most frequent first, and the newest letters, the newest last."""

    reasons: dict[str, Tally]
    newest: list[DeadLetter]


def summarise(found: Iterator[DeadLetter], last: int) -> Summary:
    """Count letters, and keep the `last` newest."""
    reasons: dict[str, Tally] = {}

    def tallied() -> Iterator[DeadLetter]:
        for letter in found:
            tally = reasons.setdefault(letter.reason, Tally(0, letter.timestamp, letter.timestamp, letter.detail))
            tally.add(letter)
            yield letter

    all_of_them = tallied()
    newest = heapq.nlargest(last, all_of_them, key=lambda letter: (letter.timestamp, letter.partition, letter.offset))
    deque(all_of_them, maxlen=0)  # the 0 largest are found without a look
    ranked = sorted(reasons.items(), key=lambda item: -item[1].count)
    return Summary(dict(ranked), newest[::-1])


def show(bootstrap: str, topic: str, last: int, reason: str | None, as_json: bool) -> dict[str, object]:
    """`tidecast dead-letters`: print what there is, unless it is wanted as JSON; the counts."""
    with closing(open_log(bootstrap)) as log:
        reasons, newest = summarise(letters(log, topic, reason), last)
    if not as_json:
        _print(topic, reasons, newest)
    count = sum(tally.count for tally in reasons.values())
    return {"topic": topic, "letters": count, "reasons": {name: asdict(tally) for name, tally in reasons.items()}}


def _print(topic: str, reasons: dict[str, Tally], newest: list[DeadLetter]) -> None:
    console = Console(highlight=False, emoji=False)
    if not reasons:
        console.print(Text(f"{topic}: no dead letters"), soft_wrap=True)
        return
    table = Table(title=Text(topic), title_justify="left", box=SIMPLE)
    table.add_column("reason", no_wrap=True)
    table.add_column("letters", no_wrap=True, justify="right")
    for heading in ("first", "last"):
        table.add_column(heading, width=10)  # date over time
    table.add_column("for example")
    for name, tally in reasons.items():
        first, last = (format_time(ts, "seconds") for ts in (tally.first, tally.last))
        row = (printable(name), f"{tally.count:,}", first, last, printable(tally.detail))
        table.add_row(*map(Text, row))
    console.print(table)
    for letter in newest:
        where = (
            f"{format_time(letter.timestamp, 'seconds')} {printable(letter.topic)}/{letter.partition}:{letter.offset}"
        )
        value = printable(raw(letter.value or ""))
        line = Text.assemble(
            (where, "dim"), " ", (printable(letter.reason), "bold"), f": {printable(letter.detail)} | {value}"
        )
        console.print(line, soft_wrap=True)


def export(bootstrap: str, topic: str, file: str, reason: str | None) -> dict[str, object]:
    """`tidecast dead-letters --export`: write letters as JSON lines, each refused record once; how many.

    A service that was killed may have written a letter twice. Raises ConfigError for a file that is there already.
    """
    encode, written = msgspec.json.Encoder().encode, set[tuple[Any, ...]]()
    with closing(open_log(bootstrap)) as log, _opened(file) as target:
        for letter in letters(log, topic, reason):
            origin = (letter.topic, letter.partition, letter.offset)
            if origin not in written:
                written.add(origin)
                target.write(encode(letter).decode() + "\n")
    logger.info(f"{len(written):,} letters of {topic} to {'stdout' if file == '-' else file}")
    return {"topic": topic, "exported": len(written)}


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        return
    try:
        with Path(file).open("x", encoding="utf-8", newline="\n") as target:  # what is there may be repaired already
            yield target
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
