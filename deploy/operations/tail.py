"""`tidecast tail`: a topic's newest records, then new ones as they arrive, each as one readable line."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec
from rich.text import Text

from deploy.console import digits, out, printable
from deploy.settings.files import open_log
from pipeline.log import EventLog, Record
from tidecast.times import format_time

INTERVAL_S = 0.2
MAX_STEPS = 6
"""Most steps that are printed of a forecast, including the last one."""


class Line(NamedTuple):
    """A record as text without control characters."""

    time: str
    """The record's timestamp in the log, UTC."""
    partition: int
    offset: int
    key: str
    text: str


class _Forecast(msgspec.Struct):
    ts: int
    forecast: list[float] | dict[str, list[float]]
    start: int | None = None
    model: str = ""

    def text(self) -> str:
        start = self.ts if self.start is None else self.start
        targets = self.forecast if isinstance(self.forecast, dict) else {"": self.forecast}
        steps = " | ".join(f"{name} {_shorten(values)}".lstrip() for name, values in targets.items())
        return f"forecast from {format_time(start, 'seconds')}: {steps}  {self.model}".rstrip()


class _Label(msgspec.Struct):
    label: str
    probability: float
    model: str = ""

    def text(self) -> str:
        return f"{self.label} {self.probability:.3f}  {self.model}".rstrip()


class _Event(msgspec.Struct):
    value: float | None = None
    values: dict[str, float] | None = None
    ts: int | str | None = None

    def text(self) -> str:
        named = {} if self.value is None else {"value": self.value}
        at = format_time(self.ts, "seconds") if isinstance(self.ts, int) else self.ts
        values = " ".join(
            f"{name} {value:.{digits([value])}g}" for name, value in {**named, **(self.values or {})}.items()
        )
        if not values:
            raise msgspec.ValidationError("no value")
        return f"{values}  at {at}" if at else values


def tail(log: EventLog, topic: str, *, last: int = 10, follow: bool = False) -> Iterator[Record]:
    """Each partition's records at its last `last` offsets, by time; with `follow` also all new ones, endlessly.

    There may be fewer, as an offset may hold a transaction marker. Raises UnknownTopic, LogUnavailable.
    """
    positions = {partition: max(start, end - last) for partition, (start, end) in log.bounds(topic).items()}
    while True:
        new: list[Record] = []
        for partition, (start, end) in log.bounds(topic).items():
            begin = max(positions.get(partition, start), start)
            new += [record for records in log.read(topic, partition, begin, end) for record in records]
            positions[partition] = end
        yield from sorted(new, key=lambda record: (record.timestamp, record.partition, record.offset))
        if not follow:
            return
        if not new:
            time.sleep(INTERVAL_S)


def describe(record: Record) -> Line:
    """A record as a line: an event's value, some steps of a forecast, a label, a dead letter's reason, or text."""
    key = "" if record.key is None else printable(record.key)
    return Line(format_time(record.timestamp, "seconds"), record.partition, record.offset, key, _text(record))


def _text(record: Record) -> str:
    headers = dict(record.headers)
    if record.value is None:
        return "(tombstone)"
    if reason := headers.get("tidecast.reason"):
        return printable(b"invalid: " + reason + b": " + headers.get("tidecast.detail", b"") + b" | " + record.value)
    shapes: tuple[type[_Forecast | _Label | _Event], ...] = (_Forecast, _Label, _Event)
    for shape in shapes:
        try:
            return printable(msgspec.json.decode(record.value, type=shape).text())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return printable(record.value)


def _shorten(values: Sequence[float]) -> str:
    texts = [f"{value:.{digits(values)}g}" for value in values]
    return " ".join(texts if len(texts) <= MAX_STEPS else [*texts[: MAX_STEPS - 1], "..", texts[-1]])


def print_tail(bootstrap: str, topic: str, last: int, follow: bool) -> None:
    """`tidecast tail`: print the newest records to stdout, and with `follow` new ones until interrupted."""
    with closing(open_log(bootstrap)) as log, suppress(KeyboardInterrupt):
        for record in tail(log, topic, last=last, follow=follow):
            line = describe(record)
            position = f"{line.time} {line.partition}:{line.offset}"
            out.print(Text.assemble((position, "dim"), " ", (line.key, "bold"), " ", line.text), soft_wrap=True)
