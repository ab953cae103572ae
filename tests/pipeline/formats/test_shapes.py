"""Events in other shapes than our own: found by the names that people use, or by paths, and what is said of it."""

import json
import struct
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import Given

from pipeline.formats.clock import MAX_AHEAD
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import Note
from pipeline.formats.events import Decoder, Event, encode
from pipeline.formats.names import plain
from pipeline.formats.paths import Paths
from pipeline.formats.series import CERTAIN, THINGS
from pipeline.formats.times import NAMES
from tidecast.errors import ConfigError

NOW = 1_700_000_000_000
ISO = "2023-11-14T22:13:20Z"


def record(body: object, key: bytes | None = None, at: int = NOW) -> Given:
    return Given(body if isinstance(body, bytes) else json.dumps(body).encode(), key, at)


def read(
    body: object, key: bytes | None = None, *, features: tuple[str, ...] = ("value",), decode: object = None
) -> tuple[list[Event], list[Note]]:
    """A record's events, and what is said of how it is read."""
    decoder = Decoder(features, paths=Paths.parse(decode or {}))
    events = list(decoder.decode(record(body, key)))
    return events, decoder.describe([record(body, key)])


def refusal(body: object, key: bytes | None = None, **how: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refused:
        read(body, key, **how)
    return refused.value


@pytest.mark.parametrize("name", ["ts", "ds", "timestamp", "@timestamp", "time", "event_time", "eventTime", "dateTime"])
@pytest.mark.parametrize(
    ("given", "form"),
    [
        (NOW, "epoch milliseconds"),
        (NOW // 1000, "epoch seconds"),
        (NOW / 1000, "epoch seconds"),
        (float(NOW), "epoch milliseconds"),
        (NOW * 1000, "epoch microseconds"),
        (NOW * 1_000_000, "epoch nanoseconds"),
        (str(NOW), "epoch milliseconds"),
        (f"{NOW / 1000:.3f}", "epoch seconds"),
        (ISO, "ISO 8601"),
        ("2023-11-14 23:13:20+01:00", "ISO 8601"),
        ("2023-11-14 22:13:20 UTC", "ISO 8601"),
        ("2023-11-14T22:13:20.000", "ISO 8601 without a zone, taken as UTC"),
        ("20231114221320", "digits such as 20261128 or 20261128103000, taken as UTC"),
        (20231114221320, "digits such as 20261128 or 20261128103000, taken as UTC"),
    ],
)
def test_a_time_is_found_by_name_and_its_unit_by_magnitude(name: str, given: object, form: str) -> None:
    (event,), (note,) = read({"sensor": "a", name: given, "value": 1})
    assert event == Event("a", NOW, (1.0,))
    assert note == Note("read", f"series from `sensor`; time from `{name}`, {form}; value from `value`")


@given(st.integers(946_684_800_000, NOW), st.sampled_from([1, 1_000, 1_000_000]))
def test_a_number_has_one_unit(ts: int, per_ms: int) -> None:
    (event,), _ = read({"series": "a", "ts": ts * per_ms, "value": 1})
    assert event.ts == ts
    (event,), _ = read({"series": "a", "ts": ts // 1000, "value": 1})
    assert event.ts == ts // 1000 * 1000


def test_a_time_of_day_belongs_to_its_date() -> None:
    (event,), (note,) = read({"series": "a", "date": "2023-11-14", "time": "22:13:20", "value": 1})
    assert event.ts == NOW
    assert "time from `date` and `time`" in note.text


def test_two_times_are_a_question_unless_they_are_the_same_or_one_is_ours() -> None:
    (event,), notes = read({"series": "a", "value": 1, "timestamp": NOW, "event_time": NOW - 60_000})
    assert event.ts == NOW - 60_000
    (question,) = [note.text for note in notes if note.kind == "question"]
    assert question == 'is the time `event_time` or `timestamp`? [decode] ts = "$.event_time"'
    same: tuple[dict[str, Any], ...] = (
        {"timestamp": NOW // 1000, "time": ISO},
        {"time": ISO, "date": "2023-11-14"},
        {"time": NOW, "ts": NOW - 9},
    )
    for times in same:
        (event,), notes = read({"series": "a", "value": 1, **times})
        assert event.ts == times.get("ts", NOW)
        assert [note.kind for note in notes] == ["read"]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"measured": ISO}, "$.measured"),
        ({"payload": {"time": NOW}}, "$.payload.time"),
        ({"t": NOW // 1000}, "$.t"),
        ({"meta": [{"x": 1, "created at": "2023-11-14 22:13"}]}, "$.meta[*].created at"),
    ],
)
def test_a_time_that_is_not_used_is_an_alert(more: dict[str, object], path: str) -> None:
    (event,), notes = read({"series": "a", "value": 1, **more})
    assert event.ts == NOW
    looks = f'`{path}` looks like a time and is not used: [decode] ts = "{path}" takes it'
    assert Note("alert", looks) in notes
    (event,), notes = read({"series": "a", "ts": NOW - 1, "value": 1, **more})
    assert [note.kind for note in notes] == ["read"]


def test_numbers_that_are_no_times_are_no_alert() -> None:
    _, notes = read({"series": "a", "value": 1, "count": 1_700_000_000, "time_ms": None, "size": 12, "note": "2023"})
    assert [note.kind for note in notes] == ["read"]


@pytest.mark.parametrize("name", ["series", "unique_id", "sensorId", "sensor_id", "deviceId", "device", "Sensor", "id"])
def test_a_series_is_found_by_name(name: str) -> None:
    for called in ("a", 17):
        (event,), (note,) = read({name: called, "ts": NOW, "value": 1})
        assert event.series == str(called)
        assert note.text.startswith(f"series from `{name}`; ")


def test_the_key_names_the_series_where_no_field_does_for_certain() -> None:
    for body in ({"ts": NOW, "value": 1}, {"ts": NOW, "value": 1, "id": "message-1", "name": "x", "unit": "C"}):
        for key in (b"pump-7", b'"pump-7"'):
            (event,), (note,) = read(body, key)
            assert event.series == "pump-7"
            assert note.text.startswith("series from the key; ")


BINARY = {
    "int32": struct.pack(">i", 1001),
    "int64": struct.pack(">q", 1001),
    "UUID": b"\x6f\x1c\x00\x00\x12\x34\x4f\x00\x80\x00\x00\x00\x00\x00\x00\x01",
    "Avro": b"\x00\x00\x00\x00\x2a\x06abc",
}
TEXT = {"UUID": b"6f1c0000-0000-4000-8000-000000000001", "object": b'{"id": 1001}', "quoted": b'"b"', "empty": b""}


@pytest.mark.parametrize("key", [*BINARY.values(), *TEXT.values()], ids=[*BINARY, *TEXT])
def test_a_key_of_any_kind_does_not_matter_if_the_body_names_the_series(key: bytes) -> None:
    for body in ({"series": "a", "value": 1}, {"sensorId": "a", "value": 1}, {"device": "a", "temperature": 1}):
        assert [event.series for event in read({**body, "ts": NOW}, key)[0]] == ["a"]


@pytest.mark.parametrize("key", BINARY.values(), ids=BINARY)
def test_a_binary_key_names_no_series(key: bytes) -> None:
    assert refusal({"ts": NOW, "value": 1}, key).reason in ("bad_key", "bad_encoding")
    assert [event.series for event in read({"id": 7, "ts": NOW, "value": 1}, key)[0]] == ["7"]
    if key == BINARY["Avro"]:
        assert "Confluent wire format (schema id 42)" in refusal({"ts": NOW, "value": 1}, key).detail


def test_a_device_and_a_sensor_are_a_question() -> None:
    _, notes = read({"deviceId": "d", "sensorId": "s", "ts": NOW, "value": 1})
    (question,) = [note.text for note in notes if note.kind == "question"]
    assert question.startswith("is the series `sensorId` or `deviceId`, or both? [decode] series = ")
    for same in ({"sensor_name": "Kitchen", "sensor_id": 7}, {"deviceId": "s", "sensorId": "s"}):
        _, notes = read({**same, "ts": NOW, "value": 1})
        assert [note.kind for note in notes] == ["read"]


def test_several_measurements_of_one_device_are_a_question() -> None:
    decoder = Decoder()
    for metric in ("temperature", "humidity", "temperature"):
        decoder.decode(record({"device": "d", "metric": metric, "ts": NOW, "value": 1}))
    (question,) = [note.text for note in decoder.describe() if note.kind == "question"]
    assert "`device` 'd'" in question
    assert """["$.device", "$.metric"]""" in question
    assert decoder.describe() == []


@pytest.mark.parametrize("name", ["value", "Value", "y", "val", "reading", "measurement", "temperature"])
def test_a_value_is_found_by_name_or_as_the_only_number(name: str) -> None:
    body = {"sensorId": 7, "@timestamp": ISO, name: 21.5, "unit": "C", "ok": True, "measured_at": NOW}
    (event,), notes = read(body)
    assert event == Event("7", NOW, (21.5,))
    assert notes[0].text == f"series from `sensorId`; time from `@timestamp`, ISO 8601; value from `{name}`"


@pytest.mark.parametrize(("text", "value"), [("21.5", 21.5), (" -3 ", -3), ("1e3", 1000), (".5", 0.5)])
def test_decimal_text_is_a_number_and_said_to_be(text: str, value: float) -> None:
    (event,), (note,) = read({"series": "a", "ts": NOW, "value": text})
    assert event.values == (value,)
    assert note.text.endswith("value from `value`, decimal text")


def test_a_refusal_names_the_field() -> None:
    assert refusal({"series": "a", "ts": NOW, "reading": "off"}).detail == "`reading` is 'off', not a number"
    assert refusal({"series": "a", "ts": NOW, "value": "21,5"}).detail.startswith("`value` is '21,5', not a number: ")
    assert refusal({"series": "a", "eventTime": "today", "value": 1}).detail.startswith("`eventTime`: 'today' is no ")
    assert refusal({"sensor": 1.5, "value": 1}).detail == "`sensor` is 1.5, not a series' name"
    several = refusal({"series": "a", "ts": NOW, "temp": 21, "hum": 40})
    assert several.detail.startswith("which is the value, of `temp`, `hum`? --features temp,hum, or [decode] value")
    assert "`fields.temp`" in refusal({"series": "a", "ts": NOW, "fields": {"temp": 21, "hum": 40}}).detail


def test_another_only_number_is_a_question() -> None:
    decoder = Decoder()
    for name in ("temperature", "humidity", "temperature"):
        decoder.decode(record({"device": "d", name: 1, "ts": NOW}))
    (question,) = [note.text for note in decoder.describe() if note.kind == "question"]
    assert question.startswith("is the value `temperature` or `humidity`?")


@pytest.mark.parametrize("place", [None, "values", "fields"])
def test_features_are_found_at_the_top_or_among_values_or_fields(place: str | None) -> None:
    named = {"temp": 21.5, "hum": "40"}
    body = {"series": "a", "ts": NOW, **(named if place is None else {place: named})}
    (event,), _ = read(body, features=("hum", "temp"))
    assert event.values == (40.0, 21.5)
    assert refusal(body, features=("temp", "rain")).detail.startswith("no 'rain' among ")


TELEGRAF = {"fields": {"temp": 21.5}, "name": "room", "tags": {"host": "h1", "area": "b"}, "timestamp": NOW // 1000}
PROMETHEUS = {"labels": {"__name__": "up", "job": "j", "instance": "i"}, "name": "up", "timestamp": ISO, "value": "1"}
ROW = {"series": "a", "ts": NOW, "value": 2}
DEBEZIUM = {"schema": {"type": "struct"}, "payload": {"before": None, "after": ROW, "op": "c", "ts_ms": NOW + 5}}


def test_a_metric_is_the_series_of_its_name_and_all_of_its_tags() -> None:
    assert read(TELEGRAF, b"any")[0] == [Event("room,area=b,host=h1", NOW, (21.5,))]
    assert read(PROMETHEUS)[0] == [Event("up,instance=i,job=j", NOW, (1.0,))]
    alone = refusal({"name": "room", "tags": {"host": "h1"}, "ts": NOW, "value": 1})
    assert alone.detail.endswith("""[decode] series = ["$.name", "$.tags.host"]""")


def test_paths_lead_to_any_field() -> None:
    decode = {"series": "$.payload.after.series", "ts": "$.payload.after.ts", "value": "$.payload.after.value"}
    assert read(DEBEZIUM, decode=decode)[0] == [Event("a", NOW, (2.0,))]
    assert read(TELEGRAF, decode={"series": ["$.name", "$.tags.host"]})[0] == [Event("room,h1", NOW, (21.5,))]
    assert read(TELEGRAF, decode={"value": "$.fields.temp"})[0][0].values == (21.5,)
    values = {"values": {"t": "$['a b'][1]", "h": "$.h.x"}}
    body = {"series": "a", "a b": [0, 1], "h": {"x": 2}}
    assert read(body, features=("h", "t"), decode=values)[0] == [Event("a", NOW, (2.0, 1.0))]


def test_paths_come_before_our_own_names() -> None:
    body = {"series": "a", "ts": NOW, "value": 1, "meta": {"series": "b", "ts": NOW - 5}}
    assert read(body, b"k", decode={"series": "record.key", "ts": "$.meta.ts"})[0] == [Event("k", NOW - 5, (1.0,))]
    assert read({**body, "ts": 5}, decode={"ts": "record.timestamp"})[0] == [Event("a", NOW, (1.0,))]
    assert read(body, decode={"series": ["record.key", "$.meta.series"]}, key=b"k")[0][0].series == "k,b"


def test_each_element_of_an_array_is_an_event() -> None:
    body = {"at": ISO, "metrics": [{"sensor": "a", "v": {"x": 1}}, {"sensor": "b", "v": {"x": 2}}]}
    decode = {"ts": "$.at", "value": "$.metrics[*].v.x"}
    assert read(body, decode=decode)[0] == [Event("a", NOW, (1.0,)), Event("b", NOW, (2.0,))]
    assert read([ROW, {**ROW, "value": 3}], decode={"value": "$[*].value"})[0][1] == Event("a", NOW, (3.0,))
    assert "[decode] reads its elements" in refusal([ROW]).detail
    assert refusal({"at": ISO, "metrics": []}, decode=decode).detail == "no events at $.metrics[*].v.x"


def test_an_error_says_where_the_field_may_be() -> None:
    path = "$.payload.after.series"
    assert refusal(DEBEZIUM).detail.endswith(f'names the series; one may be at {path}: [decode] series = "{path}"')
    assert """[decode] value = "$.payload.after.value\"""" in refusal(DEBEZIUM, b"k").detail
    assert refusal(DEBEZIUM, decode={"ts": "$.payload.time"}, key=b"k").detail == "nothing at $.payload.time"


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"time": "$.a"}, "no setting called 'time'"),
        ({"ts": "timestamp"}, "'timestamp' is not a path such as '$.payload.time' or 'record.timestamp'"),
        ({"value": "$.a..b"}, "'$.a..b' is not a path"),
        ({"value": 7}, "7 is not a path"),
        ({"ts": "$.a["}, "is not a path"),
        ({"series": ["$.a", "b"]}, "'b' is not a path such as '$.payload.time' or 'record.key'"),
        ({"value": "$.a[*].b[*]"}, "more than one [*]"),
        ({"value": "$.a[*].b", "ts": "$.c[*].d"}, "paths through several arrays"),
        ({"value": "$.a", "values": {"value": "$.b"}}, "values is a table"),
        ({"values": "$.a"}, "values is a table"),
        ("$.a", "is a table"),
    ],
)
def test_a_wrong_table_of_paths_is_refused(table: object, error: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        Paths.parse(table)
    assert str(wrong.value).startswith("[decode] ")
    assert error in str(wrong.value)


def test_an_empty_table_of_paths_changes_nothing() -> None:
    assert not Paths.parse({})


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
ours = {*NAMES, *CERTAIN, *(f"{thing}{form}" for thing in THINGS for form in ("", "id", "name"))}
others = st.dictionaries(texts.filter(lambda name: plain(name) not in {*ours, "value", "values"}), scalars)
series = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32).filter(str.strip)


