"""The codec of events: JSON to Event, or InvalidEvent with the reason for its dead letter.

    {"series": "pump-7", "ts": 1700000000000, "value": 21.5}
    {"series": "pump-7", "ts": "2026-11-23T10:30:00Z", "values": {"flow": 3.1, "pressure": 4.0}}

`series` defaults to the record's key, `ts` to the record's timestamp.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.json import parse
from pipeline.log import Record

MIN_TIME = 946_684_800_000
"""2000-01-01, in epoch milliseconds: an earlier time is in seconds, or of a broken clock."""
MAX_TIME = 253_402_300_799_999
"""The end of the year 9999, in epoch milliseconds: the last that calendars support."""
MAX_AHEAD = 300_000
"""Milliseconds that an event may be ahead of its record's timestamp."""
MAX_FLOAT32 = 3.4028235677973362e38
"""The largest number that is finite as a float32: larger ones are rounded to infinity."""
MAX_SERIES_BYTES = 128


class Event(NamedTuple):
    """One measurement: `ts` epoch milliseconds, `values` finite as float32, in the order of the features."""

    series: str
    ts: int
    values: tuple[float, ...]


class _Wire(msgspec.Struct, gc=False):
    series: str | None = None
    ts: int | str | None = None
    value: float | msgspec.UnsetType = msgspec.UNSET
    values: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class Decoder:
    """Decodes records into events, with values in the order of `features`.

    `min_time` is the earliest time allowed, epoch milliseconds.
    """

    features: tuple[str, ...] = ("value",)
    min_time: int = MIN_TIME
    _json: msgspec.json.Decoder[_Wire] = field(default_factory=lambda: msgspec.json.Decoder(_Wire))
    _series_by_key: dict[bytes, str] = field(default_factory=dict)

    def decode(self, record: Record) -> tuple[Event]:
        """Decode a record's one event. Raises InvalidEvent. Callers skip tombstones (value None)."""
        wire = parse(self._json, record)
        series = self._series(wire.series, record.key)
        ts = self._time(wire.ts, record.timestamp)
        if len(self.features) == 1 and type(wire.value) is float and wire.values is msgspec.UNSET:
            value = wire.value
            if not -MAX_FLOAT32 <= value <= MAX_FLOAT32:
                raise InvalidEvent("out_of_range", f"{value!r} does not fit in a float32")
            return (Event(series, ts, (value,)),)
        return (Event(series, ts, self._values(wire)),)

    def _values(self, wire: _Wire) -> tuple[float, ...]:
        given = {} if isinstance(wire.values, msgspec.UnsetType) else wire.values
        if not isinstance(wire.value, msgspec.UnsetType):
            if "value" in given:
                raise InvalidEvent("schema", "a value, and another among the values")
            given = {"value": wire.value, **given}
        try:
            values = tuple(given[name] for name in self.features)
        except KeyError as missing:
            raise InvalidEvent("schema", f"no {missing.args[0]!r} among {sorted(given)}") from None
        if not all(-MAX_FLOAT32 <= value <= MAX_FLOAT32 for value in values):
            raise InvalidEvent("out_of_range", f"{values!r} does not fit in float32")
        return values

    def _series(self, name: str | None, key: bytes | None) -> str:
        keyed = None if key is None else self._series_by_key.get(key) or self._series_of_key(key)
        if name is None:
            if keyed is None:
                raise InvalidEvent("bad_key", "neither a series in the body nor a key")
            return keyed
        if name == keyed:
            return keyed
        check_series(name)
        if keyed is not None:
            raise InvalidEvent("bad_key", f"the key says {keyed!r}, the body {name!r}")
        return name

    def _series_of_key(self, key: bytes) -> str:
        try:
            name = check_series(key.decode())
        except UnicodeDecodeError as error:
            raise InvalidEvent("bad_encoding", f"key: {error}") from None
        if len(self._series_by_key) >= 65_536:
            self._series_by_key.clear()
        self._series_by_key[key] = name
        return name

    def _time(self, given: int | str | None, recorded: int) -> int:
        ts = recorded if given is None else parse_time(given) if isinstance(given, str) else given
        if ts < self.min_time:
            raise InvalidEvent("bad_time", f"{ts} is before {self.min_time}; times are epoch milliseconds")
        if ts > MAX_TIME:
            raise InvalidEvent("bad_time", f"{ts} lies after the year 9999")
        if recorded >= 0 and ts > recorded + MAX_AHEAD:
            raise InvalidEvent("bad_time", f"{ts} lies more than 5 minutes ahead of its record's time {recorded}")
        return ts


def check_series(name: str) -> str:
    """Return the name if it is valid for a series. Raises InvalidEvent."""
    if not name:
        raise InvalidEvent("schema", "the series' name is empty")
    if len(name) > MAX_SERIES_BYTES or len(name.encode()) > MAX_SERIES_BYTES:
        raise InvalidEvent("bad_key", f"the series' name is longer than {MAX_SERIES_BYTES} bytes")
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InvalidEvent("bad_key", f"the series' name {name!r} has control characters")
    if name.isspace():
        raise InvalidEvent("schema", "the series' name is blank")
    return name


def parse_time(text: str) -> int:
    """Parse ISO 8601 to epoch milliseconds, as UTC if it has no time zone. Raises InvalidEvent."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidEvent("schema", f"{text[:40]!r} is no ISO 8601 time") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return round(parsed.timestamp() * 1000)


def encode(event: Event, features: Sequence[str] = ("value",)) -> bytes:
    """Encode an event as JSON, with `value` if its only feature is called so, else with `values`."""
    body: dict[str, object] = {"series": event.series, "ts": event.ts}
    if tuple(features) == ("value",):
        body["value"] = event.values[0]
    else:
        body["values"] = dict(zip(features, event.values, strict=True))
    return msgspec.json.encode(body)
