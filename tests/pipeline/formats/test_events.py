"""Events: what is written is read back; everything else is refused, with its reason."""

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import Given

from pipeline.formats.clock import MAX_AHEAD
from pipeline.formats.dead_letters import MAX_DETAIL, REASONS, InvalidEvent
from pipeline.formats.events import MAX_FLOAT32, Decoder, Event, encode
from pipeline.formats.json import MAX_DEPTH, MAX_HEADERS
from pipeline.formats.times import MAX_TIME, MIN_TIME, parse_time
from pipeline.log import Record, Undecodable
from pipeline.log.limits import MAX_VALUE_BYTES, Truncated

NOW = 1_700_000_000_000


def decoded(body: object, *, features: tuple[str, ...] = ("value",), key: bytes | None = None, at: int = NOW) -> Event:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Decoder(features).decode(Given(value, key, at))[0]


series = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32).filter(str.strip)
times = st.integers(MIN_TIME, NOW + MAX_AHEAD)
floats = st.floats(-MAX_FLOAT32, MAX_FLOAT32)


@given(series, times, floats)
def test_an_event_round_trips(name: str, ts: int, value: float) -> None:
    event = Event(name, ts, (value,))
    assert decoded(encode(event)) == event
    assert decoded(encode(event), key=name.encode()) == event


@given(series, times, st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), floats, min_size=1))
def test_an_event_with_named_values_round_trips(name: str, ts: int, values: dict[str, float]) -> None:
    event, features = Event(name, ts, tuple(values.values())), tuple(values)
    assert decoded(encode(event, features), features=features) == event


def test_series_and_time_default_to_key_and_timestamp() -> None:
    assert decoded({"value": 1}, key=b"pump-7", at=NOW + 5) == Event("pump-7", NOW + 5, (1.0,))


def test_values_are_taken_by_name_and_in_order() -> None:
    body = {"series": "a", "ts": NOW, "value": 1, "values": {"heat": 2, "flow": 3, "rest": 4}, "other": None}
    assert decoded(body, features=("flow", "value", "heat")).values == (3, 1, 2)
    assert decoded({"series": "a", "ts": NOW, "values": {"value": 5}}).values == (5,)


def test_one_decoder_reads_many_series() -> None:
    decoder = Decoder()
    for name in ("a", "b", "a", "größer"):
        assert decoder.decode(Given(b'{"value": 1}', name.encode()))[0].series == name


@given(st.datetimes(datetime(2000, 1, 2), datetime(2023, 11, 1)), st.integers(-14 * 60, 14 * 60))
def test_times_are_iso_8601_with_or_without_a_zone(moment: datetime, minutes: int) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    ts = round((moment - datetime(1970, 1, 1)) / timedelta(milliseconds=1))
    assert parse_time(moment.isoformat()) == ts
    assert parse_time(moment.isoformat(" ") + "Z") == ts
    elsewhere = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_time(elsewhere.isoformat()) == ts
    assert decoded({"series": "a", "ts": elsewhere.isoformat(), "value": 0}).ts == ts


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """An event with so many levels of nesting, its own among them, in a field that is not looked at."""
    return b'{"value": 1, "other": ' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"


def number(digits: str) -> bytes:
    return f'{{"series": "a", "value": {digits}}}'.encode()


def timed(ts: str) -> bytes:
    return f'{{"series": "a", "value": 1, "ts": {ts}}}'.encode()


