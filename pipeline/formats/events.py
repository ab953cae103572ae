"""Events on a topic: JSON bytes to Event, or InvalidEvent with one of the reasons a dead letter carries.

    {"series": "pump-7", "ts": 1700000000000, "value": 21.5}
    {"series": "pump-7", "ts": "2026-11-23T10:30:00Z", "values": {"flow": 3.1, "pressure": 4.0}}

`series` may be left out where the record's key names it, `ts` where the record's own timestamp is meant.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar, get_args

import msgspec
import numpy as np

from pipeline.log import MAX_VALUE_BYTES, Record, Undecodable
from tidecast.errors import TidecastError

Reason = Literal[
    "malformed_json",
    "bad_encoding",
    "too_deep",
    "schema",
    "out_of_range",
    "bad_time",
    "bad_key",
    "too_large",
    "undecodable_record",
    "series_limit",
    "late",
]
REASONS: frozenset[Reason] = frozenset(get_args(Reason))
"""All there are for a record not to be used: `late`, on the late topic, for an event; the others for what is none."""

MIN_TIME = 946_684_800_000
"""2000-01-01, in epoch milliseconds: what lies before it on a topic is seconds, or a broken clock."""
MAX_TIME = 253_402_300_799_999
"""The end of the year 9999, in epoch milliseconds: no calendar goes further."""
MAX_AHEAD = 300_000
"""How far, in milliseconds, an event may lie ahead of its record's own timestamp."""
MAX_FLOAT32 = 3.4028235677973362e38
"""The largest number that is finite as a float32: what lies above is rounded to infinity."""
MAX_SERIES_BYTES = 128
MAX_HEADERS = 100
MAX_DEPTH = 500
"""Levels of nesting in a value: a number of our own, as Python's own limit depends on who calls."""
MAX_DETAIL = 300
STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
LEVELS = np.zeros(256, np.int8)
"""What each byte outside a string adds to the depth."""
LEVELS[list(b"[{")], LEVELS[list(b"]}")] = 1, -1
Wire = TypeVar("Wire")


class InvalidEvent(TidecastError):
    """A record that is no event. `reason` is one word for machines, `detail` one line for people."""

    exit_code = os.EX_DATAERR

    def __init__(self, reason: Reason, detail: str) -> None:
        detail = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}..."
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


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
    """Decodes records into events with the given features, in their order.

    `min_time` is the earliest time allowed, epoch milliseconds.
    """

    features: tuple[str, ...] = ("value",)
    min_time: int = MIN_TIME
    _json: msgspec.json.Decoder[_Wire] = field(default_factory=lambda: msgspec.json.Decoder(_Wire))
    _names: dict[bytes, str] = field(default_factory=dict)

    def decode(self, record: Record) -> tuple[Event]:
        """The record's one event. Raises InvalidEvent; a tombstone (value None) is the caller's to skip."""
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
        keyed = None if key is None else self._names.get(key) or self._remember(key)
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

    def _remember(self, key: bytes) -> str:
        try:
            name = check_series(key.decode())
        except UnicodeDecodeError as error:
            raise InvalidEvent("bad_encoding", f"key: {error}") from None
        if len(self._names) >= 65_536:
            self._names.clear()
        self._names[key] = name
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


def parse(decoder: "msgspec.json.Decoder[Wire]", record: Record) -> Wire:
    """A record's value as JSON of the decoder's type. Raises InvalidEvent."""
    payload, headers = record.value or b"", record.headers
    if isinstance(headers, Undecodable):
        raise InvalidEvent("undecodable_record", headers.why)
    if len(payload) > MAX_DEPTH and _depth(payload[:MAX_VALUE_BYTES]) > MAX_DEPTH:
        raise InvalidEvent("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    if len(payload) > MAX_VALUE_BYTES:
        raise InvalidEvent("too_large", f"the value is longer than {MAX_VALUE_BYTES} bytes")
    if len(headers) > MAX_HEADERS:
        raise InvalidEvent("too_large", f"{len(headers)} headers, and {MAX_HEADERS} are the most")
    if len(record.key or b"") > MAX_VALUE_BYTES:  # it may be cut, and is no longer what it was
        raise InvalidEvent("bad_key", f"the key is longer than {MAX_VALUE_BYTES} bytes")
    try:
        wire = decoder.decode(payload)
        if not payload.isascii():
            payload.decode()  # what the decoder skips it does not look into
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _refusal(payload, error) from None
    return wire


def _depth(payload: bytes) -> int:
    """How many levels of arrays and objects lie in each other, at the deepest."""
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return MAX_DEPTH
    outside = np.frombuffer(STRING.sub(b"", payload), np.uint8)
    return int(LEVELS[outside].cumsum(dtype=np.int32).max(initial=0))


def _refusal(payload: bytes, error: Exception) -> InvalidEvent:
    """Why a payload was not decoded: what JSON does not allow comes before what an event does not."""
    if malformed := _malformed(payload):
        if _malformed(SURROGATE.sub(b"", payload)):
            return InvalidEvent("malformed_json", malformed)
        return InvalidEvent("bad_encoding", "half of a surrogate pair")
    try:
        payload.decode()
    except UnicodeDecodeError as undecodable:
        return InvalidEvent("bad_encoding", str(undecodable))
    if "out of range" not in str(error):
        return InvalidEvent("schema", str(error))
    return InvalidEvent("bad_time" if "`$.ts`" in str(error) else "out_of_range", str(error))


def _malformed(payload: bytes) -> str:
    """What is wrong with it as JSON; nothing if it is."""
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        return str(error)
    return ""


def check_series(name: str) -> str:
    """The name itself, if a series may have it; raises InvalidEvent otherwise."""
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
    """ISO 8601 to epoch milliseconds; without a zone it is UTC. Raises InvalidEvent."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidEvent("schema", f"{text[:40]!r} is no ISO 8601 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def encode(event: Event, features: Sequence[str] = ("value",)) -> bytes:
    """The event as JSON bytes, with `value` for a single unnamed feature and `values` otherwise."""
    body: dict[str, object] = {"series": event.series, "ts": event.ts}
    if tuple(features) == ("value",):
        body["value"] = event.values[0]
    else:
        body["values"] = dict(zip(features, event.values, strict=True))
    return msgspec.json.encode(body)