@given(series, st.integers(946_684_800_000, NOW), st.floats(-1e30, 1e30), others, st.sampled_from(["", "ts", "series"]))
def test_our_own_events_are_read_alike_with_any_other_fields(
    name: str, ts: int, value: float, more: dict[str, object], left_out: str
) -> None:
    """And described as they are decoded, though in another way."""
    body = json.loads(encode(Event(name, ts, (value,))))
    body = {**{field: given for field, given in body.items() if field != left_out}, **more}
    key = name.encode() if left_out == "series" and not name.startswith('"') else None
    if left_out == "series" and key is None:
        return
    (event,), notes = read(body, key)
    assert event == Event(name, NOW if left_out == "ts" else ts, (value,))
    source = "the key" if left_out == "series" else "`series`"
    clock = "the record's timestamp" if left_out == "ts" else "`ts`, epoch milliseconds"
    assert notes[0].text == f"series from {source}; time from {clock}; value from `value`"
    (again,) = Decoder(paths=Paths.parse({"series": "$.series"})).decode(record({**body, "series": name}))
    assert again == event


def test_stream_time_is_not_moved_by_a_record_without_a_time_or_with_a_wrong_one() -> None:
    now = time.time_ns() // 1_000_000
    decoder = Decoder()

    def ts_of(ts: int | None, recorded: int) -> int:
        return decoder.decode(record({"series": "a", "value": 1, "ts": ts}, at=recorded))[0].ts

    assert ts_of(NOW, -1) == NOW
    assert ts_of(now, -1) == now
    year = 365 * 86_400_000
    wrong = [
        (now + 2 * MAX_AHEAD, -1),
        (None, -1),
        (now + year, now + year),
        (None, now + year),
        (None, 2**62),
        (None, 5),
    ]
    for ts, recorded in wrong:
        with pytest.raises(InvalidEvent) as refused:
            ts_of(ts, recorded)
        assert refused.value.reason == "bad_time"
    assert ts_of(now + year // 100, now + year // 100) == now + year // 100


OTHERS = ("ts", "unit", "time", "id", "sensorId", "Series", "TS", "note", "tags", "labels", "fields", "eventTs")
GIVEN = st.none() | st.sampled_from(
    [1_700_000_000_000, 7, 2.5, "a", "", "2023-11-14T22:13:20Z", "20231114", {"host": "b"}, {"__name__": "m"}]
)
FIELDS = st.dictionaries(st.sampled_from(("value", *OTHERS)), GIVEN, max_size=5)


@st.composite
def of_the_same_names(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Bodies whose fields are called alike, and hold anything."""
    names = draw(st.lists(st.sampled_from(OTHERS), unique=True, min_size=1, max_size=4))
    held = st.lists(GIVEN, min_size=len(names), max_size=len(names))
    each = draw(st.lists(held, min_size=2, max_size=5))
    return [{"value": 1.5, **dict(zip(names, values, strict=True))} for values in each]


@given(st.lists(FIELDS, min_size=1, max_size=6) | of_the_same_names(), st.sampled_from([b"pump", None]))
@example([{"value": 1.5, "sensorId": ""}, {"value": 1.5, "sensorId": "x"}], b"pump")
@example([{"value": 1.5, "labels": "a"}, {"value": 1.5, "labels": {"__name__": "m"}}], b"pump")
@example([{"value": 1.5, "tags": "a", "fields": 1}, {"value": 1.5, "tags": {"a": "b"}, "fields": {"c": 1}}], b"pump")
def test_a_record_is_read_alike_whatever_came_before(bodies: list[dict[str, Any]], key: bytes | None) -> None:
    """Which fields leave their series and time to the log is remembered by their names."""

    def read(decoder: Decoder, body: dict[str, Any]) -> object:
        try:
            return list(decoder.decode(Given(json.dumps(body).encode(), key=key)))
        except InvalidEvent as error:
            return error.reason, error.detail

    experienced = Decoder()
    for body in [*bodies, *bodies]:
        assert read(experienced, body) == read(Decoder(), body)
