"""`tidecast tail`: records as readable lines."""

import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from waiting import until

from deploy.operations.tail import describe, tail
from pipeline.log import EventLog
from pipeline.log.connect import connect
from tidecast.errors import UnknownTopic

START = 1_600_000_000_000
Fresh = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRecord:
    """A record of a log, with defaults."""

    value: bytes | None
    key: bytes | None = b"pump"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "t"
    partition: int = 3
    offset: int = 17
    timestamp: int = START


def write(log: EventLog, topic: str, values: Sequence[int]) -> None:
    """Send each value to partition value % 2, timestamps a second apart."""
    with closing(log.producer()) as producer:
        for value in values:
            producer.send(topic, value % 2, None, b"%d" % value, timestamp=START + 1000 * value)
        producer.flush()


def test_last_records_of_each_partition_by_time_then_new_ones(log_address: str, fresh: Fresh) -> None:
    topic = fresh("t")
    with closing(connect(log_address)) as log:
        log.create_topic(topic, 2)
        write(log, topic, range(10))
        assert [record.value for record in tail(log, topic, last=2)] == [b"6", b"7", b"8", b"9"]
        assert list(tail(log, topic, last=0)) == []
        following = tail(log, topic, last=1, follow=True)
        assert [record.value for record in itertools.islice(following, 2)] == [b"8", b"9"]
        write(log, topic, [10, 11, 12])
        assert [record.value for record in itertools.islice(following, 3)] == [b"10", b"11", b"12"]
        with pytest.raises(UnknownTopic):
            next(tail(log, fresh("none")))


def test_last_records_beyond_the_markers_of_transactions(log_address: str, fresh: Fresh) -> None:
    topic = fresh("t")
    with closing(connect(log_address)) as log:
        log.create_topic(topic, 1)
        with (
            closing(log.consumer(fresh("group"), topic)) as consumer,
            closing(log.producer(fresh("writer"))) as producer,
        ):
            until(lambda: consumer.poll(0.1, 1).assigned == (0,))
            for value in range(5):
                producer.begin()
                producer.send(topic, 0, None, b"%d" % value, timestamp=START + value)
                producer.commit({}, consumer)
            for _ in range(3):
                producer.begin()
                producer.send(topic, 0, None, b"aborted", timestamp=START)
                producer.flush()
                producer.abort()
        for last in (1, 3, 5, 100):
            assert [record.value for record in tail(log, topic, last=last)] == [b"0", b"1", b"2", b"3", b"4"][-last:]


ALERT = {
    "series": "pump",
    "kind": "level_shift",
    "phase": "begin",
    "ts": START,
    "since": START - 3_600_000,
    "size": 2.5,
    "text": "it has been " + "much " * 40 + "higher since",
}
SUMS = ("squared_error", "absolute_error", "naive_squared_error", "naive_absolute_error", "width", "winkler")
SCORES = {
    "series": "pump",
    "start": START,
    "until": START + 3_540_000,
    "steps": [1, 2],
    "naive": 1,
    "coverage": 0.9,
    "scale": {"value": 1.0},
    "unscored": {"value": [0, 1]},
    "scores": [
        {"model": "m/7", "target": "value", "count": [2, 2], "intervals": [2, 2], "inside": [2, 1]}
        | {name: [4000.0, 6000.0] for name in SUMS}
    ],
}


EXAMPLES: dict[str, dict[str, Any]] = {"alert": ALERT, "scores": SCORES, "nothing": SCORES | {"scores": []}}


def test_alerts_and_scores_as_a_line() -> None:
    said = {name: describe(FakeRecord(value=json.dumps(each).encode())).text for name, each in EXAMPLES.items()}
    assert said == {
        "alert": f"level_shift begin at 2020-09-13 12:26: {ALERT['text']}",
        "scores": "scores of 2020-09-13 12:26 to 2020-09-13 13:25: "
        "MAE 2,500, naive MAE 2,500, skill 0.000, coverage 75.0%, n 4, unscored 1",
        "nothing": "scores of 2020-09-13 12:26 to 2020-09-13 13:25: nothing graded",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'{"ts":1600000000000,"value":21.5}', "value 21.5  at 2020-09-13 12:26:40"),
        (b'{"value":1e300}', 'no event: out_of_range: 1e+300 does not fit in a float32 | {"value":1e300}'),
        (
            b'{"sensorId":7,"time":1600000000,"temperature":"21.5"}',
            "no event: schema: no value among `sensorId`, `time`, `temperature`; one may be at $.temperature: "
            '[decode] value = "$.temperature" | {"sensorId":7,"time":1600000000,"temperature":"21.5"}',
        ),
        (b'{"sensorId":7,"time":1600000000,"temperature":21.5}', "7 value 21.5  at 2020-09-13 12:26:40"),
        (b'{"id":7,"text":"see you at five"}', '{"id":7,"text":"see you at five"}'),
        (
            b"\0\0\0\0\x2a{}",
            "no event: malformed_json: Confluent wire format (magic byte 0, schema id 42), not plain "
            "JSON: write with a JSON converter, without a schema registry | \\x00\\x00\\x00\\x00*{}",
        ),
        (b'{"id":7,"label":"spam","probability":0.98765,"model":"m/7"}', "spam 0.988  m/7"),
        (b'{"ts":"2020-01-01","values":{"flow":1,"heat":2.25}}', "flow 1 heat 2.25  at 2020-01-01 00:00:00"),
        (
            b'{"series":"a","ts":0,"start":1600000000000,"step":60000,"forecast":[1,2,3,4,5,6,7],"source":"model","model":"m/7"}',
            "forecast from 2020-09-13 12:26:40: 1 2 3 4 5 .. 7  m/7",
        ),
        (b'{"ts":0,"forecast":{"flow":[1,2],"heat":[3,4]}}', "forecast from 1970-01-01 00:00:00: flow 1 2 | heat 3 4"),
        (b'{"ts":99999999999999999,"forecast":[]}', "forecast from 99999999999999999:"),
        (None, "(tombstone)"),
        (b"{}", "no event: schema: no value among none | {}"),
        (b"[" * 100_000, "no event: too_deep: nested deeper than 500 levels | " + "[" * 118 + ".."),
        (
            b"\xff\x1b[31mred\n",
            "no event: malformed_json: JSON is malformed: invalid character (byte 0) | \\xff\\x1b[31mred\\n",
        ),
        (b'{"value":"21"}', "value 21  at 2020-09-13 12:26:40"),
    ],
)
def test_record_as_a_line(value: bytes | None, text: str) -> None:
    assert describe(FakeRecord(value=value)) == ("2020-09-13 12:26:40", 3, 17, "pump", text)


def test_dead_letter_as_a_line() -> None:
    headers = [("tidecast.reason", b"bad_time"), ("tidecast.detail", b"too early")]
    assert describe(FakeRecord(value=b"{\x00}", key=None, headers=headers))[3:] == (
        "",
        "invalid: bad_time: too early | {\\x00}",
    )