GOOD = b'{"series": "a", "value": 1}'
NO_NUMBERS: tuple[object, ...] = (None, "1,5", "", "NaN", "unavailable", "0x1F", "1_0", True, [1], {})
NO_TIMES: tuple[object, ...] = ("yesterday", "", "2026-13-01", "12:30", "28/11/2023", [NOW], True)
REFUSED: dict[str, list[object]] = {
    "malformed_json": [
        b"",
        b" \r\n\t ",
        b"{",
        b"nonsense",
        b"\x00",
        b"\xff\xfe\xfd",
        *(GOOD[:length] for length in range(1, len(GOOD))),
        GOOD + b" 2",
        GOOD + b"\x00",
        GOOD + GOOD,
        GOOD + b"\n" + GOOD,
        b'["not the type", and no JSON]',
        b"\xef\xbb\xbf" + GOOD,
        b"{\xef\xbb\xbf" + GOOD[1:],
        b"{\xc2\xa0" + GOOD[1:],
        *(GOOD.decode().encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        *map(number, ("NaN", "nan", "Infinity", "-Infinity", "0x1F", "012", "-012", "+1", ".5", "5.", "1e", "1_0")),
        b'{"series": "a", "value": 1, "other": NaN}',
        b'{"series": "a", "value": 1, "other": 012}',
        b'{"series": "a\n", "value": 1}',
        b'{"series": "a", "value": \x011}',
        b'{"series": "a", "value": 1, "other": "\x1f"}',
        b'{"series": "a", "value": 1,}',
        b"{'series': 'a', 'value': 1}",
        rb'{"series": "\q", "value": 1}',
        rb'{"series": "\ud800", "value": }',
    ],
    "bad_encoding": [
        b'{"series": "\xff", "value": 1}',
        b'{"series": "\xc0\x80", "value": 1}',
        b'{"series": "\xed\xa0\x80", "value": 1}',
        b'{"series": "a", "value": 1, "other": "\xff"}',
        b'{"series": "a", "value": 1, "\xff": 1}',
        b'{"series": "a", "value": true, "other": "\xff"}',
        '{"series": "größe", "value": 1}'.encode("latin-1"),
        rb'{"series": "\ud800", "value": 1}',
        rb'{"series": "\udc00", "value": 1}',
        rb'{"series": "\ud800\u0041", "value": 1}',
        rb'{"series": "a", "value": 1, "other": "\ud800"}',
        rb'{"series": "a", "value": 1, "\ud800": 1}',
        rb'{"series": "a", "values": {"\ud800": 1}}',
    ],
    "too_deep": [
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"[" * 5_000 + b"]" * 5_000,
        b'{"value": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        nested(MAX_DEPTH + 1),
        nested(999),
        nested(20_000),
        nested(5_000, b'{"a":', b"}"),
    ],
    "schema": [
        b"[]",
        b"null",
        b"1",
        b'"text"',
        {"series": "a"},
        *({"series": "a", "value": wrong} for wrong in NO_NUMBERS),
        {"series": "a", "values": {}},
        {"series": "a", "values": [1]},
        {"series": "a", "values": None},
        {"series": "a", "values": {"flow": 1}},
        {"series": "a", "value": 1, "values": {"value": 1}},
        {"series": 7.5, "value": 1},
        {"series": True, "value": 1},
        {"series": ["a"], "value": 1},
        {"series": "", "value": 1},
        {"series": "  ", "value": 1},
        *({"series": "a", "value": 1, "ts": wrong} for wrong in NO_TIMES),
        b'{"series": "a", "value": 1, "value": "one"}',
    ],
    "out_of_range": [
        *map(number, ("1e39", "-1e39", "1e999", "-1e999", "9" * 400, "-" + "9" * 400, "9" * 5_000, "9" * 39)),
        *map(number, ("3.4028235677973366e+38", "1e99999999999999999999", "9" * 400 + ".5")),
        b'{"series": "a", "values": {"value": 4e38}}',
    ],
    "bad_time": [
        *map(timed, (str(MIN_TIME - 1), str(NOW + MAX_AHEAD + 1), str(NOW // 1000 + 301), "0", "-1", "-1.5", "1e-400")),
        *map(timed, ("500000000000", "946684799", "19991231", "20231115")),
        *map(timed, ("1" + "0" * 30, "-1" + "0" * 30, "9" * 400, "9" * 5_000, "1e999", str(2**63))),
        {"series": "a", "value": 1, "ts": "1999-12-31T23:59:59.999Z"},
        {"series": "a", "value": 1, "ts": "0001-01-01T00:00+14:00"},
        {"series": "a", "value": 1, "ts": "9999-12-31T23:59:59-14:00"},
    ],
    "bad_key": [
        {},
        {"value": 1},
        {"series": None, "value": 1},
        *({"series": name, "value": 1} for name in ("a\n", "a\0", "\x7f", "\x85", "a" * 129, "ä" * 65, "ä" * 64 + "a")),
    ],
    "too_large": [
        GOOD.ljust(MAX_VALUE_BYTES + 1),
        {"series": "a", "value": 1, "other": "[" * MAX_VALUE_BYTES},
        b"\xff" * 2_000_000,
    ],
}


def named(argument: object) -> str:
    return argument if isinstance(argument, str) else ""


@pytest.mark.parametrize(
    ("reason", "body"), [(reason, body) for reason, bodies in REFUSED.items() for body in bodies], ids=named
)
def test_invalid_records_are_refused_with_their_reason(reason: str, body: object) -> None:
    refused(reason, Given(body if isinstance(body, bytes) else json.dumps(body).encode()))


ACCEPTED: list[tuple[bytes, float]] = [
    *((number(digits), float(digits)) for digits in ("-0.0", "1e38", "3.4028235e38", "1e-400", "5e-324", "9" * 38)),
    (GOOD.ljust(MAX_VALUE_BYTES), 1),
    (nested(MAX_DEPTH), 1),
    (b'{"value": 1, "other": ' + json.dumps(["[{" * 1_000] * 20).encode() + b"}", 1),
    (b'{"value": 1, "other": ' + json.dumps([{"a": []}] * 2_000).encode() + b"}", 1),
    (b'{"value": 1, "other": 1e999, "another": ' + b"9" * 5_000 + b"}", 1),
    (b'{"value": 1, "value": 2, "series": "b", "series": "a"}', 2),
    (rb'{"\u0076alue": 1, "other": "\ud83d\ude00\\ud800"}', 1),
    (b' \r\n\t{"value":1}\n', 1),
]


@pytest.mark.parametrize(("value", "expected"), ACCEPTED, ids=named)
def test_unusual_but_valid_events(value: bytes, expected: float) -> None:
    (event,) = Decoder().decode(Given(value, b"a", headers=[("name", b"")] * MAX_HEADERS))
    assert (event.series, event.ts) == ("a", NOW)
    assert np.float32(event.values[0]).tobytes() == np.float32(expected).tobytes()


def test_the_longest_series_name_is_valid() -> None:
    for name in ("a" * 128, "ä" * 64, "😀" * 32):
        assert decoded({"value": 1}, key=name.encode()).series == name
        assert decoded({"series": name, "value": 1}).series == name


def test_long_details_are_truncated() -> None:
    with pytest.raises(InvalidEvent) as refusal:
        decoded({"series": "a", "values": {f"value {number}": 1 for number in range(3_000)}})
    assert len(refusal.value.detail) <= MAX_DETAIL + 3


def refused(reason: str, record: Given) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        Decoder().decode(record)
    assert refusal.value.reason == reason
    assert refusal.value.detail
    assert reason in REASONS


@pytest.mark.parametrize("key", [b"b", b"", b"\x00\x00\x03\xe9", b"\xff", b'{"id": 7}', b"x" * 1_000_000])
def test_any_key_is_ignored_if_the_body_names_the_series(key: bytes) -> None:
    for name in ("series", "sensorId"):
        assert decoded({name: "a", "ts": NOW, "value": 1}, key=key) == Event("a", NOW, (1.0,))


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("bad_key", b"x" * 129),
        ("bad_key", b"x" * 1_000_000),
        ("bad_key", Truncated.of("ä".encode() * 50_000, MAX_VALUE_BYTES + 1)),
        ("bad_key", b"\x00"),
        ("schema", b""),
        ("schema", b" "),
        ("bad_encoding", b"\xff"),
        ("bad_encoding", b"\xed\xa0\x80"),
    ],
)
def test_keys_that_name_no_series(reason: str, key: bytes) -> None:
    refused(reason, Given(b'{"value": 1}', key))
    refused(reason, Given(b'{"value": 1, "more": 2}', key))


def test_too_many_headers() -> None:
    record = Given(b'{"series": "a", "value": 1}', headers=[("name", b"")] * (MAX_HEADERS + 1))
    refused("too_large", record)


def test_an_undecodable_record() -> None:
    refused("undecodable_record", Given(GOOD, headers=Undecodable([("?", b"")], "a header key is not UTF-8")))


def test_a_record_without_any_time() -> None:
    refused("bad_time", Given(b'{"series": "a", "value": 1}', timestamp=-1))
    assert decoded({"series": "a", "ts": NOW, "value": 1}, at=-1).ts == NOW


def test_the_earliest_time_can_be_set() -> None:
    record = Given(b'{"series": "a", "ts": 5, "value": 1}')
    assert Decoder(min_time=0).decode(record)[0].ts == 5


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
bodies = st.fixed_dictionaries(
    {}, optional={"series": anything, "ts": anything, "value": anything, "values": anything, "more": anything}
)
FRAGMENTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"\\",
    rb"\ud800",
    rb"\u0041",
    b"1",
    b"e",
    b"-",
    b"1e999",
    b"\xff",
]
FRAGMENTS += [b'"value":', b'"values":', b'"series":', b'"ts":', b"null", b"NaN", b" ", "ä".encode(), b"9" * 400, b"\0"]
events_in_bytes = bodies.map(lambda body: json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass"))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with some bytes in its middle replaced by others."""
    whole = draw(events_in_bytes | st.just(GOOD))
    start = draw(st.integers(0, len(whole)))
    wrong = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3))
    return whole[:start] + wrong + whole[start + draw(st.integers(0, 3)) :]


