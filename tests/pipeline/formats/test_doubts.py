"""What is asked, said or refused of events whose fields may mean something else: nothing is guessed in silence."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.formats.clock import MAX_AHEAD
from pipeline.formats.dead_letters import InvalidEvent
from pipeline.formats.decoding import MIN_NAMES, Note
from pipeline.formats.events import Decoder, Event
from pipeline.formats.paths import Paths

NOW = 1_700_000_000_000
ISO = "2023-11-14T22:13:20Z"


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


def record(body: object, key: bytes | None = None) -> Given:
    return Given(body if isinstance(body, bytes) else json.dumps(body).encode(), key)


def said(*bodies: object, key: bytes | None = None, decode: object = None) -> list[Note]:
    """What is said of some records, besides from which fields they are read."""
    notes = Decoder(paths=Paths.parse(decode or {})).describe([record(body, key) for body in bodies])
    return [note for note in notes if note.kind != "read"]


def one(body: object, key: bytes | None = None) -> Event:
    (event,) = Decoder().decode(record(body, key))
    return event


def refusal(body: object, key: bytes | None = None) -> str:
    with pytest.raises(InvalidEvent) as refused:
        Decoder().decode(record(body, key))
    return refused.value.detail


@pytest.mark.parametrize("name", ["version", "seq", "id", "specversion", "interval", "quality", "lat"])
def test_a_number_about_the_message_is_no_value(name: str) -> None:
    assert one({"series": "a", "ts": NOW, "temp": 21.5, name: 3}).values == (21.5,)
    assert refusal({"series": "a", "ts": NOW, "temp": None, name: 3}).startswith("no value among ")
    shadow = {"series": "a", "ts": NOW, "state": {"reported": {"temp": 21.5}}, name: 3}
    assert refusal(shadow).endswith('; one may be at $.state.reported.temp: [decode] value = "$.state.reported.temp"')


@pytest.mark.parametrize("name", ["value", "y", "reading"])
def test_a_value_that_is_null_is_missing_whatever_else_is_there(name: str) -> None:
    assert refusal({"series": "a", "ts": NOW, name: None, "battery": 90}) == f"`{name}` is null"


def test_a_number_that_is_text_is_not_passed_over() -> None:
    assert refusal({"series": "a", "ts": NOW, "temp": "21.5"}).endswith('[decode] value = "$.temp"')
    (question,) = said({"series": "a", "ts": NOW, "temp": "21.5", "battery": 90})
    assert question.kind == "question"
    assert question.text.startswith("is the value `battery` or `$.temp`? [decode] value = ")
    (question,) = said({"series": "a", "ts": NOW, "load": 2, "points": [[NOW, 1.5]], "values": [1.5]})
    assert question.text.startswith("is the value `load` or `$.values[0]`?")


@pytest.mark.parametrize("place", ["values", "fields"])
def test_the_path_that_answers_a_question_leads_to_the_field(place: str) -> None:
    body = {"series": "a", "ts": NOW, place: {"a b": 21.5, "hum": 40}}
    path = refusal(body).split('[decode] value = "')[1].rstrip('"')
    (event,) = Decoder(paths=Paths.parse({"value": path})).decode(record(body))
    assert event.values == (21.5,)


@pytest.mark.parametrize("sensor", [{"id": "a"}, 1.0, True, "", " ", ["a"]])
def test_what_names_no_series_leaves_it_to_the_key(sensor: object) -> None:
    assert one({"ts": NOW, "value": 1, "sensor": sensor}, b"k").series == "k"


def test_without_a_key_the_field_that_names_no_series_is_named() -> None:
    assert refusal({"ts": NOW, "value": 1, "sensor": {"id": "a"}}).endswith('[decode] series = "$.sensor.id"')
    assert refusal({"ts": NOW, "value": 1, "sensorId": ""}) == "`sensorId` is '', not a series' name"


def test_a_key_that_names_another_series_than_the_field_is_said_with_the_way_to_take_it() -> None:
    (alert,) = said({"sensorId": "s", "ts": NOW, "value": 1}, key=b"pump-7")
    assert alert == Note(
        "alert", 'series from `sensorId`, and the key is another: [decode] series = "record.key" takes it'
    )
    alike: list[tuple[dict[str, object], bytes]] = [
        ({"sensorId": "s"}, b'"s"'),
        ({"sensorId": 7}, b"7"),
        ({"series": "s"}, b"pump-7"),
        ({"sensorId": "s"}, struct.pack(">q", 7)),
    ]
    for body, key in alike:
        assert not said({**body, "ts": NOW, "value": 1}, key=key)
    assert not said({"sensorId": "s", "ts": NOW, "value": 1}, key=b"pump-7", decode={"series": "record.key"})


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (struct.pack(">q", 1001), "(8 bytes, an int64 or a double?)"),
        (struct.pack(">q", 1), "(8 bytes, an int64 or a double?)"),
        (struct.pack(">q", 2**40), "Confluent wire format (schema id 65536) or an int64"),
        (struct.pack(">i", 1001), "(4 bytes, an int32?)"),
        (b"\0\0\0\0\x2a\x08pump", "Confluent wire format (schema id 42)"),
        (b"null", "the key is JSON's null"),
        (b'""', "the series' name is empty"),
        (b"", "the series' name is empty"),
    ],
)
def test_a_key_that_names_nothing_is_refused_as_what_it_is_and_leaves_the_series_to_the_body(
    key: bytes, why: str
) -> None:
    assert why in refusal({"ts": NOW, "value": 1}, key)
    assert one({"ts": NOW, "value": 1, "host": "h"}, key).series == "h"


@pytest.mark.parametrize("name", ["site", "phase", "store", "hour"])
@pytest.mark.parametrize(
    ("source", "path", "kind"),
    [("sensor", "$.sensor", "question"), (None, "record.key", "question"), ("series", "$.series", "alert")],
)
def test_two_values_of_a_series_at_one_time_are_asked_about_if_another_field_differs(
    name: str, source: str | None, path: str, kind: str
) -> None:
    named = {source: "s"} if source else {}
    both = [{**named, "ts": NOW, "value": value, name: value} for value in (1, 2)]
    (note,) = said(*both, key=None if source else b"s")
    assert note.kind == kind
    assert note.text.endswith(f'[decode] series = "{path}", or ["{path}", "$.{name}"]')
    assert not said(*both, key=b"s", decode={"series": path})
    assert not said({**both[0], "value": 1}, {**both[1], "value": 1}, key=None if source else b"s"), "sent twice"


def test_tags_that_differ_are_asked_about() -> None:
    bodies = [{"metric": "cpu", "ts": NOW + i, "value": i, "device": "d", "tags": {"core": i % 2}} for i in range(2)]
    (question,) = said(*bodies)
    assert question.kind == "question"
    assert "with `tags`" in question.text


def test_a_series_of_its_own_for_each_event_is_said_where_it_may_be_the_message_s_id() -> None:
    messages = [{"id": f"m-{i}", "ts": NOW, "value": i} for i in range(MIN_NAMES)]
    (alert,) = said(*messages)
    assert alert.kind == "alert"
    assert "of a series of its own by `id`" in alert.text
    assert not said(*messages[:-1], messages[0])
    decoder = Decoder()
    keyed = [record({"ts": NOW, "value": i}, b"6f1c0000-0000-4000-8000-%012d" % i) for i in range(MIN_NAMES)]
    assert any("by the key" in note.text for note in decoder.describe(keyed))
    sensors = [record({"ts": NOW, "value": i}, b"sensor-%d" % i) for i in range(MIN_NAMES)]
    assert all(note.kind == "read" for note in Decoder().describe(sensors))


@pytest.mark.parametrize(
    "name",
    [
        "eventTs",
        "event_time_ms",
        "timestampNanos",
        "timeUnixNano",
        "timeMillis",
        "measured_on",
        "readTime",
        "sampledAt",
    ],
)
def test_a_time_is_found_with_its_unit_in_its_name(name: str) -> None:
    assert one({"series": "a", name: NOW - 1000, "value": 1}).ts == NOW - 1000
    assert one({"series": "a", name: (NOW - 1000) * 1_000_000, "value": 1}).ts == NOW - 1000


def test_a_time_ahead_is_refused_by_its_field_s_name_and_how_it_was_read() -> None:
    why = refusal({"series": "a", "value": 1, "time": "2023-11-14 23:13:20"})
    assert why.startswith("`time`, ISO 8601 without a zone, taken as UTC: ")
    assert one({"series": "a", "value": 1, "time": NOW + MAX_AHEAD}).ts == NOW + MAX_AHEAD


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"\0\0\0\0\x07{}", "Confluent wire format (magic byte 0, schema id 7)"),
        (b"\0\0\0\0\0\0\0\0\x07{}", "binary data"),
        (b"\3\0" + b"0" * 16 + b"{}", "AWS Glue"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"Obj\x01", "Avro"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
    ],
)
def test_another_format_is_called_by_its_name(payload: bytes, what: str) -> None:
    assert what in refusal(payload)


def test_what_is_asked_does_not_change_what_is_read() -> None:
    """A record alone decides."""
    bodies: list[dict[str, Any]] = [{"sensor": "s", "ts": NOW, "value": i, "site": i, "at": ISO} for i in range(3)]
    decoder = Decoder()
    decoder.describe([record(body) for body in bodies])
    for body in bodies:
        assert [one(body)] == list(decoder.decode(record(body)))
