"""`tidecast tail`: a topic's newest records, then new ones as they arrive, each as one readable line."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import msgspec
from rich.text import Text

from deploy.console import digits, out, printable
from deploy.grading.table import number
from deploy.grading.totals import Row, Totals
from deploy.settings.files import decode_paths, open_log
from pipeline.formats.alerts import decode_alert
from pipeline.formats.columnar.forecasts import each_forecast
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.events import Decoder, Event
from pipeline.formats.paths import Paths
from pipeline.formats.scores import decode_scores
from pipeline.formats.values import named_values
from pipeline.log import Bounds, EventLog, Record
from tidecast.text import escaped
from tidecast.times import format_time

INTERVAL_S = 0.2
MOST = 5
"""Most events or forecasts of a record that are printed."""
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


class _Text(msgspec.Struct):
    text: str


def tail(log: EventLog, topic: str, *, last: int = 10, follow: bool = False) -> Iterator[Record]:
    """Each partition's `last` records, by time; with `follow` also all new ones, endlessly.

    Raises UnknownTopic, LogUnavailable.
    """
    bounds = log.bounds(topic)
    yield from _by_time([record for each in bounds for record in _newest(log, topic, each, bounds[each], last)])
    positions = {partition: end for partition, (_, end) in bounds.items()}
    while follow:
        new: list[Record] = []
        for partition, (start, end) in log.bounds(topic).items():
            begin = max(positions.get(partition, start), start)
            new += [record for records in log.read(topic, partition, begin, end) for record in records]
            positions[partition] = end
        yield from _by_time(new)
        if not new:
            time.sleep(INTERVAL_S)


def _newest(log: EventLog, topic: str, partition: int, bounds: Bounds, last: int) -> list[Record]:
    """A partition's `last` records: of further offsets where some hold a transaction's marker, or nothing any more."""
    found: list[Record] = []
    begin, offsets = bounds.end, last
    while len(found) < last and begin > bounds.start:
        begin, stop = max(bounds.start, begin - offsets), begin
        found = [record for records in log.read(topic, partition, begin, stop) for record in records] + found
        offsets *= 2
    return found[max(0, len(found) - last) :]


def _by_time(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.timestamp, record.partition, record.offset))


class EventReader:
    """Reads events as a service does; without `features` those of any model."""

    def __init__(self, features: tuple[str, ...] | None = None, paths: Paths | None = None) -> None:
        self._features, self._paths = features, paths or Paths()

    def text(self, record: Record) -> str:
        """The events of a record, or why it has none, and the record."""
        try:
            return few(self._events(record))
        except InvalidEvent as error:
            return f"no event: {error} | {printable(record.value or b'')}"

    def _events(self, record: Record) -> list[str]:
        if self._features is not None:
            return self._of(self._features, record)
        try:
            return self._of(("value",), record)
        except InvalidEvent as error:
            if error.reason == "schema" and (named := named_values(record)):
                return self._of(named, record)
            raise

    def _of(self, features: tuple[str, ...], record: Record) -> list[str]:
        events = Decoder(features, paths=self._paths).decode(record)
        key = (record.key or b"").decode(errors="replace")
        return [_event_text(event, features, key) for event in events]


def _event_text(event: Event, features: tuple[str, ...], key: str) -> str:
    """An event; its series if that is not the key."""
    series = [] if event.series == key else [printable(event.series)]
    named = zip(features, event.values, strict=True)
    values = [f"{printable(name)} {value:.{digits([value])}g}" for name, value in named]
    return " ".join([*series, *values, f" at {format_time(event.ts, 'seconds')}"])


def describe(record: Record, reader: EventReader | None = None) -> Line:
    """A record as a line: an event, or why it is none; some steps of a forecast, a label, a dead letter's reason."""
    key, text = "" if record.key is None else printable(record.key), _text(record, reader or EventReader())
    return Line(format_time(record.timestamp, "seconds"), record.partition, record.offset, key, text)


def _text(record: Record, reader: EventReader) -> str:
    headers = dict(record.headers)
    if record.value is None:
        return "(tombstone)"
    if reason := headers.get("tidecast.reason"):
        return printable(b"invalid: " + reason + b": " + headers.get("tidecast.detail", b"") + b" | " + record.value)
    if is_columnar(record.value) and (forecasts := [each for each in each_forecast([record]) if each is not record]):
        return few([f"{printable(each.key or b'')} {_forecast_text(each.value or b'')}" for each in forecasts])
    for text_of in (_forecast_text, _label_text, _alert_text, _scores_text, _text_text):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return text_of(record.value)
    return reader.text(record)


def few(texts: Sequence[str]) -> str:
    """The first of many texts, and how many more there are."""
    more = [f".. and {len(texts) - MOST:,} more"] if len(texts) > MOST else []
    return "; ".join([*texts[:MOST], *more])


def _forecast_text(value: bytes) -> str:
    return printable(msgspec.json.decode(value, type=_Forecast).text())


def _label_text(value: bytes) -> str:
    return printable(msgspec.json.decode(value, type=_Label).text())


def _text_text(value: bytes) -> str:
    msgspec.json.decode(value, type=_Text)
    return printable(value)


def _alert_text(value: bytes) -> str:
    """All of it: what it says comes at its end."""
    alert = decode_alert(value)
    return f"{alert.kind} {alert.phase} at {format_time(alert.ts)}: {escaped(alert.text)}"


def _scores_text(value: bytes) -> str:
    scores, totals = decode_scores(value), Totals()
    totals.add(scores)
    texts = [_row_text(row, named=len(scores.scale) > 1) for row in totals.rows("series")]
    when = f"{format_time(scores.start)} to {format_time(scores.until)}"
    return f"scores of {when}: {'; '.join(texts) or 'nothing graded'}"


def _row_text(row: Row, *, named: bool) -> str:
    target = f"{printable(row.target or '')} " if named else ""
    parts = [f"MAE {number(row.mae)}, naive MAE {number(row.naive_mae)}, skill {number(row.skill, '.3f')}"]
    parts += [f"coverage {row.coverage:.1%}"] if row.coverage is not None else []
    return target + ", ".join([*parts, f"n {row.count:,}, unscored {row.unscored or 0:,}"])


def _shorten(values: Sequence[float]) -> str:
    texts = [f"{value:.{digits(values)}g}" for value in values]
    return " ".join(texts if len(texts) <= MAX_STEPS else [*texts[: MAX_STEPS - 1], "..", texts[-1]])


def print_tail(bootstrap: str, topic: str, last: int, follow: bool, features: tuple[str, ...] | None) -> None:
    """`tidecast tail`: print the newest records to stdout, and with `follow` new ones until interrupted."""
    reader = EventReader(features, decode_paths(bootstrap))
    with closing(open_log(bootstrap)) as log, suppress(KeyboardInterrupt):
        for record in tail(log, topic, last=last, follow=follow):
            line = describe(record, reader)
            position = f"{line.time} {line.partition}:{line.offset}"
            out.print(Text.assemble((position, "dim"), " ", (line.key, "bold"), " ", line.text), soft_wrap=True)