payloads = st.binary() | events_in_bytes | damaged() | st.lists(st.sampled_from(FRAGMENTS)).map(b"".join)
headers = st.lists(st.tuples(st.text(), st.binary(max_size=3)), max_size=MAX_HEADERS + 2)
either = headers | headers.map(lambda held: Undecodable(held, "unreadable"))
features = st.sampled_from([("value",), ("flow",), ("flow", "value")])


@given(payloads, st.none() | st.binary() | st.just(b"a"), either, st.integers(-1, 2**63 - 1) | st.just(NOW), features)
def test_any_record_is_an_event_or_refused_with_a_reason(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes]], recorded: int, features: tuple[str, ...]
) -> None:
    outcome = decoded_or_refused(Given(value, key, recorded, headers), features)
    if isinstance(outcome, InvalidEvent):
        assert outcome.reason in REASONS
        assert outcome.detail
    else:
        assert np.isfinite(np.array(outcome.values, np.float32)).all()
        assert len(outcome.values) == len(features)
        assert MIN_TIME <= outcome.ts <= MAX_TIME
        assert 0 < len(outcome.series.encode()) <= 128
        json.loads(value.decode())


def decoded_or_refused(record: Given, features: tuple[str, ...]) -> Event | InvalidEvent:
    try:
        return Decoder(features).decode(record)[0]
    except InvalidEvent as refusal:
        return refusal


