"""The codec of events: JSON to Event, or InvalidEvent with the reason for its dead letter.

    {"series": "pump-7", "ts": 1700000000000, "value": 21.5}
    {"series": "pump-7", "ts": "2026-11-23T10:30:00Z", "values": {"flow": 3.1, "pressure": 4.0}}

`series` defaults to the record's key, `ts` to the record's timestamp. Other shapes are read by the names that people
use, or by the paths of [decode].
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from pipeline.formats.bulk import Floats, Ints, Run, one_by_one, runs
from pipeline.formats.clock import MAX_AHEAD, Clock
from pipeline.formats.columnar.points import is_columnar
from pipeline.formats.columnar.reader import PointsReader
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import FROM_RECORD, Note, Readings, Sources
from pipeline.formats.json import WITHIN, parse, parse_any
from pipeline.formats.names import Fields, Found, fields_of
from pipeline.formats.paths import KEY, TIMESTAMP, Path, Paths, follow
from pipeline.formats.series import (
    FROM_KEY,
    MAX_CACHED,
    Keys,
    check_series,
    find_other_series,
    find_series,
    name_neither,
    no_series,
    series_text,
    unusable_series,
)
from pipeline.formats.times import MAX_TIME, MIN_TIME, Moment, find_time, named_time, zoned_time
from pipeline.formats.values import find_values, number
from pipeline.log import Record

MAX_FLOAT32 = 3.4028235677973362e38
"""The largest number that is finite as a float32: larger ones are rounded to infinity."""
ONE_VALUE = ("value",)
OWN = frozenset(("series", "ts", "value", "values"))
"""Our own fields."""
MAX_SHAPES = 1_000
"""Most sets of fields' names that are remembered."""
UNAMBIGUOUS = 10_000_000_000_000
"""Larger numbers of milliseconds, of the year 2286 and later, may be digits such as 20261128103000."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One measurement: `ts` epoch milliseconds, `values` finite as float32, in the order of the features."""

    series: str
    ts: int
    values: tuple[float, ...]


class _Wire(msgspec.Struct, gc=False):
    series: str | None = None
    ts: int | str | None = None
    value: float | msgspec.UnsetType = UNSET
    values: dict[str, float] | msgspec.UnsetType = UNSET


