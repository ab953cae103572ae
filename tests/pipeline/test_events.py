"""Events: what is written is read back; everything else is refused, with its reason."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import (
    MAX_AHEAD,
    MAX_FLOAT32,
    MAX_HEADERS,
    MAX_VALUE_BYTES,
    MIN_TIME,
    Decoder,
    Event,
    InvalidEvent,
    encode,
    parse_time,
)

NOW = 1_700_000_000_000
REASONS = {
    "bad_encoding",
    "bad_key",
    "bad_time",
    "malformed_json",
    "out_of_range",
    "schema",
    "too_deep",
    "too_large",
}


@dataclass(frozen=True)
class Given:
    """A record as a log gives it."""

    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "input"
    partition: int = 0
    offset: int = 0


def decoded(body: object, *, features: tuple[str, ...] = ("value",), key: bytes | None = None, at: int = NOW) -> Event:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Decoder(features).decode(Given(value, key, at))


series = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32)
times = st.integers(MIN_TIME, NOW + MAX_AHEAD)
floats = st.floats(-MAX_FLOAT32, MAX_FLOAT32)


@given(series, times, floats)
def test_an_event_comes_back(name: str, ts: int, value: float) -> None:
    event = Event(name, ts, (value,))
    assert decoded(encode(event)) == event
    assert decoded(encode(event), key=name.encode()) == event


@given(series, times, st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), floats, min_size=1))
def test_an_event_with_named_values_comes_back(name: str, ts: int, values: dict[str, float]) -> None:
    event, features = Event(name, ts, tuple(values.values())), tuple(values)
    assert decoded(encode(event, features), features=features) == event


def test_the_key_and_the_record_stand_in_for_series_and_time() -> None:
    assert decoded({"value": 1}, key=b"pump-7", at=NOW + 5) == Event("pump-7", NOW + 5, (1.0,))


def test_values_are_taken_by_name_and_in_order() -> None:
    body = {"series": "a", "ts": NOW, "value": 1, "values": {"heat": 2, "flow": 3, "rest": 4}, "other": None}
    assert decoded(body, features=("flow", "value", "heat")).values == (3, 1, 2)
    assert decoded({"series": "a", "ts": NOW, "values": {"value": 5}}).values == (5,)


def test_one_decoder_reads_many_series() -> None:
    decoder = Decoder()
    for name in ("a", "b", "a", "größer"):
        assert decoder.decode(Given(b'{"value": 1}', name.encode())).series == name


@given(st.datetimes(datetime(2000, 1, 2), datetime(2023, 11, 1)), st.integers(-14 * 60, 14 * 60))
def test_times_are_iso_8601_with_or_without_a_zone(moment: datetime, minutes: int) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ts = round((moment - datetime(1970, 1, 1)) / timedelta(milliseconds=1))
    assert parse_time(moment.isoformat()) == ts
    assert parse_time(moment.isoformat(" ") + "Z") == ts
    elsewhere = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(elsewhere.isoformat()) == ts
    assert decoded({"series": "a", "ts": elsewhere.isoformat(), "value": 0}).ts == ts


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("malformed_json", b""),
        ("malformed_json", b"{"),
        ("malformed_json", b"nonsense"),
        ("malformed_json", b'{"value": NaN}'),
        ("malformed_json", b'{"series": "a", "ts": 1700000000000, "value": 1} 2'),
        ("bad_encoding", b'{"series": "\xff", "value": 1}'),
        ("bad_encoding", rb'{"series": "\ud800", "value": 1}'),
        ("too_deep", b'{"other": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
        ("schema", b"[]"),
        ("schema", b"null"),
        ("schema", {"series": "a"}),
        ("schema", {"series": "a", "value": None}),
        ("schema", {"series": "a", "value": "1"}),
        ("schema", {"series": "a", "value": True}),
        ("schema", {"series": "a", "values": {"flow": 1}}),
        ("schema", {"series": 7, "value": 1}),
        ("schema", {"series": "", "value": 1}),
        ("schema", {"series": "a", "value": 1, "ts": "yesterday"}),
        ("schema", {"series": "a", "value": 1, "ts": [NOW]}),
        ("out_of_range", b'{"series": "a", "value": 1e39}'),
        ("out_of_range", b'{"series": "a", "value": -1e999}'),
        ("out_of_range", b'{"series": "a", "value": 1' + b"0" * 400 + b"}"),
        ("out_of_range", b'{"series": "a", "values": {"value": 4e38}}'),
        ("bad_time", {"series": "a", "value": 1, "ts": NOW // 1000}),
        ("bad_time", {"series": "a", "value": 1, "ts": MIN_TIME - 1}),
        ("bad_time", {"series": "a", "value": 1, "ts": NOW + MAX_AHEAD + 1}),
        ("bad_time", {"series": "a", "value": 1, "ts": "1999-12-31T23:59:59.999Z"}),
        ("bad_key", {"value": 1}),
        ("bad_key", {"series": "a\n", "value": 1}),
        ("bad_key", {"series": "ä" * 65, "value": 1}),
        ("too_large", {"series": "a", "value": 1, "other": "x" * MAX_VALUE_BYTES}),
    ],
)
def test_every_reason(reason: str, body: object) -> None:
    refused(reason, Given(body if isinstance(body, bytes) else json.dumps(body).encode()))


def refused(reason: str, record: Given) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        Decoder().decode(record)
    assert refusal.value.reason == reason
    assert refusal.value.detail
    assert reason in REASONS


@pytest.mark.parametrize(
    ("reason", "key"),
    [("bad_key", b"b"), ("bad_encoding", b"\xff"), ("bad_key", b"x" * 129), ("bad_key", b"\x00"), ("schema", b"")],
)
def test_a_key_that_is_not_the_series(reason: str, key: bytes) -> None:
    refused(reason, Given(b'{"series": "a", "value": 1}', key))


def test_too_many_headers() -> None:
    record = Given(b'{"series": "a", "value": 1}', headers=[("name", b"")] * (MAX_HEADERS + 1))
    refused("too_large", record)


def test_a_record_without_any_time() -> None:
    refused("bad_time", Given(b'{"series": "a", "value": 1}', timestamp=-1))
    assert decoded({"series": "a", "ts": NOW, "value": 1}, at=-1).ts == NOW


def test_the_earliest_time_can_be_set() -> None:
    record = Given(b'{"series": "a", "ts": 5, "value": 1}')
    assert Decoder(min_time=0).decode(record).ts == 5


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
bodies = st.fixed_dictionaries(
    {}, optional={"series": anything, "ts": anything, "value": anything, "values": anything, "more": anything}
)
payloads = st.binary() | st.text().map(str.encode) | bodies.map(lambda body: json.dumps(body).encode())


@given(payloads, st.none() | st.binary())
def test_whatever_comes_is_an_event_or_refused_with_a_reason(value: bytes, key: bytes | None) -> None:
    outcome = decoded_or_refused(Given(value, key))
    if isinstance(outcome, InvalidEvent):
        assert outcome.reason in REASONS
    else:
        assert all(math.isfinite(each) for each in outcome.values)
        assert MIN_TIME <= outcome.ts <= NOW + MAX_AHEAD
        assert 0 < len(outcome.series.encode()) <= 128


def decoded_or_refused(record: Given) -> Event | InvalidEvent:
    try:
        return Decoder().decode(record)
    except InvalidEvent as refusal:
        return refusal


@pytest.mark.parametrize(("ts", "recorded"), [("1" + "0" * 30, -1), ("null", 2**62), (f"{2**62}", 2**62)])
def test_a_time_that_fits_in_no_calendar(ts: str, recorded: int) -> None:
    refused("bad_time", Given(f'{{"series": "a", "ts": {ts}, "value": 1}}'.encode(), timestamp=recorded))