@pytest.mark.parametrize(("ts", "recorded"), [("1" + "0" * 30, -1), ("null", -1), ("null", 2**62), (f"{2**62}", 2**62)])
def test_a_time_outside_all_calendars(ts: str, recorded: int) -> None:
    refused("bad_time", Given(f'{{"series": "a", "ts": {ts}, "value": 1}}'.encode(), timestamp=recorded))


own = st.builds(
    lambda name, ago, value: encode(Event(name, NOW - ago, (value,))),
    st.sampled_from(("a", "b", "pump 7", "ä", " ", "x" * 129)) | st.text(max_size=3),
    st.integers(-MAX_AHEAD - 1, 100_000) | st.integers(0, NOW),
    st.floats(-1e39, 1e39),
)
unnamed = st.builds(
    lambda ago, value, more: b'{"ts":%d,"value":%r%s}' % (NOW - ago, value, more),
    st.integers(-MAX_AHEAD - 1, 100_000),
    st.floats(-1e39, 1e39).map(lambda value: value if value else 0.5),
    st.sampled_from((b"", b"", b"", b',"series":null', b',"sensor":"s"', b',"ts":"series"', b',"unit":1')),
)
halves = st.sampled_from((GOOD[:-1], b'{"more":' + GOOD, b"}", GOOD + GOOD, GOOD + b"\n", b"\n" + GOOD, b"{" + GOOD))
given_records = st.builds(
    Given,
    st.one_of(own, own, own, unnamed, unnamed, unnamed, payloads, halves, st.none()),
    st.one_of(
        st.none(), *[st.sampled_from((b"key", b"a", b'"b"'))] * 5, st.sampled_from((b"", b"\xff", b"null", b" "))
    ),
    st.just(NOW) | st.just(NOW) | st.integers(-1, 2**63 - 1),
    st.just(()) | st.just(()) | either,
)


@given(st.lists(given_records, max_size=60), st.lists(own | unnamed, max_size=60))
def test_many_records_are_decoded_as_each_is(mixed: list[Given], good: list[bytes]) -> None:
    records = [*mixed, *(Given(value, b"key") for value in good), *mixed[:1]]
    many, each, found = Decoder(), Decoder(), list[object]()
    for run in many.decode_many(records):
        if run.series is None:
            found += [outcome(many, record) for record in run.records]
        else:
            rows = zip(run.series, run.ts.tolist(), run.values.tolist(), strict=True)
            found += [[Event(name, ts, tuple(values))] for name, ts, values in rows]
    assert found == [outcome(each, record) for record in records]


def outcome(decoder: Decoder, record: Record) -> object:
    try:
        return None if record.value is None else list(decoder.decode(record))
    except InvalidEvent as refusal:
        return str(refusal)


def test_records_that_leave_their_series_to_the_key_are_decoded_together() -> None:
    records = [Given(b'{"ts":%d,"value":0.5}' % NOW, b"pump %d" % number) for number in range(300)]
    (run,) = Decoder().decode_many(records)
    assert run.series == [f"pump {number}" for number in range(300)]
    *_, last = Decoder().decode_many([*records, Given(records[0].value, b"\xff")])
    assert last.series is None


def test_records_of_our_own_shape_are_decoded_together() -> None:
    records = [Given(encode(Event(f"series {number}", NOW, (0.5,)))) for number in range(300)]
    (run,) = Decoder().decode_many(records)
    assert run.series == [f"series {number}" for number in range(300)]
    other = Given(b'{"series": "other", "ts": 1700000000000, "temperature": 0.5}')
    parts = [(len(run.records), run.series is None) for run in Decoder().decode_many([*records, other, *records])]
    assert sum(count for count, alone in parts if alone) < 20