@dataclass(slots=True)
class Decoder:
    """Decodes records into events, with values in the order of `features`.

    `min_time` is the earliest time allowed, epoch milliseconds; `paths` lead to fields that are not found by name.
    What a record is decoded to depends on the record alone.
    """

    features: tuple[str, ...] = ONE_VALUE
    min_time: int = MIN_TIME
    paths: Paths = field(default_factory=Paths)
    _wire: msgspec.json.Decoder[_Wire] = field(default_factory=lambda: msgspec.json.Decoder(_Wire))
    _left_to_log: dict[tuple[tuple[str, ...], bool], bool] = field(default_factory=dict)
    _readings: Readings = field(default_factory=Readings)
    _names: set[str] = field(default_factory=set)
    _keys: Keys = field(default_factory=Keys)
    _clock: Clock = field(default_factory=Clock)
    _mapped: bool = False
    _points: PointsReader = field(init=False)

    def __post_init__(self) -> None:
        self._mapped = bool(self.paths)
        checks = (self._names, self._check_name, self._clock.check, self._keys.series)
        self._points = PointsReader(self.features, self.min_time, self._mapped, self._event, *checks, Event)

    def decode(self, record: Record) -> Sequence[Event]:
        """Decode a record's events, of a columnar one Points. Raises InvalidEvent. Callers skip tombstones."""
        if is_columnar(record.value):
            return self._points.read(record)
        try:
            wire = None if self._mapped else parse(self._wire, record)
        except InvalidEvent as error:
            if error.reason not in ("schema", "out_of_range"):
                raise
            wire = None
        if wire is None or (values := self._own_values(wire)) is None:
            return self._find(record)
        name, ts = wire.series, wire.ts
        if type(ts) is str:
            ts = zoned_time(ts) or ts
        if name is None or type(ts) is not int:
            return self._from_log(record, name, ts, values)
        if not self.min_time <= ts < UNAMBIGUOUS:
            return self._find(record)
        if name not in self._names:
            self._check_name(name)
        if ts > record.timestamp + MAX_AHEAD or ts > self._clock.latest:
            self._clock.check(ts, record.timestamp)
        return (Event(name, ts, values),)

    def decode_many(self, records: Sequence[Record]) -> Iterator[Run]:
        """The records in order, in runs of such as have columns of events and of such as `decode` is to decode."""
        if self._mapped or self.features != ONE_VALUE:
            return one_by_one(records)
        self._clock.look()
        return runs(records, self._names, lambda key: self._keys.read(key).series, self._possible)

    def _possible(self, ts: Ints, recorded: Ints, value: Floats) -> npt.NDArray[np.bool_]:
        """Of which events `decode` would find nothing to look at: their times, their records' and their values."""
        latest = np.minimum(np.minimum(recorded, UNAMBIGUOUS) + MAX_AHEAD, min(self._clock.latest, UNAMBIGUOUS - 1))
        possible: npt.NDArray[np.bool_] = (self.min_time <= ts) & (ts <= latest) & (np.abs(value) <= MAX_FLOAT32)
        return possible

    def _own_values(self, wire: _Wire) -> tuple[float, ...] | None:
        """The features of a record that has them in our own fields; else None. Raises InvalidEvent."""
        if type(wire.value) is float and wire.values is UNSET and self.features == ONE_VALUE:
            value = wire.value
            if not -MAX_FLOAT32 <= value <= MAX_FLOAT32:
                raise InvalidEvent("out_of_range", f"{value!r} does not fit in a float32")
            return (value,)
        if wire.values is UNSET or wire.value is not UNSET or not all(map(wire.values.__contains__, self.features)):
            return None
        return self._in_range(tuple([wire.values[feature] for feature in self.features]))

    def _in_range(self, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(-MAX_FLOAT32 <= value <= MAX_FLOAT32 for value in values):
            raise InvalidEvent("out_of_range", f"{values!r} does not fit in float32")
        return values

    def _from_log(
        self, record: Record, name: str | None, ts: int | str | None, values: tuple[float, ...]
    ) -> Sequence[Event]:
        """The event of a record that leaves its series or time to the log, if it has no other fields."""
        if (name is None or ts is None) and not self._is_left_to_log(record, ts):
            return self._find(record)
        series = self._keys.series(record.key) if name is None else self._check_name(name)
        if ts is None:
            ts = self._record_time(record)
        elif isinstance(ts, str):
            ts = named_time(Found(ts, "`ts`"), self.min_time).ts
        elif not self.min_time <= ts < UNAMBIGUOUS:
            return self._find(record)
        self._clock.check(ts, record.timestamp)
        return (Event(series, ts, values),)

    def describe(self, records: Iterable[Record] = ()) -> list[Note]:
        """How these records, and those that were decoded, are read, as far as it has not been told before."""
        with self._readings.compared():
            for record in records:
                with suppress(InvalidEvent):
                    if is_columnar(record.value):
                        self._points.describe(record)
                    elif record.value is not None:
                        self._find(record)
        return self._readings.take()

    def _is_left_to_log(self, record: Record, ts: int | str | None) -> bool:
        """Whether no other field names the series, or time, that our own fields leave out.

        Their names alone decide, and are remembered; the first record of a kind is read, and told of, like any other.
        """
        payload = record.value or b""
        if type(ts) is int and payload.count(b'"') == 4:  # those of "ts" and "value": there is no other name
            return True
        names = tuple(WITHIN.decode(payload))
        if OWN.issuperset(names):
            return True
        if (known := self._left_to_log.get((names, ts is None))) is None:
            if len(self._left_to_log) >= MAX_SHAPES:
                self._left_to_log.clear()
            self._left_to_log[names, ts is None] = name_neither(names, ts is None)
            return False
        return known and self._keys.read(record.key).series is not None

    def _find(self, record: Record) -> list[Event]:
        """The events of a record of any shape."""
        body = parse_any(record)
        if self.paths.each is None:
            return [self._event(body, body, record)[0]]
        items = follow(body, self.paths.each)
        if not isinstance(items, list) or not items:
            raise InvalidEvent("schema", f"no events at {next(path.text for path in self.paths.all if path.each)}")
        return [self._event(item, body, record)[0] for item in items]

    def _event(self, item: Any, body: Any, record: Record) -> tuple[Event, Sources]:
        """The event in an object, itself in the record's `body`, and from where it is read."""
        if not isinstance(item, dict) and not self._mapped:
            hint = """: [decode] reads its elements, as value = "$[*].value\"""" if isinstance(item, list) else ""
            raise InvalidEvent("schema", f"the value is not an object{hint}")
        fields = fields_of(item if isinstance(item, dict) else {})

        def at(path: Path) -> Found:
            if (value := follow(body if path.each is None else item, path.steps)) is None:
                raise InvalidEvent("schema", f"nothing at {path.text}")
            return Found(value, f"`{path.text}`")

        named = self._named(fields, record) if not self.paths.series else self._joined(at, record)
        series = self._check_name(series_text(named))
        moment, timed = self._timed(fields, at, record)
        try:
            self._clock.check(moment.ts, record.timestamp)
        except InvalidEvent as error:
            written = f"{timed.name}, {moment.form}" if moment.form else timed.name
            raise InvalidEvent(error.reason, f"{written}: {error.detail}") from None
        found = self._valued(fields, at, named.name)
        event = Event(series, moment.ts, self._in_range(tuple(map(number, found))))
        sources = Sources(fields, named, timed, moment.form, found, self.paths)
        self._readings.add(sources, event, self._keys.read(record.key).series)
        return event, sources

    def _named(self, fields: Fields, record: Record) -> Found:
        """The series by a field, or else by the key."""
        if (found := find_series(fields)) is not None:
            return found
        key = self._keys.read(record.key)
        if key.series is not None:
            return Found(key.series, FROM_KEY)
        if (found := find_other_series(fields)) is not None:
            return found
        if key.error is None and (unusable := unusable_series(fields)) is not None:
            raise unusable
        reason, why = (key.error.reason, f"{key.error.detail}, and ") if key.error else ("bad_key", "no key, and ")
        raise InvalidEvent(reason, f"{why}{no_series(fields)}")

    def _joined(self, at: Callable[[Path], Found], record: Record) -> Found:
        parts = [
            Found(self._keys.series(record.key), FROM_KEY) if path.text == KEY else at(path)
            for path in self.paths.series
        ]
        if len(parts) == 1:
            return parts[0]
        return Found(",".join(map(series_text, parts)), " and ".join(part.name for part in parts))

    def _timed(self, fields: Fields, at: Callable[[Path], Found], record: Record) -> tuple[Moment, Found]:
        """The time by a field, or else the record's own."""
        path = self.paths.ts
        if path is not None and path.text != TIMESTAMP:
            found = at(path)
            return named_time(found, self.min_time), found
        if path is None and (timed := find_time(fields, self.min_time)) is not None:
            return timed
        return Moment(self._record_time(record), ""), Found(None, FROM_RECORD)

    def _valued(self, fields: Fields, at: Callable[[Path], Found], series: str) -> list[Found]:
        paths = self.paths.values
        if all(feature in paths for feature in self.features):
            return [at(paths[feature]) for feature in self.features]
        if not any(feature in paths for feature in self.features):
            return find_values(fields, self.features, series)
        return [
            at(paths[feature]) if feature in paths else find_values(fields, (feature,), series)[0]
            for feature in self.features
        ]

    def _check_name(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= MAX_CACHED:
                self._names.clear()
            self._names.add(check_series(name))
        return name

    def _record_time(self, record: Record) -> int:
        """The record's own time. Raises InvalidEvent if it has none that is possible."""
        if record.timestamp < 0:
            raise InvalidEvent("bad_time", "neither the body nor the record has a time")
        if not self.min_time <= record.timestamp <= MAX_TIME:
            raise InvalidEvent("bad_time", f"the record's time {record.timestamp} lies not between 2000 and 9999")
        return record.timestamp


def encode(event: Event, features: Sequence[str] = ONE_VALUE) -> bytes:
    """Encode an event as JSON, with `value` if its only feature is called so, else with `values`."""
    body: dict[str, object] = {"series": event.series, "ts": event.ts}
    if tuple(features) == ONE_VALUE:
        body["value"] = event.values[0]
    else:
        body["values"] = dict(zip(features, event.values, strict=True))
    return msgspec.json.encode(body)
